#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make small real torch files and model directories, and beside each what it must resolve to.

    make_torch_files.py --list
    make_torch_files.py --out DIR [--case NAME ...] [--force]

Without --case all of them, in about a minute on two cores; a case that an unchanged generator has
already made is left alone. Each case is a directory:

    ckpt/      what the frameworks write
    expected/  state.safetensors    the tensors, names as in the model
               case.json            source, options, names that cannot be served, ...
               hf/ hf_40kb/ ...     directories by transformers' save_pretrained, for ready models
    base/      the base model, where one is needed

Needs torch (CPU), transformers and safetensors; no GPU and no launcher.
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
from make_deepspeed import is_made, run_ranks  # noqa: E402
from torch_cases import CASES, whole  # noqa: E402

SOURCES = ["torch_cases.py", "make_torch_files.py"]
PACKAGES = ["torch", "transformers", "safetensors"]


def stamp():
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    h = hashlib.sha256(json.dumps(versions).encode())
    for name in SOURCES:
        with open(os.path.join(HERE, name), "rb") as f:
            h.update(f.read())
    return h.hexdigest()[:16]


def write_expected(case, state):
    from safetensors.torch import save_file

    kept = {name: t for name, t in state.items() if name not in case.odd}
    save_file(whole(kept), "expected/state.safetensors", metadata={"format": "pt"})


def run_rank(rank, case, folder, port):
    import torch.distributed as dist

    os.chdir(folder)
    if case.world > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        dist.init_process_group("gloo", rank=rank, world_size=case.world)
    state = case.make()
    # gathering is a common effort, so every rank takes part in it
    state = {} if case.refused else {k: v for k, v in state.items() if k not in case.odd}
    gathered = whole(state)
    if rank == 0:
        write_expected(case, gathered)
    if case.world > 1:
        dist.barrier()
        dist.destroy_process_group()


def make_case(name, root, wanted):
    case = CASES[name]
    folder = os.path.join(root, name)
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("ckpt", "expected"):
        os.makedirs(os.path.join(folder, part))
    run_ranks(run_rank, case.world, folder, case, folder)
    facts = {
        "case": name,
        "world": case.world,
        "source": case.source,
        "odd": case.odd,
        "refused": case.refused,
        "stamp": wanted,
    }
    path = os.path.join(folder, "expected", "case.json")
    with open(path, "w") as f:  # last: its presence means complete
        json.dump(facts, f, indent=1, sort_keys=True)


def parse_args():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
        for name, c in CASES.items():
            print(f"{name:24} world {c.world} {c.source}")
        return 0
    wanted = stamp()
    todo = [
        name
        for name in args.case or CASES
        if args.force or not is_made(os.path.join(args.out, name), wanted)
    ]
    if todo:  # imported once, before the first fork
        import torch
        import transformers.models.gpt2.modeling_gpt2
        import transformers.models.llama.modeling_llama
        import transformers.models.qwen2.modeling_qwen2  # noqa: F401

        torch.set_num_threads(1)
    failed = []
    for name in todo:
        begin = time.time()
        try:
            make_case(name, args.out, wanted)
        except Exception as e:
            print(f"{name}: {e}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        print(f"{name:24} {time.time() - begin:5.1f} s", flush=True)
    if failed:
        print("failed: " + " ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
