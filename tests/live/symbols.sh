#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# symbols.sh LIBRARY - libgatherfs.so is loaded into other people's processes: it may show only
# versioned gatherfs_* names, and need nothing but libc.
set -eu
bad=$(nm -D --defined-only "$1" | awk '$2 != "A" && $3 !~ /^gatherfs_[a-z_]*@@GATHERFS_[0-9]+$/')
[ -z "$bad" ] || { echo "$1 shows: $bad"; exit 1; }
[ "$(nm -D --defined-only "$1" | grep -c '@@GATHERFS_')" -ge 17 ] || { echo "$1 lacks symbols"; exit 1; }
bad=$(readelf -d "$1" | awk '/NEEDED/ && !/\[(libc\.so|libc\.musl|ld-linux|ld-musl|libpthread)/')
[ -z "$bad" ] || { echo "$1 needs: $bad"; exit 1; }
readelf -d "$1" | grep -q 'SONAME.*\[libgatherfs.so.0\]' || { echo "$1 has another soname"; exit 1; }
readelf -d "$1" | grep -q NODELETE || { echo "$1 could be unloaded"; exit 1; }
