#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make small real DeepSpeed checkpoints, and beside each the weights that it must resolve to.

    make_deepspeed.py --list
    make_deepspeed.py --out DIR [--case NAME ...] [--force]

Without --case all of them, in about a minute on two cores; a case that an unchanged generator has
already made is left alone. Each case is a directory:

    ckpt/      what training leaves behind: `latest`, <tag>/*.pt, config and tokenizer
    expected/  live.safetensors     the gathered live weights, names and types as trained
               live.<tag>.safetensors  the same for each tag, where there are several
               master.safetensors   the optimizer's copy of the trained weights, as it runs
               fp32.safetensors     what DeepSpeed's own zero_to_fp32 makes of the files
               hf/ hf_7kb/ hf_2kb/  directories by transformers' save_pretrained of the live model
               case.json            world, frozen names, tied names, versions, ...

Needs torch (CPU), deepspeed, transformers, peft and safetensors; no GPU, compiler or launcher.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import shutil
import socket
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import offline  # noqa: E402, F401

import ds_train  # noqa: E402
from ds_cases import CASES  # noqa: E402

TIMEOUT = 300
SOURCES = ["ds_cases.py", "ds_models.py", "ds_train.py", "make_deepspeed.py", "tiny_tokenizer.py"]
SOURCES += ["tiny_remote_code.py"]
PACKAGES = ["torch", "deepspeed", "transformers", "peft", "safetensors", "tokenizers"]


def versions():
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def stamp():
    """Changes with the generator and the libraries; a case that has it needn't be made again."""
    h = hashlib.sha256(json.dumps(versions()).encode())
    for name in SOURCES:
        with open(os.path.join(HERE, name), "rb") as f:
            h.update(f.read())
    return h.hexdigest()[:16]


@contextlib.contextmanager
def output_to(path):
    """File descriptors 1 and 2 go to a file: native libraries print too."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with open(path, "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])


# ---------------------------------------------------------------- running the ranks


def rank_main(target, rank, log, args):
    with output_to(log):
        try:
            target(rank, *args)
            status = 0
        except BaseException:
            traceback.print_exc()
            status = 1
    os._exit(status)  # some libraries' threads would keep the process alive


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_ranks(target, world, folder, *args, timeout=TIMEOUT):
    """Runs target(rank, *args, port) in `world` processes; raises with the end of a failed log."""
    # forked, so that the imports are paid once and every case still gets fresh processes
    fork = multiprocessing.get_context("fork")
    logs = [os.path.join(folder, f"rank{r}.log") for r in range(world)]
    args += (free_port(),)
    ranks = [fork.Process(target=rank_main, args=(target, r, logs[r], args)) for r in range(world)]
    for p in ranks:
        p.start()
    deadline = time.time() + timeout
    while any(p.is_alive() for p in ranks):
        if time.time() > deadline or any(p.exitcode for p in ranks):
            for p in ranks:
                p.kill()
        time.sleep(0.02)
    reasons = []
    for rank, (p, log) in enumerate(zip(ranks, logs)):
        p.join()
        if p.exitcode > 0:  # the others were killed because of this one
            with open(log) as f:
                reasons.append(f"rank {rank} failed:\n{f.read()[-2500:]}")
        os.unlink(log)
    if any(p.exitcode for p in ranks):
        raise RuntimeError(reasons[0] if reasons else f"no end within {timeout} s")


# ---------------------------------------------------------------- after training


def consolidate(case, source, expected):
    """zero_to_fp32's answer, from the files only. Its refusals are recorded, not hidden."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    try:
        state = get_fp32_state_dict_from_zero_checkpoint(
            source, exclude_frozen_parameters=case.exclude_frozen
        )
    except Exception as e:
        return {"zero_to_fp32_error": f"{type(e).__name__}: {e}"}
    ds_train.write_tensors(state, os.path.join(expected, "fp32.safetensors"))
    names = {}
    for name, tensor in state.items():
        names.setdefault(id(tensor), []).append(name)
    return {"tied": [group for group in names.values() if len(group) > 1]}


def convert_to_universal(source):
    from deepspeed.checkpoint.ds_to_universal import main

    with open(os.path.join(source, "latest")) as f:
        tag = os.path.join(source, f.read().strip())
    main(
        argparse.Namespace(
            input_folder=tag,
            output_folder=tag + "_universal",
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,
        )
    )


def check_oracles(expected):
    """Independent answers must agree with each other before gatherfs is held against them."""
    import torch
    from safetensors.torch import load_file

    def load(name):
        path = os.path.join(expected, name)
        return load_file(path) if os.path.exists(path) else {}

    live = load("live.safetensors")
    for name, master in load("master.safetensors").items():
        assert torch.equal(master.to(live[name].dtype), live[name]), f"master of {name}"
    for name, tensor in load("fp32.safetensors").items():
        assert torch.equal(tensor.to(live[name].dtype), live[name]), f"zero_to_fp32 of {name}"
    unwrapped = {k.removeprefix("_orig_mod.").removeprefix("module."): v for k, v in live.items()}
    saved = load("hf/model.safetensors")
    for name, tensor in saved.items():
        assert unwrapped[name].dtype == tensor.dtype, name
        assert torch.equal(unwrapped[name], tensor), f"save_pretrained of {name}"
    # only a tied output may be left out
    assert not saved or set(unwrapped) - set(saved) <= {"lm_head.weight"}


def add_base_model(expected):
    """A directory that has the frozen weights, for checkpoints that were saved without them."""
    shutil.copytree(os.path.join(expected, "hf"), os.path.join(expected, "base"))


def drop_scripts(source):
    """Copies of zero_to_fp32.py that DeepSpeed leaves there: 60 KB that no case needs."""
    for name in ("zero_to_fp32.py", "zero_to_torch.py"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(source, name))


# ---------------------------------------------------------------- one case


def is_made(folder, wanted):
    try:
        with open(os.path.join(folder, "expected", "case.json")) as f:
            return json.load(f)["stamp"] == wanted
    except (OSError, ValueError, KeyError):
        return False


def make_case(name, root, wanted):
    case = CASES[name]
    folder = os.path.join(root, name)
    expected = os.path.join(folder, "expected")
    source = os.path.join(folder, case.source)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(expected)

    run_ranks(ds_train.run_rank, case.world, folder, case, folder)
    facts = {
        "case": name,
        "stage": case.stage,
        "world": case.world,
        "dtype": case.dtype,
        "source": case.source,
        "hf": case.hf,
        "exclude_frozen": case.exclude_frozen,
        "tags": list(case.tags),
        "shard_sizes": ds_train.SHARD_SIZES if case.hf else {},
        "ds_config": ds_train.deepspeed_config(case),
        "versions": versions(),
        "stamp": wanted,
    }
    rank0 = os.path.join(expected, "rank0.json")
    with open(rank0) as f:
        facts |= json.load(f)
    os.unlink(rank0)
    with output_to(os.devnull):
        facts |= consolidate(case, source, expected)
        if case.universal:
            convert_to_universal(source)
    check_oracles(expected)
    if case.hf and case.exclude_frozen:
        add_base_model(expected)
    drop_scripts(source)
    with open(os.path.join(expected, "case.json"), "w") as f:  # last: its presence means complete
        json.dump(facts, f, indent=1, sort_keys=True)
    return facts


def size_of(folder):
    return sum(
        os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(folder) for f in files
    )


def import_once():
    """Before the first fork, so that no rank pays for it again."""
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch
    import torch._inductor.compile_fx  # noqa: F401
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    torch.set_num_threads(1)
    ds_train.avoid_compiler()
    gc.freeze()  # DeepSpeed collects garbage at every turn: let it skip what the imports made


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
            print(f"{name:24} stage {c.stage} world {c.world} {c.dtype} {c.model.__name__}")
        return 0
    wanted = stamp()
    todo = [
        name
        for name in args.case or CASES
        if args.force or not is_made(os.path.join(args.out, name), wanted)
    ]
    if todo:
        import_once()
    failed = []
    for name in todo:
        begin = time.time()
        try:
            facts = make_case(name, args.out, wanted)
        except Exception as e:
            print(f"{name}: {e}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        kb = size_of(os.path.join(args.out, name)) / 1e3
        refusal = facts.get("zero_to_fp32_error", "")[:60]
        print(f"{name:24} {kb:7.0f} kB {time.time() - begin:5.1f} s  {refusal}", flush=True)
    if failed:
        print("failed: " + " ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
