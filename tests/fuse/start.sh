#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A start that fails says why in one line, and leaves neither mount nor process.
. "$(dirname "$0")/lib.sh"
need flock

# start_fails WORDS COMMAND...
start_fails() {
    refused "$@"
    [ "$(wc -l <"$WORK/err")" = 1 ] || fail "not one line: $(cat "$WORK/err")"
    [ ! -s "$WORK/out" ] || fail "on stdout: $(cat "$WORK/out")"
    ! mounted || fail "mounted after all"
    [ -z "$(pgrep -f "$WORK")" ] || fail "left running: $(pgrep -af "$WORK")"
}

start_fails 'No such file' "$GATHERFS" mount "$WORK/nothing" "$MNT"
start_fails 'No such file' "$GATHERFS" mount "$SRC" "$WORK/nowhere"
start_fails 'not a directory' "$GATHERFS" mount "$SRC" "$SRC/latest"
start_fails 'unknown option' "$GATHERFS" mount -o nonsense=1 "$SRC" "$MNT"
start_fails 'unknown option' "$GATHERFS" mount -o subtype=other "$SRC" "$MNT"
start_fails 'log file' "$GATHERFS" mount -o log="$WORK/no/log" "$SRC" "$MNT"
mkdir "$WORK/empty"
start_fails "empty'" "$GATHERFS" mount "$WORK/empty" "$MNT"
start_fails "empty'" "$GATHERFS" mount -f "$WORK/empty" "$MNT"
start_fails 'no gatherfs mount' "$GATHERFS" umount "$MNT"
start_fails "mnt' is inside SOURCE '$WORK'" "$GATHERFS" mount "$WORK" "$MNT"
start_fails "mnt' is inside SOURCE '$WORK'" "$GATHERFS" mount -f "$WORK" "$MNT"
start_fails 'would contain itself' "$GATHERFS" mount "$SRC" "$SRC"
mv "$SRC/global_step2/zero_pp_rank_1_mp_rank_00_model_states.pt" "$WORK/part"
start_fails rank_1 "$GATHERFS" mount "$SRC" "$MNT"
mv "$WORK/part" "$SRC/global_step2/zero_pp_rank_1_mp_rank_00_model_states.pt"

mount_it
refused 'already' "$GATHERFS" mount "$SRC" "$MNT"
[ "$(wc -l <"$WORK/err")" = 1 ] || fail "not one line: $(cat "$WORK/err")"
[ "$(counter errors)" = 0 ] || fail "the first mount is hurt"
unmount_it

# The caller's pipe is not held open: `cat` ends when the mount answers, not later.
"$GATHERFS" "$SRC" "$MNT" 2>&1 | timeout 10 cat >"$WORK/said"
[ "${PIPESTATUS[*]}" = "0 0" ] || fail "a mount in a pipe: ${PIPESTATUS[*]}, $(cat "$WORK/said")"
[ ! -s "$WORK/said" ] || fail "a good start says: $(cat "$WORK/said")"
find_process
[ "$(readlink "/proc/$PID/cwd")" = / ] || fail "the process stays in a directory"
for fd in 0 1 2; do
    [ "$(readlink "/proc/$PID/fd/$fd")" = /dev/null ] || fail "descriptor $fd is kept"
done
unmount_it

# Whatever the caller left: closed or locked descriptors, children nobody waits for.
(
    trap '' CHLD
    exec 9>"$WORK/lock" && flock 9 && exec "$GATHERFS" mount "$SRC" "$MNT" <&-
) || fail "a mount without stdin"
find_process
flock -n "$WORK/lock" true || fail "a lock of the caller is held"
cmp "$MNT/tokenizer.json" "$SRC/tokenizer.json" || fail "a mount without stdin"
unmount_it

# A run before its first checkpoint is mounted, with a word about it.
mkdir "$WORK/run" && cp -rp "$SRC" "$WORK/run/checkpoint-1" || fail "an early run"
rm "$WORK/run/checkpoint-1/global_step2/zero_pp_rank_1_mp_rank_00_model_states.pt"
"$GATHERFS" mount "$WORK/run" "$MNT" 2>"$WORK/err" || fail "an early run: $(cat "$WORK/err")"
find_process
[ "$(grep -c 'warning: no finished checkpoint' "$WORK/err")" = 1 ] ||
    fail "an early run says: $(cat "$WORK/err")"
unmount_it

# Relative paths, as seen from where it was started.
(cd "$WORK" && "$GATHERFS" mount src mnt) || fail "relative paths"
find_process
cmp "$MNT/tokenizer.json" "$SRC/tokenizer.json" || fail "relative paths"
(cd "$WORK" && "$GATHERFS" umount mnt) || fail "relative mountpoint"
eventually 5 ended "$PID" || fail "process is still there"

# In the foreground it lasts until unmounted.
"$GATHERFS" mount -v -f "$SRC" "$MNT" 2>"$LOG" &
PID=$!
eventually 10 grep -q "serving '$SRC' on '$MNT'" "$LOG" || fail "foreground: not mounted"
[ -e "$MNT/config.json" ] || fail "foreground: not served"
"$GATHERFS" umount "$MNT" || fail "foreground: cannot unmount"
wait $PID || fail "foreground: exit status $?"
PID=
[ "$(grep -cv 'serving\|unmounted' "$LOG")" = 0 ] || fail "foreground: $(cat "$LOG")"
