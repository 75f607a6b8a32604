#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Nothing can be written, made, removed or renamed.
. "$(dirname "$0")/lib.sh"

write_to() { : >"$1"; }
append_to() { : >>"$1"; }

mount_it
file=$MNT/config.json
before=$(sha256sum <"$file")
for path in "$MNT" "$MNT/raw" "$MNT/.gatherfs"; do
    refused 'Read-only file system' touch "$path/new"
    refused 'Read-only file system' mkdir "$path/new"
    refused 'Read-only file system' ln -s x "$path/new"
    refused 'Read-only file system' write_to "$path/new"
done
for path in "$file" "$MNT/raw/config.json" "$MNT/.gatherfs/metrics"; do
    refused 'Read-only file system' rm -f "$path"
    refused 'Read-only file system' chmod 600 "$path"
    refused 'Read-only file system' touch "$path"
    refused 'Read-only file system' mv "$path" "$MNT/new"
    refused 'Read-only file system' ln "$path" "$MNT/new"
    refused 'Read-only file system' truncate -s 0 "$path"
    refused 'Read-only file system' write_to "$path"
    refused 'Read-only file system' append_to "$path"
done
refused 'Read-only file system' rmdir "$MNT/raw"
[ "$(sha256sum <"$file")" = "$before" ] || fail "it changed"
unmount_it
