#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# user.gatherfs.*: on files and on views' directories, with the size protocol.
. "$(dirname "$0")/lib.sh"
need python3

mount_it
python3 - "$MNT" <<'PYTHON' || fail "values"
import ctypes, errno, os, sys

mnt = sys.argv[1]
want = {"step": "2", "format": "deepspeed", "complete": "yes"}
for path, view, dtype in (("", "full", "bfloat16"), ("/model.safetensors", "full", "bfloat16"),
                          ("/config.json", "full", "bfloat16"), ("/raw", "raw", "float32"),
                          ("/raw/model.safetensors", "raw", "float32")):
    got = {k: os.getxattr(mnt + path, k).decode() for k in os.listxattr(mnt + path)}
    assert got == {f"user.gatherfs.{k}": v for k, v in {**want, "view": view, "dtype": dtype}.items()}, (path, got)
for path in ("/.gatherfs", "/.gatherfs/metrics"):
    assert os.listxattr(mnt + path) == []
for name in ("user.nothing", "user.gatherfs.nothing", "user.gatherfs"):
    try:
        os.getxattr(mnt + "/config.json", name)
        raise AssertionError(name)
    except OSError as e:
        assert e.errno == errno.ENODATA, e

libc = ctypes.CDLL(None, use_errno=True)
path, name = (mnt + "/config.json").encode(), b"user.gatherfs.format"
buf = ctypes.create_string_buffer(100)
assert libc.getxattr(path, name, None, 0) == 9
assert libc.getxattr(path, name, buf, 9) == 9 and buf.value == b"deepspeed"
assert libc.getxattr(path, name, buf, 8) == -1 and ctypes.get_errno() == errno.ERANGE
n = libc.listxattr(path, None, 0)
assert n > 50 and libc.listxattr(path, buf, n - 1) == -1 and ctypes.get_errno() == errno.ERANGE
PYTHON
unmount_it
