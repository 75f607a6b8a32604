# SPDX-License-Identifier: Apache-2.0
"""Damage to data.pkl: streams that no pickler writes, and bombs.

A dead value is one that is built and dropped before the real stream goes on. It must not cost more
memory or time than its bytes are worth, whatever it is.
"""

import os
import random
import struct

from break_zips import read_records, write_records

PROTO2 = b"\x80\x02"
POP = b"0"
DEPTH = 2_000_000


def rewrite(path, change):
    """change(bytes of data.pkl) -> the new ones."""
    records = read_records(path)
    write_records(
        path, [(n, change(c) if os.path.basename(n) == "data.pkl" else c) for n, c in records]
    )


def dead(value):
    """The same stream with a dead value in front. Its memo slots are written again later."""

    def change(pickle):
        assert pickle.startswith(PROTO2)
        return PROTO2 + value + POP + pickle[2:]

    return change


def laughs(levels):
    """t = (); t = (t, t) over and over: 2**levels leaves in a few bytes a level."""
    stream = b")q\0" + POP
    for i in range(levels):
        stream += b"h%c" % i + b"h%c" % i + b"\x86q%c" % (i + 1) + POP
    return stream + b"h%c" % levels


def dict_of_itself():
    return b"}q\0X\1\0\0\0ah\0s"


WAYS = {
    # dead values
    "deep_lists": dead(b"]" * DEPTH + b"a" * (DEPTH - 1)),
    "deep_tuples": dead(b")" + b"\x85" * DEPTH),
    "deep_dicts": dead(b"}" + b"K\0}" * 300_000 + b"s" * 300_000),
    "deep_marks": dead(b"N" + b"(" * DEPTH + b"1" * DEPTH),
    "wide_list": dead(b"](" + b"K\1" * DEPTH + b"e"),
    "laughs": dead(laughs(60)),
    "dict_of_itself": dead(dict_of_itself()),
    "memo_index_max": dead(b"Nr\xff\xff\xff\xff"),
    "memo_index_huge": dead(b"Nr\0\0\0\x10"),
    "memo_many": dead(b"N" + b"".join(b"r" + struct.pack("<I", i * 4099) for i in range(99_999))),
    "reduce_unknown": dead(b"cos\nsystem\nX\2\0\0\0id\x85R"),
    "big_number": dead(b"\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000),
    # lengths that aren't there
    "string_length": dead(b"X\xff\xff\xff\xff"),
    "string8_length": dead(b"\x8d" + struct.pack("<Q", 2**62)),
    "bytes8_length": dead(b"\x8e" + struct.pack("<Q", 2**64 - 1)),
    "bytearray8_length": dead(b"\x96" + struct.pack("<Q", 2**63)),
    "long_length": dead(b"\x8b" + struct.pack("<i", 2**31 - 1)),
    "long_length_negative": dead(b"\x8b" + struct.pack("<i", -1)),
    "frame_length": dead(b"\x95" + struct.pack("<Q", 2**60) + b"N"),
    "global_without_end": dead(b"c" + b"a" * 3_000_000),
    # no sense
    "cut": lambda pickle: pickle[: len(pickle) // 2],
    "no_stop": lambda pickle: pickle[:-1],
    "empty": lambda pickle: b"",
    "only_stop": lambda pickle: PROTO2 + b".",
    "only_none": lambda pickle: PROTO2 + b"N.",
    "underflow": lambda pickle: PROTO2 + b"0" + pickle[2:],
    "mark_underflow": lambda pickle: PROTO2 + b"t" + pickle[2:],
    "unknown_opcode": dead(b"\xff"),
    "unknown_protocol": lambda pickle: b"\x80\x63" + pickle[2:],
    "memo_unset": dead(b"j\x77\x77\x77\x07"),
    "extension": dead(b"\x82\x07"),
    "noise": lambda pickle: random.Random(5).randbytes(len(pickle)),
    "text_noise": lambda pickle: b"hello world\n" * 99,
    "bit_flips": lambda pickle: flip_bits(pickle, 40),
}  # fmt: skip

# Dead values that may be refused for what they are, or passed over (exit codes; else 1)
CODES = dict.fromkeys(
    ["deep_lists", "deep_tuples", "deep_dicts", "deep_marks", "wide_list", "laughs"]
    + ["dict_of_itself", "memo_index_max", "memo_index_huge", "memo_many", "big_number"]
    + ["frame_length"],
    (0, 1),
)
CODES["reduce_unknown"] = (0,)


def flip_bits(data, count):
    rng = random.Random(11)
    result = bytearray(data)
    for _ in range(count):
        result[rng.randrange(2, len(result))] ^= 1 << rng.randrange(8)
    return bytes(result)
