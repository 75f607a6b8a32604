#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sources that are cut short, replaced or deleted under the mount: the bytes that were there
# or EIO with a line in the log, never others, and the rest goes on.
. "$(dirname "$0")/lib.sh"
need python3

shard=$SRC/global_step2/bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt
cp -p "$shard" "$WORK/shard"

# still_serves: the process lives, and another file of the mount is right
still_serves() {
    running "$PID" || fail "$1: the process died"
    [ "$(timeout 10 cat "$MNT/tokenizer.json" | sha256sum)" = "$(sha256sum <"$SRC/tokenizer.json")" ] ||
        fail "$1: other files"
}

# auto converts (fp32 masters to bf16), stored is answered from mappings
for dtype in auto stored; do
    "$GATHERFS" cat --dtype $dtype "$SRC" model.safetensors >"$WORK/want" || fail "cat"

    # Deleted while open: the reader goes on to the end.
    mount_it --dtype $dtype
    exec 3<"$MNT/model.safetensors"
    rm "$shard"
    timeout 20 cmp - "$WORK/want" <&3 || fail "$dtype: deleted under an open file"
    exec 3<&-
    unmount_it
    cp -p "$WORK/shard" "$shard"

    # Replaced while open (written aside, renamed over it): the same.
    mount_it --dtype $dtype
    exec 3<"$MNT/model.safetensors"
    python3 -c 'import sys; b = open(sys.argv[1], "rb").read(); open(sys.argv[2], "wb").write(bytes(x ^ 1 for x in b))' \
        "$WORK/shard" "$shard.new"
    mv "$shard.new" "$shard"
    timeout 20 cmp - "$WORK/want" <&3 || fail "$dtype: replaced under an open file"
    exec 3<&-
    unmount_it
    cp -p "$WORK/shard" "$shard"

    # Cut short: EIO, soon; what the kernel has cached may still be right.
    : >"$LOG"
    mount_it --dtype $dtype
    exec 3<"$MNT/model.safetensors"
    truncate -s 1000 "$shard"
    timeout 20 python3 - "$WORK/want" <<'PYTHON' || fail "$dtype: cut short"
import errno, os, sys

want, errors = open(sys.argv[1], "rb").read(), 0
for at in range(0, len(want), 4096):
    try:
        got = os.pread(3, 4096, at)
        assert got == want[at:at + 4096], f"wrong bytes at {at}"
    except OSError as e:
        assert e.errno == errno.EIO, e
        errors += 1
assert errors, "no error"
PYTHON
    exec 3<&-
    grep -q "reading 'model.safetensors'.*rank_2" "$LOG" || fail "$dtype: the log does not name it: $(cat "$LOG")"
    [ "$(wc -l <"$LOG")" -le 60 ] || fail "$dtype: the log is not limited"
    [ "$(counter errors)" -gt 0 ] || fail "$dtype: no error counted"
    still_serves "$dtype: cut short"
    unmount_it
    cp -p "$WORK/shard" "$shard"
done

# The whole source goes.
mount_it
mv "$SRC" "$WORK/away"
sleep 2.5
running "$PID" || fail "source gone: the process died"
timeout 10 ls "$MNT" >/dev/null 2>&1
[ $? -le 2 ] || fail "source gone: ls hangs"
mv "$WORK/away" "$SRC"
eventually 5 cmp -s "$MNT/tokenizer.json" "$SRC/tokenizer.json" || fail "source back: not served"
unmount_it
