#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reading a merged model against reading its base: what a low-rank adapter costs on read.

    bench_merge.py --gatherfs build/gatherfs --work DIR [--ranks 16,64] [--layers 1] [--rounds 5]

Makes a PEFT training state with the layers of a 7B model in DIR (an adapter on each of its
seven matrices; 0.4 GB a layer in bf16, 0.8 GB in fp32), then reads the views `full` (merged) and
`base` (as it is stored) by turns: from a mount, each time a fresh one, by one reader and by two,
with `gatherfs cat`, and with `gatherfs export`. DIR is best in memory (/dev/shm).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]
from measure import MB, Mount, machine  # noqa: E402

HIDDEN, INTER, VOCAB = 4096, 11008, 512
MATRICES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTER, HIDDEN),
    "mlp.up_proj": (INTER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTER),
}
FILE = "model.safetensors"


def state_of(rank, layers, dtype):
    """Names as in the state of a PeftModel, and values that are not all alike."""
    import torch

    generator = torch.Generator().manual_seed(rank)

    def rand(*shape):
        return torch.randn(shape, generator=generator) * 0.02

    state = {}
    top = "base_model.model."
    for layer in range(layers):
        at = f"{top}model.layers.{layer}."
        for name, (rows, cols) in MATRICES.items():
            state[f"{at}{name}.base_layer.weight"] = rand(rows, cols).to(dtype)
            state[f"{at}{name}.lora_A.default.weight"] = rand(rank, cols)
            state[f"{at}{name}.lora_B.default.weight"] = rand(rows, rank)
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{at}{name}.weight"] = torch.ones(HIDDEN, dtype=dtype)
    state[f"{top}model.embed_tokens.weight"] = rand(VOCAB, HIDDEN).to(dtype)
    state[f"{top}model.norm.weight"] = torch.ones(HIDDEN, dtype=dtype)
    state[f"{top}lm_head.weight"] = rand(VOCAB, HIDDEN).to(dtype)
    return state


def make_state(path, rank, layers, dtype):
    import torch
    from safetensors.torch import save_file

    part = path + ".part"
    if os.path.exists(path):
        return
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": INTER,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "vocab_size": VOCAB,
        "tie_word_embeddings": False,
    }
    adapter = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": [name.rpartition(".")[2] for name in MATRICES],
    }
    for name, content in (("config.json", config), ("adapter_config.json", adapter)):
        with open(os.path.join(part, name), "w") as f:
            json.dump(content, f)
    save_file(state_of(rank, layers, getattr(torch, dtype)), os.path.join(part, FILE))
    os.rename(part, path)


# ---------------------------------------------------------------- readers: seconds for all bytes


def read_part(path, begin, end):
    buf = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as f:
        f.seek(begin)
        while begin < end:
            n = f.readinto(memoryview(buf)[: min(len(buf), end - begin)])
            assert n
            begin += n


def from_mount(binary, state, work, view, readers):
    """A fresh mount: its pages are not cached yet."""
    point = os.path.join(work, "mnt")
    with Mount(binary, state, point):
        path = os.path.join(point, view, FILE)
        size = os.path.getsize(path)
        begin = time.perf_counter()
        edges = [size * i // readers for i in range(readers + 1)]
        threads = [
            threading.Thread(target=read_part, args=(path, *edge))
            for edge in zip(edges, edges[1:], strict=False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begin


def command(*words):
    begin = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def with_cat(binary, state, work, view):
    return command(binary, "cat", state, f"{view}/{FILE}")


def with_export(binary, state, work, view):
    out = os.path.join(work, "out")
    shutil.rmtree(out, ignore_errors=True)
    seconds = command(binary, "export", state, out, "--view", view)
    shutil.rmtree(out)
    return seconds


READERS = {
    "mount, 1 reader": lambda *args: from_mount(*args, readers=1),
    "mount, 2 readers": lambda *args: from_mount(*args, readers=2),
    "cat": with_cat,
    "export": with_export,
}


def compare(name, binary, state, work, size, rounds):
    times = {"base": [], "full": []}
    for _ in range(rounds):
        for view, seconds in times.items():
            seconds.append(READERS[name](binary, state, work, view))
    base, full = (statistics.median(times[view]) for view in ("base", "full"))
    ratios = [b / f for b, f in zip(times["base"], times["full"], strict=True)]
    print(
        f"  {name:18} {size / base / MB:8.0f} {size / full / MB:8.0f} "
        f"{statistics.median(ratios):8.2f}   ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--gatherfs", required=True)
    ap.add_argument("--work", required=True, help="a directory with some GB of space")
    ap.add_argument("--ranks", default="16,64")
    ap.add_argument("--dtypes", default="bfloat16,float32")
    ap.add_argument("--readers", default=",".join(READERS).replace(", ", " "))
    ap.add_argument("--layers", type=int, default=1)
    ap.add_argument("--rounds", type=int, default=5)
    args = ap.parse_args()
    work, binary = os.path.abspath(args.work), os.path.abspath(args.gatherfs)
    chosen = [name for name in READERS if name.replace(", ", " ") in args.readers.split(",")]
    for dtype in args.dtypes.split(","):
        for rank in map(int, args.ranks.split(",")):
            state = os.path.join(work, f"{dtype}-{rank}-{args.layers}")
            make_state(state, rank, args.layers, dtype)
            size = os.path.getsize(os.path.join(state, FILE))
            print(f"{dtype}, r={rank}, {size / MB:.0f} MB; {machine()}")
            print(f"  {'MB/s':18} {'base':>8} {'merged':>8} {'ratio':>8}")
            for name in chosen:
                compare(name, binary, state, work, size, args.rounds)
            shutil.rmtree(state)


if __name__ == "__main__":
    main()
