#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What ls and stat see: names, sizes, blocks, modes, links, times; and again on a second mount.
. "$(dirname "$0")/lib.sh"

names='chat_template.jinja config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json'

facts() { (cd "$MNT" && stat -c '%n %i %s %b %a %h %Y %Z %X %u %g' . raw $names raw/*); }

mount_it
[ "$(ls -A "$MNT" | tr '\n' ' ')" = "$names " ] || fail "listed: $(ls -A "$MNT")"
[ "$(stat -f -c %l "$MNT")" = 255 ] || fail "statfs"
[ -d "$MNT/raw" ] && [ -d "$MNT/full" ] && [ -d "$MNT/.gatherfs" ] || fail "unlisted directories"
[ ! -e "$MNT/nothing" ] && [ ! -e "$MNT/raw/raw" ] && [ ! -e "$MNT/raw/.gatherfs" ] ||
    fail "what should not be there is"

newest=$(stat -c %Y "$SRC"/global_step2/*.pt | sort -n | tail -n 1)
for name in $names; do
    read -r size blocks block_size mode links mtime < <(stat -c '%s %b %o %a %h %Y' "$MNT/$name")
    [ "$blocks" = $(((size + 511) / 512)) ] || fail "$name: $blocks blocks of $size bytes"
    [ "$block_size" = 1048576 ] || fail "$name: st_blksize $block_size"
    [ "$mode $links" = "444 1" ] || fail "$name: mode $mode, $links links"
    [ "$mtime" = "$newest" ] || fail "$name: mtime $mtime, the step's is $newest"
    [ "$(wc -c <"$MNT/$name")" = "$size" ] || fail "$name: size"
done
[ "$(stat -c '%a %h %F' "$MNT/raw")" = "555 2 directory" ] || fail "directory's facts"
[ "$(stat -c %i "$MNT"/* "$MNT"/raw/* | sort | uniq -d)" = "" ] || fail "inode numbers are not unique"
grep -q " - fuse.gatherfs $(printf '%s' "$SRC" | sed 's/ /\\\\040/g') " /proc/self/mountinfo ||
    fail "type and source: $(grep gatherfs /proc/self/mountinfo)"
(cd "$MNT" && sha256sum -c --quiet "$SAMPLE.sha256") || fail "not the bytes of save_pretrained"
before=$(facts)
unmount_it

mount_it
[ "$(facts)" = "$before" ] || fail "a second mount differs: $(diff <(facts) - <<<"$before")"
unmount_it

# A source that only its owner may read stays so; mode= widens; uid= and gid= are shown.
chmod 600 "$SRC"/global_step2/*.pt
mount_it
[ "$(stat -c %a "$MNT/model.safetensors") $(stat -c %a "$MNT")" = "400 500" ] || fail "mode of the source"
unmount_it
mount_it -o mode=0444,uid=12,gid=34
[ "$(stat -c '%a %u %g' "$MNT/model.safetensors")" = "444 12 34" ] || fail "mode= uid= gid="
unmount_it

# One view alone, without sub-directories.
chmod 644 "$SRC"/global_step2/*.pt
mount_it -o view=raw
[ ! -e "$MNT/raw" ] && [ ! -e "$MNT/full" ] || fail "view= has sub-directories"
[ "$(stat -c %s "$MNT/model.safetensors")" -gt 200000 ] || fail "view=raw is not raw"
unmount_it
mount_it -o views=raw
[ -d "$MNT/raw" ] && ls "$MNT" | grep -qx raw || fail "views=raw is not listed"
unmount_it
