#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Training goes on: a new tag appears and `latest` moves to it. The root shows the new step
# within two seconds, the old one is a sub-directory, and open files keep their step.
. "$(dirname "$0")/lib.sh"
need python3

# next_step TAG: a copy of global_step2 with other weights
next_step() {
    cp -r "$SRC/global_step2" "$WORK/$1"
    python3 - "$WORK/prov" "$WORK/$1" <<'PYTHON'
import json, os, sys

ranges = [r for r in json.load(open(sys.argv[1]))["ranges"] if r["source"]]
for r in ranges[::3]:
    with open(os.path.join(sys.argv[2], os.path.basename(r["source"])), "r+b") as f:
        f.seek(r["source_offset"])
        f.write(b"\0\0\x80\x3f" * (r["source_length"] // 4))  # ones
PYTHON
    mv "$WORK/$1" "$SRC/$1"
}

mount_it
cp "$MNT/.gatherfs/provenance/model.safetensors.json" "$WORK/prov"
cp "$MNT/model.safetensors" "$WORK/old"
ino=$(stat -c %i "$MNT/model.safetensors")
exec 3<"$MNT/model.safetensors"

next_step global_step4
sleep 2
cmp "$MNT/model.safetensors" "$WORK/old" || fail "the root moved before 'latest' did"
ls "$MNT" | grep -qx global_step4 || fail "a new tag is not listed: $(ls "$MNT")"

(cd "$MNT/raw" && sleep 4 && sha256sum model.safetensors >"$WORK/held") & # one directory, one step
held=$!
raw=$(sha256sum <"$MNT/raw/model.safetensors")
printf global_step4 >"$SRC/latest.new" && mv "$SRC/latest.new" "$SRC/latest"
began=$(date +%s%N)
moved() { ! cmp -s "$MNT/model.safetensors" "$WORK/old"; }
eventually 5 moved || fail "the root does not move"
took=$((($(date +%s%N) - began) / 1000000))
[ $took -le 2500 ] || fail "the root moved after $took ms"
"$GATHERFS" cat "$SRC" model.safetensors | cmp - "$MNT/model.safetensors" || fail "not the new step's bytes"
[ "$(stat -c %i "$MNT/model.safetensors")" != "$ino" ] || fail "same inode number for another step"
"$GATHERFS" cat "$SRC" raw/model.safetensors >"$WORK/raw" || fail "cat"
eventually 2 cmp -s "$MNT/raw/model.safetensors" "$WORK/raw" || fail "raw/ stayed"
cmp - "$WORK/old" <&3 || fail "an open file changed its step"
exec 3<&-
eventually 2 test -e "$MNT/global_step2/model.safetensors" || fail "the old step is gone: $(ls "$MNT")"
cmp "$MNT/global_step2/model.safetensors" "$WORK/old" || fail "the old step's bytes"
! ls "$MNT" | grep -qx global_step4 || fail "the root's own tag is listed below it"
wait $held
[ "$(cut -d' ' -f1 "$WORK/held")" = "${raw%% *}" ] || fail "a directory changed its step"

# A tag that is removed vanishes.
rm -r "$SRC/global_step2"
vanished() { [ ! -e "$MNT/global_step2" ] && ! ls "$MNT" | grep -q global_step; }
eventually 3 vanished || fail "a removed tag is still there"

# Nobody holds the old step any more: its files are closed when the kernel forgets it.
closed() {
    [ ! -w /proc/sys/vm/drop_caches ] || echo 2 >/proc/sys/vm/drop_caches
    ! ls -l "/proc/$PID/fd" | grep -q 'global_step2/.*deleted'
}
[ ! -w /proc/sys/vm/drop_caches ] || eventually 5 closed || fail "kept: $(ls -l "/proc/$PID/fd")"

# An incomplete one does not appear.
next_step2() { cp -r "$SRC/global_step4" "$SRC/global_step6" && rm "$SRC/global_step6"/*rank_3*optim*; }
next_step2
sleep 2.2
[ ! -e "$MNT/global_step6" ] && ! ls "$MNT" | grep -q global_step || fail "an incomplete step is shown"
unmount_it

# With tag= nothing moves.
mount_it -o tag=global_step4
cp "$MNT/model.safetensors" "$WORK/old"
printf global_step6 >"$SRC/latest"
sleep 2.2
cmp "$MNT/model.safetensors" "$WORK/old" || fail "tag= moves"
unmount_it
