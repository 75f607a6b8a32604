#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make small real DCP checkpoints (FSDP1, FSDP2, tensor parallelism, Accelerate, sharded
safetensors), and beside each the tensors that it must resolve to.

    make_dcp.py --list
    make_dcp.py --out DIR [--case NAME ...] [--force]

A case that an unchanged generator has already made is left alone. Each case is a directory:

    ckpt/      what the run leaves behind
    expected/  live.safetensors   the gathered live state: names and types as in the model
               hf/                of some: a model directory with its config, names and shapes
               case.json          world, versions, where in the case SOURCE is

Needs torch (CPU), transformers, accelerate, safetensors and zstandard; no GPU or launcher.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import offline  # noqa: E402, F401

from dcp_cases import CASES, run_rank  # noqa: E402
from make_deepspeed import is_made, run_ranks, size_of  # noqa: E402

SOURCES = ["dcp_cases.py", "make_dcp.py"]
PACKAGES = ["torch", "transformers", "accelerate", "safetensors"]


def versions():
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def stamp():
    """Changes with the generator and the libraries; a case that has it needn't be made again."""
    h = hashlib.sha256(json.dumps(versions()).encode())
    for name in SOURCES:
        with open(os.path.join(HERE, name), "rb") as f:
            h.update(f.read())
    return h.hexdigest()[:16]


def make_case(name, root, wanted):
    case = CASES[name]
    folder = os.path.join(os.path.abspath(root), name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.join(folder, "expected"))
    os.makedirs(os.path.join(folder, "ckpt"))
    run_ranks(run_rank, case.world, folder, case, folder)
    facts = {
        "case": name,
        "world": case.world,
        "source": case.source,
        "versions": versions(),
        "stamp": wanted,
        **case.facts,
    }
    # last: its presence means complete
    with open(os.path.join(folder, "expected", "case.json"), "w") as f:
        json.dump(facts, f, indent=1, sort_keys=True)


def import_once():
    """Before the first fork, so that no rank pays for it again."""
    import accelerate  # noqa: F401
    import torch
    import torch.distributed.checkpoint  # noqa: F401
    import torch.distributed.fsdp  # noqa: F401
    import torch.distributed.tensor.parallel  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    torch.set_num_threads(1)


def parse_args():
    ap = argparse.ArgumentParser(description="Make small real DCP checkpoints.")
    ap.add_argument("--out", help="directory for the cases")
    ap.add_argument("--case", action="append", metavar="NAME", help="only this one (repeatable)")
    ap.add_argument("--force", action="store_true", help="also those that are already there")
    ap.add_argument("--list", action="store_true")
    args = ap.parse_args()
    unknown = set(args.case or []) - set(CASES)
    if unknown:
        ap.error(f"no such case: {' '.join(sorted(unknown))}")
    if not args.out and not args.list:
        ap.error("--out is needed")
    return args


def main():
    args = parse_args()
    if args.list:
        for name, case in CASES.items():
            print(f"{name:24} world {case.world}")
        return 0
    wanted = stamp()
    names = args.case or CASES
    todo = [n for n in names if args.force or not is_made(os.path.join(args.out, n), wanted)]
    if todo:
        import_once()
    failed = []
    for name in todo:
        begin = time.time()
        try:
            make_case(name, args.out, wanted)
        except Exception as e:
            print(f"{name}: {e}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        kb = size_of(os.path.join(args.out, name)) / 1e3
        print(f"{name:24} {kb:7.0f} kB {time.time() - begin:5.1f} s", flush=True)
    if failed:
        print("failed: " + " ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
