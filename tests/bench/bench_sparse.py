#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mounting a checkpoint shaped like a very large model, whose weights are mostly holes.

    bench_sparse.py zero3 --gatherfs build/gatherfs --work DIR    70B parameters on 64 ranks
    bench_sparse.py dcp --gatherfs build/gatherfs --work DIR      405B on 512 ranks, 3 GB of disk
                    [--layers N --ranks N ...] [--rounds 5]

Prints how long it takes until the mount answers and how much memory that takes. Then compares the
windows of known values in every rank's file, and the zeros around them, with what the mount serves;
a difference is an error, a slow mount is not.
"""

import argparse
import dataclasses
import importlib
import json
import os
import shutil
import statistics
import sys
import time
from array import array

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import offline  # noqa: E402, F401
from measure import MB, Mount, machine  # noqa: E402
from sparse import pattern, rounded  # noqa: E402

MARGIN = 64  # elements before and after a window that are looked at too

# dtype as served -> array type of its bits, what becomes of a float32's bits
SERVED = {"BF16": ("H", rounded), "F32": ("I", lambda bits: bits)}


def make(kind, ckpt, args):
    """Returns (layout, windows)."""
    module = importlib.import_module(f"sparse_{kind}")
    shape = {"zero3": "LLAMA_70B", "dcp": "LLAMA_405B"}[kind]
    given = {k: v for k, v in args.items() if v is not None}
    shape = dataclasses.replace(getattr(module, shape), **given)
    layout, windows = module.make_checkpoint(ckpt, shape)
    with open(os.path.join(ckpt, "config.json"), "w") as f:
        json.dump(shape.config(), f, indent=2)
    stats = [os.stat(os.path.join(d, f)) for d, _, names in os.walk(ckpt) for f in names]
    print(f"{sum(layout.numels) / 1e9:.1f}e9 parameters on {shape.ranks} ranks: ", end="")
    print(f"{sum(s.st_size for s in stats) / 1e9:.0f} GB apparent, ", end="")
    print(f"{sum(s.st_blocks * 512 for s in stats) / MB:.0f} MB on disk")
    return layout, windows


def read_header(path):
    """(where the data starts, the entries) of a safetensors file"""
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        return 8 + length, json.loads(f.read(length))


def expected(tensor, begin, end, windows, dtype):
    """The bytes of some elements: those in windows, and zeros."""
    code, convert = SERVED[dtype]
    values = array(code, [0]) * (end - begin)
    for w in windows:
        for e in range(max(begin, w.begin), min(end, w.end)):
            values[e - begin] = convert(pattern(tensor, e))
    return values.tobytes()


def compare(path, layout, windows):
    """Reads every window through the mount. Returns (bytes compared, windows past 2**35)."""
    start, entries = read_header(path)
    by_tensor = {}
    for w in windows:
        by_tensor.setdefault(w.tensor, []).append(w)
    total = far = 0
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for w in windows:
        entry = entries[layout.names[w.tensor]]
        begin, end = max(0, w.begin - MARGIN), min(layout.numels[w.tensor], w.end + MARGIN)
        want = expected(w.tensor, begin, end, by_tensor[w.tensor], entry["dtype"])
        at = start + entry["data_offsets"][0] + len(want) // (end - begin) * begin
        if os.pread(fd, len(want), at) != want:
            raise SystemExit(
                f"'{layout.names[w.tensor]}' elements {begin} to {end} of rank {w.rank}, at byte "
                f"{at}: wrong bytes"
            )
        total += len(want)
        far += at > 2**35
    os.close(fd)
    return total, far


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("kind", choices=["zero3", "dcp"])
    ap.add_argument("--gatherfs", required=True)
    ap.add_argument("--work", required=True, help="on a filesystem that keeps holes")
    ap.add_argument("--rounds", type=int, default=5, help="mounts that are timed")
    shape = ap.add_argument_group("shape")
    fields = ("layers", "hidden", "inter", "kv", "vocab", "ranks")
    for field in fields:
        shape.add_argument("--" + field, type=int)
    args = ap.parse_args()
    work, binary = os.path.abspath(args.work), os.path.abspath(args.gatherfs)

    print(machine())
    ckpt, point = os.path.join(work, "sparse"), os.path.join(work, "mnt")
    shutil.rmtree(ckpt, ignore_errors=True)
    layout, windows = make(args.kind, ckpt, {field: getattr(args, field) for field in fields})
    path = os.path.join(point, "model.safetensors")
    # one file, so that its offsets are as large as they can be
    mount = Mount(binary, ckpt, point, "-o", "max_shard_size=1000TB")
    mounts, firsts = [], []
    for number in range(args.rounds):
        begin = time.perf_counter()
        with mount:
            with open(path, "rb", buffering=0) as f:
                f.read(1)
            firsts.append(time.perf_counter() - begin)
            mounts.append(mount.seconds)
            early = mount.memory()
            if number + 1 == args.rounds:
                size = os.path.getsize(path)
                total, far = compare(path, layout, windows)
                late = mount.memory()
    print(f"the mount answers after {statistics.median(mounts):.3f} s, ", end="")
    print(f"first byte after {statistics.median(firsts):.3f} s: medians of {args.rounds}")
    print(f"then {early}; after all reads {late}")
    print(
        f"{len(windows)} windows, {total / MB:.1f} MB, are equal in a file of {size / 1e9:.0f} GB"
    )
    deep = sum(w.at > 2**32 for w in windows)
    print(f"{deep} of them lie past 2**32 in a rank's file, {far} past 2**35 in the served one")
    shutil.rmtree(ckpt)


if __name__ == "__main__":
    main()
