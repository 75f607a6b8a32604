#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A line of /etc/fstab works: mount(8) -> mount.fuse3 -> sh -> gatherfs SOURCE MOUNTPOINT -o ...
# mount(8) drops PATH, so the binary has to be where the shell looks by itself: it gets there
# in a mount namespace of this test alone.
PATH=$PATH:/usr/sbin:/sbin
if [ -z "${FSTAB_PRIVATE-}" ] && unshare -m true 2>/dev/null; then
    FSTAB_PRIVATE=1 exec unshare -m --propagation private "$0"
fi
. "$(dirname "$0")/lib.sh"
[ -n "${FSTAB_PRIVATE-}" ] || skip "no mount namespace (needs root)"
need mount mount.fuse3
mount -t tmpfs tmpfs /usr/local/sbin && cp "$GATHERFS" /usr/local/sbin/gatherfs || skip "no private /usr/local/sbin"

line() { printf '%s %s fuse.gatherfs %s 0 0\n' "${SRC// /\\040}" "${MNT// /\\040}" "${1// /\\040}" >"$WORK/fstab"; }

# mount_line OPTIONS
mount_line() {
    line "$1"
    mount -T "$WORK/fstab" "$MNT" 2>"$WORK/err" || fail "mount: $(cat "$WORK/err")"
    [ ! -s "$WORK/err" ] || fail "mount says: $(cat "$WORK/err")"
    find_process
}

umount_line() {
    umount "$MNT" || fail "umount"
    eventually 5 ended "$PID" || fail "process is still there"
    PID=
}

mount_line "defaults,nofail,_netdev,x-systemd.automount,noauto,user,allow_other,threads=4,mode=0444,log=$LOG"
(cd "$MNT" && sha256sum -c --quiet "$SAMPLE.sha256") || fail "bytes"
grep -q '"threads": 4' "$MNT/.gatherfs/status.json" || fail "options are lost"
[ -e "$LOG" ] || fail "log= is lost"
grep fuse.gatherfs /proc/self/mountinfo | grep -qF allow_other || fail "allow_other is lost"
umount_line

mount_line "ro,view=raw,dtype=stored,nosuid,nodev,relatime"
[ "$(stat -c %s "$MNT/model.safetensors")" -gt 200000 ] || fail "view=raw is lost"
umount_line

mount -t fuse.gatherfs "$SRC" "$MNT" -o threads=2 || fail "mount -t"
find_process
umount_line

# A line that cannot work fails, with one line of ours.
line "tag=nothing"
refused nothing mount -T "$WORK/fstab" "$MNT"
[ "$(grep -c gatherfs: "$WORK/err")" = 1 ] || fail "not one line: $(cat "$WORK/err")"
! mounted || fail "mounted after all"
