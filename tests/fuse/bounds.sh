#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a mount keeps does not grow: anonymous memory, descriptors, threads, nodes.
. "$(dirname "$0")/lib.sh"
need python3

descriptors() { ls "/proc/$PID/fd" | wc -l; }
rss_anon() { sed -n 's/RssAnon:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$PID/status"; }

mount_it
# Once, so that what is made at the first use is there.
cat "$MNT/model.safetensors" "$MNT/raw/model.safetensors" "$MNT/.gatherfs/status.json" >/dev/null
before=$(descriptors)
python3 - "$MNT" <<'PYTHON' || fail "open and close"
import os, sys, threading

mnt = sys.argv[1]


def work():
    for _ in range(250):
        for name in ("model.safetensors", "raw/model.safetensors", "config.json", ".gatherfs/stats.json"):
            fd = os.open(f"{mnt}/{name}", os.O_RDONLY | (0 if "gatherfs" in name else os.O_DIRECT))
            os.read(fd, 4096)
            os.close(fd)
        os.listdir(mnt)
        os.path.exists(mnt + "/nothing")


threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
PYTHON
settled() { [ "$(descriptors)" -le "$before" ]; } # but for a moment, once a second
eventually 5 settled || fail "descriptors: $before, then $(descriptors)"
released() { [ "$(counter open_files)" -le 1 ]; }
eventually 5 released || fail "open files: $(counter open_files)"
[ "$(rss_anon)" -le 65536 ] || [ -n "${ASAN_OPTIONS-}" ] || fail "RssAnon: $(rss_anon) kB"
[ "$(ls "/proc/$PID/task" | wc -l)" -le 20 ] || fail "$(ls "/proc/$PID/task" | wc -l) threads"
if [ "$(id -u)" = 0 ] && [ -w /proc/sys/vm/drop_caches ]; then
    forgotten() {
        echo 2 >/proc/sys/vm/drop_caches
        [ "$(counter nodes)" -le 6 ]
    }
    eventually 5 forgotten || fail "nodes: $(counter nodes)"
fi
# Read-ahead is worth five times on a cold mmap: root sets it.
bdi=/sys/class/bdi/$(mountpoint -d "$MNT")/read_ahead_kb
[ ! -w "$bdi" ] || [ "$(cat "$bdi")" = 2048 ] || fail "read-ahead: $(cat "$bdi")"
unmount_it
