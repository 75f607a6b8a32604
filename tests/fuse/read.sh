#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every way of reading gives the bytes that `gatherfs cat` gives: any slice, mmap, O_DIRECT,
# many readers at once, cached and not.
. "$(dirname "$0")/lib.sh"
need python3

"$GATHERFS" cat "$SRC" model.safetensors >"$WORK/full" || fail "cat"
"$GATHERFS" cat "$SRC" raw/model.safetensors >"$WORK/raw" || fail "cat"

check() {
    python3 - "$1" "$2" <<'PYTHON'
import mmap, os, random, sys

path, want = sys.argv[1], open(sys.argv[2], "rb").read()
rng = random.Random(1)


def slices():
    for _ in range(300):
        start = rng.randrange(len(want) + 10)
        yield start, rng.choice((1, 2, 3, 7, 512, 4095, 4096, 65537, len(want)))


fd = os.open(path, os.O_RDONLY)
for start, n in slices():
    assert os.pread(fd, n, start) == want[start:start + n], (start, n)
assert os.pread(fd, 10, len(want)) == b"" and os.pread(fd, 10, 1 << 40) == b""
assert os.lseek(fd, 100, os.SEEK_DATA) == 100 and os.lseek(fd, 100, os.SEEK_HOLE) == len(want)

for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
    if flags == mmap.MAP_SHARED and "direct" in sys.argv[2:]:
        continue
    try:
        m = mmap.mmap(fd, 0, flags=flags, prot=mmap.PROT_READ)
    except OSError:
        # MAP_SHARED of a file opened with direct_io: the kernel may refuse
        assert flags == mmap.MAP_SHARED and os.environ.get("DIRECT_IO"), flags
        continue
    for start, n in slices():
        assert m[start:start + n] == want[start:start + n], (start, n)
    m.close()
os.close(fd)

fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
for start in list(range(0, len(want), 4096)) + [0]:
    buf = mmap.mmap(-1, 16384)
    n = os.preadv(fd, [buf], start)
    assert n == min(16384, len(want) - start) and buf[:n] == want[start:start + n], (start, n)
PYTHON
}

readers() {
    local i pids=()
    for i in 1 2 3 4 5 6 7 8; do
        (for _ in 1 2 3 4 5; do
            cmp -s "$MNT/model.safetensors" "$WORK/full" &&
                dd if="$MNT/raw/model.safetensors" bs=64K iflag=direct status=none |
                cmp -s - "$WORK/raw" || exit 1
        done) &
        pids+=($!)
    done
    for i in "${pids[@]}"; do
        wait "$i" || return 1
    done
}

for options in threads=16 threads=1 direct_io; do
    export DIRECT_IO=
    [ $options != direct_io ] || DIRECT_IO=1
    mount_it -o $options
    check "$MNT/model.safetensors" "$WORK/full" || fail "$options: model.safetensors"
    check "$MNT/raw/model.safetensors" "$WORK/raw" || fail "$options: raw/model.safetensors"
    readers || fail "$options: parallel readers"
    unmount_it
done

# What was read once stays in the kernel's cache for the next open.
mount_it
cat "$MNT/model.safetensors" >/dev/null
reads=$(counter reads)
cat "$MNT/model.safetensors" | cmp - "$WORK/full" || fail "second read"
[ "$(counter reads)" = "$reads" ] || fail "the second open read again: $reads, $(counter reads)"
unmount_it
