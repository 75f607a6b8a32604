#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cp, tar -S and rsync take the directory away unchanged.
. "$(dirname "$0")/lib.sh"

mount_it
cp -r "$MNT" "$WORK/cp" || fail "cp"
diff -r "$MNT" "$WORK/cp" || fail "cp made another tree"
cp -r --sparse=always "$MNT" "$WORK/sparse" && diff -r "$WORK/cp" "$WORK/sparse" || fail "cp --sparse"
mkdir "$WORK/tar" && tar -C "$MNT" -S -c . | tar -C "$WORK/tar" -x || fail "tar -S"
diff -r "$WORK/cp" "$WORK/tar" || fail "tar -S made another tree"
if command -v rsync >/dev/null; then
    rsync -a "$MNT/" "$WORK/rsync/" || fail "rsync"
    diff -r "$WORK/cp" "$WORK/rsync" || fail "rsync made another tree"
    [ -z "$(rsync -ai "$MNT/" "$WORK/rsync/" | grep '^>f')" ] || fail "rsync copies again"
fi
"$GATHERFS" export "$SRC" "$WORK/export" >/dev/null || fail "export"
diff -r "$WORK/cp" "$WORK/export" || fail "export and cp differ"
unmount_it
