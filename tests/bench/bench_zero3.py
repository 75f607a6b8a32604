#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gatherfs against DeepSpeed's own conversion, on a real ZeRO-3 checkpoint of four ranks.

    bench_zero3.py --gatherfs build/gatherfs --work DIR [--params 130e6] [--rounds 5] [--cold]

Makes the checkpoint in DIR with DeepSpeed once (130e6 parameters: 530 MB in fp32, 1.6 GB on disk).
"""

import argparse
import functools
import os
import shutil
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [HERE, TESTS, os.path.join(TESTS, "formats")]
import ds_models  # noqa: E402
import ds_train  # noqa: E402
import make_deepspeed  # noqa: E402
from ds_cases import Case  # noqa: E402
from measure import MB, Mount, files_of, machine, race, run  # noqa: E402

HIDDEN, INTER, VOCAB = 768, 2048, 8192
BUCKETS = {"reduce_bucket_size": 20_000_000, "stage3_prefetch_bucket_size": 20_000_000}


def make_case(params):
    per_layer = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * HIDDEN // 12 + 3 * HIDDEN * INTER + 2 * HIDDEN
    layers = max(1, round((params - 2 * VOCAB * HIDDEN) / per_layer))
    model = functools.partial(
        ds_models.llama, vocab=VOCAB, hidden=HIDDEN, inter=INTER, layers=layers, heads=12
    )
    return Case(stage=3, world=4, model=model, zero=BUCKETS)


def train(rank, case, ckpt, port):
    """One step, one checkpoint."""
    import deepspeed
    import torch

    ds_train.patch_libraries(case)
    ds_train.join_group(rank, case.world, port)
    model = case.model()
    if rank == 0:
        os.makedirs(ckpt)
        model.config.save_pretrained(ckpt)
        model.generation_config.save_pretrained(ckpt)
    optimizer = torch.optim.AdamW(model.parameters(), lr=ds_train.LEARNING_RATE)
    config = ds_train.deepspeed_config(case)
    engine, _, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    ds_train.train_step(case, engine, model, rank, 0)
    engine.save_checkpoint(ckpt)
    torch.distributed.barrier()


def make_checkpoint(work, params):
    final, ckpt = os.path.join(work, "zero3"), os.path.join(work, "zero3.part")
    if not os.path.exists(final):
        shutil.rmtree(ckpt, ignore_errors=True)
        make_deepspeed.import_once()
        case = make_case(params)
        make_deepspeed.run_ranks(train, case.world, work, case, ckpt, timeout=1500)
        os.rename(ckpt, final)
    return final


def convert(script, ckpt, *options):
    """DeepSpeed leaves its conversion scripts in the checkpoint."""
    command = [sys.executable, os.path.join(ckpt, script), ckpt]
    return lambda out: run([*command, out, *options, "--safe_serialization"])


def export(binary, ckpt, dtype):
    return lambda out: run([binary, "export", ckpt, out, "--dtype", dtype])


def time_mount(binary, ckpt, work):
    point = os.path.join(work, "mnt")
    path = os.path.join(point, "model.safetensors")
    begin = time.perf_counter()
    with Mount(binary, ckpt, point) as mount:
        with open(path, "rb", buffering=0) as f:
            f.read(1)
        print(
            f"\nmount: {mount.seconds:.3f} s; {time.perf_counter() - begin:.3f} s to the first ",
            end="",
        )
        print(f"byte, then {mount.memory()}")
        begin = time.perf_counter()
        with open(path, "rb", buffering=0) as f:
            while f.read(1 << 20):
                pass
        whole = time.perf_counter() - begin
        speed = os.path.getsize(path) / whole / MB
        print(f"one reader, whole file: {whole:.2f} s, {speed:.0f} MB/s, then {mount.memory()}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--gatherfs", required=True)
    ap.add_argument("--work", required=True, help="a directory with some 3 GB of space")
    ap.add_argument("--params", type=float, default=130e6)
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--cold", action="store_true", help="empty the page cache first, as root")
    args = ap.parse_args()
    work, binary = os.path.abspath(args.work), os.path.abspath(args.gatherfs)
    os.makedirs(work, exist_ok=True)
    ckpt = make_checkpoint(work, args.params)
    print(f"ZeRO-3, 4 ranks, {args.params / 1e6:.0f}e6 parameters; {machine()}")
    for dtype, script, options in (
        ("float32", "zero_to_fp32.py", []),
        ("bfloat16", "zero_to_torch.py", ["--dtype", "bf16"]),
    ):
        contestants = {
            "gatherfs export": export(binary, ckpt, dtype),
            script: convert(script, ckpt, *options),
        }
        print(f"\n{dtype}")
        race(work, contestants, args.rounds, files_of, args.cold)
    if os.path.exists("/dev/fuse"):
        time_mount(binary, ckpt, work)


if __name__ == "__main__":
    main()
