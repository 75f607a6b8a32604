#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every way to end a mount ends it: by signal, from outside, idle, under load, with files
# open. No process, mount or waiting reader is left.
. "$(dirname "$0")/lib.sh"

load() { # readers that go on until the mount is gone
    local i
    READERS=
    for i in 1 2 3; do
        (while dd if="$MNT/model.safetensors" of=/dev/null bs=16K iflag=direct status=none 2>/dev/null; do :; done) &
        READERS+=" $!"
    done
    sleep 0.3
}

over() { # the process has ended, nothing is mounted, the readers have come back
    local reader
    eventually 8 ended "$PID" || fail "$1: process $PID is still there"
    ! mounted || fail "$1: still mounted"
    for reader in ${READERS-}; do
        eventually 8 ended "$reader" || fail "$1: a reader hangs"
    done
    READERS='' PID=''
    [ ! -e "$MNT/config.json" ] || fail "$1: something is still there"
}

for signal in TERM INT HUP; do
    mount_it
    kill -$signal "$PID"
    over "SIG$signal"

    mount_it
    load
    kill -$signal "$PID"
    over "SIG$signal under load"
done

mount_it
exec 3<"$MNT/model.safetensors" 4<"$MNT/raw"
kill "$PID"
over "SIGTERM with open files"
if cat <&3 >/dev/null 2>&1; then fail "a file of an ended mount can be read"; fi
exec 3<&- 4<&-

# Busy: refused, unless lazy; then it serves until the last file is closed.
mount_it
exec 3<"$MNT/model.safetensors"
refused 'busy' "$GATHERFS" umount "$MNT"
[ "$(wc -l <"$WORK/err")" = 1 ] || fail "not one line: $(cat "$WORK/err")"
"$GATHERFS" umount -z "$MNT" || fail "umount -z"
! mounted || fail "umount -z: still mounted"
running "$PID" || fail "umount -z: the open file has lost its server"
cmp - <("$GATHERFS" cat "$SRC" model.safetensors) <&3 || fail "umount -z: other bytes"
exec 3<&-
over "umount -z"

mount_it
load
umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT" || fail "umount -l"
over "umount -l under load"

# Detached by somebody else, then a signal: another mount on that place is left alone.
mount_it
exec 3<"$MNT/model.safetensors"
umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT" || fail "umount -l"
first=$PID
mount_it
kill "$first"
eventually 8 ended "$first" || fail "a detached mount ignores SIGTERM"
[ -e "$MNT/config.json" ] || fail "the other mount was taken down"
exec 3<&-
unmount_it

mount_it
fusermount3 -u "$MNT" || fail "fusermount3"
over "fusermount3"

# Killed: the dead mount can be removed, and the place used again.
mount_it
kill -9 "$PID"
eventually 5 ended "$PID"
"$GATHERFS" umount "$MNT" || fail "a dead mount cannot be removed"
over "SIGKILL"
mount_it
unmount_it
