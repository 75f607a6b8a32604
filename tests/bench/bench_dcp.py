#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gatherfs against torch's and accelerate's conversions, on a real FSDP2 checkpoint of four ranks.

    bench_dcp.py --gatherfs build/gatherfs --work DIR [--size-mb 622] [--rounds 5] [--cold]

Saves an fp32 Llama in DIR twice, once per race: by torch.distributed.checkpoint as it comes
(.metadata and .distcp), and through its HuggingFaceStorageWriter (sharded safetensors).
"""

import argparse
import json
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [HERE, TESTS, os.path.join(TESTS, "formats")]
from make_deepspeed import run_ranks  # noqa: E402
from measure import MB, copy_from_mount, machine, race, run, tensors_of  # noqa: E402

RANKS = 4
HIDDEN, INTER, VOCAB = 1024, 2816, 32000

CONSOLIDATE = """
import json, sys
from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files
with open(sys.argv[1]) as f:
    consolidate_safetensors_files(sys.argv[2], sys.argv[3], fqn_to_index_mapping=json.load(f))
"""


# ---------------------------------------------------------------- the checkpoint


def make_config(size_mb):
    from transformers import LlamaConfig

    per_layer = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * INTER + 2 * HIDDEN
    layers = max(1, round((size_mb * MB / 4 - 2 * VOCAB * HIDDEN) / per_layer))
    return LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INTER,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        vocab_size=VOCAB,
        dtype="float32",
    )


def make_model(config, rank):
    """FSDP2 on CPU. No rank ever holds the whole model."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import LlamaForCausalLM

    mesh = init_device_mesh("cpu", (RANKS,))
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device="cpu")
    torch.manual_seed(rank)
    for p in model.parameters():
        p.data.to_local().normal_()
    return model


def save(rank, ckpt, config, mapping, port):
    """mapping: which file of the Hugging Face layout has which tensor; None: torch's own layout"""
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    state = get_model_state_dict(make_model(config, rank))
    if mapping:
        writer = dcp.HuggingFaceStorageWriter(
            ckpt, fqn_to_index_mapping=mapping, save_distributed=True
        )
        dcp.save(state, storage_writer=writer)
    else:
        dcp.save({"model": state}, checkpoint_id=ckpt)
    dist.barrier()


def make_mapping(config):
    import torch
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        names = list(LlamaForCausalLM(config).state_dict())
    return {name: 1 + 2 * i // len(names) for i, name in enumerate(names)}


def make_checkpoint(folder, config, mapping=None):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    run_ranks(save, RANKS, os.path.dirname(folder), folder, config, mapping, timeout=1500)
    config.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------- the races


def ours(binary, ckpt, work):
    point = os.path.join(work, "mnt")
    contestants = {"gatherfs export": lambda out: run([binary, "export", ckpt, out])}
    if os.path.exists("/dev/fuse"):
        contestants["gatherfs mount, cp"] = lambda out: copy_from_mount(binary, ckpt, point, out)
    return contestants


def race_dcp(binary, work, config, rounds, cold):
    ckpt = make_checkpoint(os.path.join(work, "dcp"), config)
    format_utils = "torch.distributed.checkpoint.format_utils"
    accelerate = "accelerate.commands.accelerate_cli"
    contestants = ours(binary, ckpt, work) | {
        "dcp_to_torch": lambda out: run(
            [sys.executable, "-m", format_utils, "dcp_to_torch", ckpt, out]
        ),
        "accelerate merge-weights": lambda out: run(
            [sys.executable, "-m", accelerate, "merge-weights", ckpt, out]
        ),
    }
    race(work, contestants, rounds, tensors_of, cold)
    shutil.rmtree(ckpt)


def race_hf(binary, work, config, rounds, cold):
    mapping = make_mapping(config)
    ckpt = make_checkpoint(os.path.join(work, "hf"), config, mapping)
    path = os.path.join(work, "mapping.json")
    with open(path, "w") as f:
        json.dump(mapping, f)

    def consolidate(out):
        os.makedirs(out)
        return run([sys.executable, "-c", CONSOLIDATE, path, ckpt, out])

    contestants = ours(binary, ckpt, work) | {"consolidate_safetensors_files": consolidate}
    race(work, contestants, rounds, tensors_of, cold)
    shutil.rmtree(ckpt)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--gatherfs", required=True)
    ap.add_argument("--work", required=True, help="a directory with space for three models")
    ap.add_argument("--size-mb", type=float, default=622)
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--cold", action="store_true", help="empty the page cache first, as root")
    args = ap.parse_args()
    work, binary = os.path.abspath(args.work), os.path.abspath(args.gatherfs)
    os.makedirs(work, exist_ok=True)
    config = make_config(args.size_mb)
    temperature = "cold" if args.cold else "warm"
    print(f"FSDP2, {RANKS} ranks, {args.size_mb:.0f} MB of fp32; {temperature}; {machine()}")
    print("\n.distcp")
    race_dcp(binary, work, config, args.rounds, args.cold)
    print("\nsharded safetensors")
    race_hf(binary, work, config, args.rounds, args.cold)


if __name__ == "__main__":
    main()
