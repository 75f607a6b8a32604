# SPDX-License-Identifier: Apache-2.0
# lib.sh - what every mount test starts with: `. "$(dirname "$0")/lib.sh"`
#
# A test is a script of this folder that ends with 0 (passed), 77 (cannot run here) or
# anything else (failed). It gets $GATHERFS (the binary) and $SAMPLE (a ZeRO-3 checkpoint),
# and works in a private $WORK: its own copy of the sample in $SRC, the mountpoint $MNT, the
# mount's log $LOG. However it ends, its mounts and processes go; after a failure $WORK stays.
set -u

: "${GATHERFS:?path of the gatherfs binary}" "${SAMPLE:?path of a ZeRO-3 checkpoint}"
# No space but one: paths with spaces must work everywhere.
WORK=$(mktemp -d "${TMPDIR:-/tmp}/gatherfs test.XXXXXX") || exit 1
SRC=$WORK/src MNT=$WORK/mnt LOG=$WORK/log
PID= # of the mount that runs now

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "FAIL: $*"
    exit 1
}

skip() {
    say "skip: $*"
    exit 77
}

# need COMMAND...: or the test cannot run here
need() {
    local command
    for command; do
        command -v "$command" >/dev/null || skip "no $command"
    done
}

# running PID: a zombie is not
running() {
    local state
    state=$(sed 's/.*) \(.\).*/\1/' "/proc/$1/stat" 2>/dev/null) && [ "$state" != Z ]
}

# eventually SECONDS COMMAND...: until it succeeds
eventually() {
    local tries=$(($1 * 20))
    shift
    while ! "$@"; do
        [ $((tries -= 1)) -gt 0 ] || return 1
        sleep 0.05
    done
}

ended() { ! running "$1"; }
mounted() { grep -qF " ${MNT// /\\040} " /proc/self/mountinfo; }

cleanup() {
    local status=$?
    trap - EXIT
    # shellcheck disable=SC2046
    [ -z "$(jobs -p)" ] || kill $(jobs -p) 2>/dev/null
    while mounted; do
        umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT" 2>/dev/null || break
    done
    if [ -n "$PID" ] && running "$PID"; then
        kill "$PID"
        eventually 5 ended "$PID" || kill -9 "$PID"
    fi
    case $status in
    0 | 77) chmod -R u+w "$WORK" && rm -rf "$WORK" ;;
    *)
        [ ! -s "$LOG" ] || tail -n 20 "$LOG" >&2
        say "kept: $WORK" ;;
    esac
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

[ -c /dev/fuse ] || skip "no /dev/fuse"
(exec 3<>/dev/fuse) 2>/dev/null || skip "/dev/fuse cannot be opened"
cp -rp "$SAMPLE" "$SRC" && mkdir "$MNT" || exit 1

# find_process: PID of the mount on $MNT
find_process() {
    PID=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$MNT/.gatherfs/status.json")
    [ -n "$PID" ] && running "$PID" || fail "no process of the mount: '$PID'"
}

# mount_it [options]: mounts $SRC on $MNT in the background; PID is its process
mount_it() {
    local status=0
    "$GATHERFS" mount "$@" -o log="$LOG" "$SRC" "$MNT" 2>"$WORK/stderr" || status=$?
    if [ $status != 0 ]; then
        grep -q 'not permitted\|denied' "$WORK/stderr" && skip "mounting: $(cat "$WORK/stderr")"
        fail "exit status $status: $(cat "$WORK/stderr")"
    fi
    find_process
}

unmount_it() {
    "$GATHERFS" umount "$MNT" || fail "cannot unmount"
    eventually 5 ended "$PID" || fail "process $PID is still there"
    PID=
    ! mounted || fail "still mounted"
}

# counter NAME: from stats.json
counter() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$MNT/.gatherfs/stats.json"; }

# refused ERROR COMMAND...: it fails, and says ERROR
refused() {
    local words=$1
    shift
    if LC_ALL=C "$@" >"$WORK/out" 2>"$WORK/err"; then
        fail "'$*' did not fail"
    fi
    grep -q "$words" "$WORK/err" || fail "'$*' does not say '$words': $(cat "$WORK/err")"
}
