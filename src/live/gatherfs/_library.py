# SPDX-License-Identifier: Apache-2.0
"""libgatherfs.so through ctypes: the structs and functions of gatherfs.h, nothing else.

The library is searched at $GATHERFS_LIBRARY, beside this package, then where the loader
looks. Calls release the GIL, so a wait in begin() stops no other thread.
"""

import ctypes as C
import os
from pathlib import Path

ABI = 1

FLAT, STATIC, BUFFER, FROZEN = 1, 2, 4, 16
BACKGROUND = {"auto": 0, True: 1, "background": 1, False: 2, "synchronous": 2}


class Options(C.Structure):
    _fields_ = [
        ("struct_size", C.c_size_t),
        ("job", C.c_char_p),
        ("rank", C.c_uint32),
        ("world", C.c_uint32),
        ("run_id", C.c_char_p),
        ("rundir", C.c_char_p),
        ("framework", C.c_char_p),
        ("step", C.c_uint64),
        ("memory_limit", C.c_uint64),
        ("max_stall", C.c_double),
        ("slots", C.c_uint32),
        ("background", C.c_uint32),
        ("verify", C.c_uint32),
        ("reserved", C.c_uint32),
    ]


class TensorDesc(C.Structure):
    _fields_ = [
        ("struct_size", C.c_size_t),
        ("name", C.c_char_p),
        ("dtype", C.c_char_p),
        ("data", C.c_void_p),
        ("shape", C.POINTER(C.c_uint64)),
        ("local", C.POINTER(C.c_uint64)),
        ("first", C.POINTER(C.c_uint64)),
        ("stride", C.POINTER(C.c_int64)),
        ("flat_off", C.c_uint64),
        ("flat_count", C.c_uint64),
        ("ndim", C.c_uint32),
        ("flags", C.c_uint32),
        ("replica", C.c_uint32),
        ("replicas", C.c_uint32),
        ("device", C.c_int32),
        ("reserved", C.c_uint32),
    ]


class Stats(C.Structure):
    _fields_ = [
        ("struct_size", C.c_size_t),
        ("step", C.c_uint64),
        ("commits", C.c_uint64),
        ("snapshots", C.c_uint64),
        ("missed", C.c_uint64),
        ("busy", C.c_uint64),
        ("bytes", C.c_uint64),
        ("stall_ns", C.c_uint64),
        ("stall_max_ns", C.c_uint64),
        ("copy_ns", C.c_uint64),
        ("memory", C.c_uint64),
        ("agent", C.c_uint32),
        ("tensors", C.c_uint32),
    ]


class LibraryError(OSError):
    """A call of libgatherfs failed; the text is the library's."""


def _candidates():
    if os.environ.get("GATHERFS_LIBRARY"):
        yield os.environ["GATHERFS_LIBRARY"]
        return
    yield str(Path(__file__).with_name("libgatherfs.so.0"))
    yield "libgatherfs.so.0"


def load():
    """The library with its prototypes set. Raises LibraryError with every place tried."""
    tried = []
    for path in _candidates():
        try:
            library = C.CDLL(path)
        except OSError as error:
            tried.append(str(error))
            continue
        library.gatherfs_abi.restype = C.c_uint32
        if library.gatherfs_abi() != ABI:
            raise LibraryError(f"{path}: ABI {library.gatherfs_abi()}, this module needs {ABI}")
        return _prototypes(library)
    raise LibraryError("libgatherfs is not there (GATHERFS_LIBRARY names it): " + "; ".join(tried))


def _prototypes(library):
    pub = C.c_void_p
    for name, result, arguments in [
        ("version", C.c_char_p, []),
        ("error", C.c_char_p, []),
        ("pub_open", C.c_int, [C.POINTER(Options), C.POINTER(pub)]),
        ("pub_add", C.c_int, [pub, C.POINTER(TensorDesc)]),
        ("pub_alias", C.c_int, [pub, C.c_char_p, C.c_uint32]),
        ("pub_start", C.c_int, [pub]),
        ("pub_begin", C.c_int, [pub]),
        ("pub_commit", C.c_int, [pub, C.c_uint64]),
        ("pub_wanted", C.c_int, [pub]),
        ("pub_set_ptr", C.c_int, [pub, C.c_uint32, C.c_void_p]),
        ("pub_reset_table", C.c_int, [pub]),
        ("pub_file", C.c_int, [pub, C.c_char_p, C.c_char_p, C.c_size_t]),
        ("pub_metric", C.c_int, [pub, C.c_char_p, C.c_double]),
        ("pub_final", C.c_int, [pub, C.c_uint32]),
        ("pub_close", None, [pub]),
        ("pub_stats", C.c_int, [pub, C.POINTER(Stats)]),
    ]:
        function = getattr(library, "gatherfs_" + name)
        function.restype, function.argtypes = result, arguments
    return library


def check(library, result):
    """The result of a call that returned no error."""
    if result < 0:
        text = library.gatherfs_error().decode(errors="replace")
        raise LibraryError(-result, text or os.strerror(-result))
    return result


def numbers(values, kind=C.c_uint64):
    return None if values is None else (kind * max(len(values), 1))(*values)
