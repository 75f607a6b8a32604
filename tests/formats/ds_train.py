# SPDX-License-Identifier: Apache-2.0
"""One rank of a DeepSpeed case: train a few steps, save a checkpoint, and write down what the
weights really are, gathered from the live engine (never read back from the checkpoint's files)."""

import argparse
import copy
import json
import os
import random
from contextlib import nullcontext

import ds_models
from tiny_tokenizer import make_tokenizer

SEED = 1234
STEPS = 2
LEARNING_RATE = 1e-2

# Shards of an HF case: the second size is below one embedding, which then gets a shard of its own.
SHARD_SIZES = {"hf_7kb": "7KB", "hf_2kb": "2KB"}


def torch_dtype(case):
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[case.dtype]


def deepspeed_config(case):
    zero = {"stage": case.stage}
    if case.stage:
        # small buckets: the default buffers hold 5e8 elements each
        zero |= {
            "overlap_comm": False,
            "reduce_bucket_size": 100_000,
            "allgather_bucket_size": 100_000,
        }
        zero |= {"stage3_param_persistence_threshold": 0, **case.zero}
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "steps_per_print": 10**9,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if case.dtype == "bf16":
        config["bf16"] = {"enabled": True}
    if case.dtype == "fp16":
        config["fp16"] = {"enabled": True, "initial_scale_power": 4}
    if case.autotp > 1:
        config["tensor_parallel"] = {"autotp_size": case.autotp}
    return config | case.config


# ---------------------------------------------------------------- training


def avoid_compiler():
    """DeepSpeed would build a shared-memory collective on first use, which takes minutes."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.ops.__compatible_ops__["shm_comm"] = False


def patch_libraries(case):
    import torch

    avoid_compiler()
    if case.dtype == "fp16":
        # the CPU accelerator says no, though the operators exist
        from deepspeed.accelerator import get_accelerator

        type(get_accelerator()).is_fp16_supported = lambda self: True
    if case.model in (ds_models.mlp_scalar, ds_models.strided, ds_models.strided_frozen):
        # 0.19 broadcasts p.view(uint8), which torch refuses for these; a copy will do, as the seeds
        # make the ranks equal anyway
        view = torch.Tensor.view

        def view_any(t, *args, **kw):
            return view(t.reshape(-1) if args == (torch.uint8,) else t, *args, **kw)

        torch.Tensor.view = view_any


def join_group(rank, world, port):
    import deepspeed
    import numpy as np
    import torch

    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    # Fills what torch.empty leaves: padding becomes NaN, so that serving it can't go unnoticed and
    # no stray memory of this machine gets into a file.
    torch.use_deterministic_algorithms(True, warn_only=True)
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


def build_model(case):
    import deepspeed

    if case.pipeline or case.moe:
        return case.model(case.world)
    if case.zero_init:
        with deepspeed.zero.Init(
            config_dict_or_path=deepspeed_config(case), dtype=torch_dtype(case)
        ):
            return case.model()
    return case.model()


def optimizer_groups(case, model):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if case.moe:
        from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer

        return split_params_into_different_moe_groups_for_optimizer(
            [{"params": [p for _, p in named], "name": "dense"}]
        )
    if not case.groups:
        return [p for _, p in named]
    vectors = [p for _, p in named if p.dim() < 2]
    embeddings = [p for n, p in named if p.dim() >= 2 and "embed" in n]
    matrices = [p for n, p in named if p.dim() >= 2 and "embed" not in n]
    return [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
        {"params": embeddings, "weight_decay": 0.0, "lr": LEARNING_RATE / 2},
    ]


def make_batch(case, model, rank, step):
    import torch

    generator = torch.Generator().manual_seed(SEED + 1000 * step + rank)
    if case.pipeline or getattr(model, "takes_vectors", False):
        return {"x": torch.randn(2, 7, generator=generator).to(torch_dtype(case))}
    ids = torch.randint(4, model.config.vocab_size, (1, 8), generator=generator)
    return {"input_ids": ids, "labels": ids.clone()}


def loss_of(output):
    if getattr(output, "loss", None) is not None:
        return output.loss
    return output.float().pow(2).mean() if output.dim() else output


def train_step(case, engine, model, rank, step):
    # ranks of one tensor-parallel group must see the same batch
    batch = make_batch(case, model, 0 if case.autotp > 1 else rank, step)
    if case.pipeline:
        engine.train_batch(data_iter=iter([(batch["x"], batch["x"])]))
        return
    engine.backward(loss_of(engine(**batch)))
    engine.step()


def client_state(case, step):
    state = {"iteration": step, "client_lr_scheduler": None}
    if case.rich_client:
        import numpy as np
        import torch

        state |= {
            "args": argparse.Namespace(lr=LEARNING_RATE, betas=(0.9, 0.95), name="näme"),
            "random_rng_state": random.getstate(),
            "np_rng_state": np.random.get_state(),
            "torch_rng_state": torch.get_rng_state(),
            "seen": {"a", "b"},
            "frozen": frozenset([1, 2]),
            "big": 2**200,
            "negative": -(2**40),
            "blob": b"\0\xff" * 200,
            "when": complex(1, -2),
            "scalar": np.float64(0.5),
            "table": np.arange(12, dtype=np.int16).reshape(3, 4),
            "device": torch.device("cpu"),
            "dtype": torch.bfloat16,
            "range": range(3),
            "policy": case,
        }
        state["self"] = state["loop"] = [state["args"]]
        state["loop"].append(state["loop"])  # a cycle
    return state


# ---------------------------------------------------------------- what is live


def write_tensors(tensors, path):
    from safetensors.torch import save_file

    copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(copies, path, metadata={"format": "pt"})


def merge_ranks(local, world):
    """Every rank's dict of CPU tensors, joined on rank 0."""
    import torch.distributed as dist

    # plain arrays of bytes: tensors of these types don't all survive gather_object
    parts = [None] * world if dist.get_rank() == 0 else None
    dist.gather_object({k: v.detach().cpu().clone() for k, v in local.items()}, parts)
    return {k: v for part in parts or [] for k, v in part.items()}


def expert_names_global(tensors, case, rank):
    """A rank names its experts from 0; the checkpoint's files use the number among all ranks'."""
    mark = ".deepspeed_experts."
    local = 4 // case.world
    result = {}
    for name, tensor in tensors.items():
        if mark in name:
            head, tail = name.split(mark)
            number, rest = tail.split(".", 1)
            name = f"{head}{mark}{rank * local + int(number)}.{rest}"
        result[name] = tensor
    return result


def live_weights(case, engine, rank):
    """The state dict of the whole model as trained. Complete on rank 0 only."""
    import torch

    if case.stage == 3:
        state = engine._zero3_consolidated_16bit_state_dict()
    elif case.autotp > 1:
        state = engine._replace_module_consolidated_state_dict()
    elif case.moe:
        state = merge_ranks(expert_names_global(engine.module_state_dict(), case, rank), case.world)
    elif case.pipeline:
        state = merge_ranks(engine.module.state_dict(), case.world)
    else:
        state = engine.module_state_dict()
    return {k: v for k, v in (state or {}).items() if torch.is_tensor(v)}


def has_master_api(case):
    """Whether safe_get_full_fp32_param is right. With round_robin_gradients 0.19.8 mixes up the
    parameters (its files are right: zero_to_fp32's rounded result equals the live weights)."""
    split = case.pipeline or case.moe or case.autotp > 1
    return case.stage > 0 and not split and "round_robin_gradients" not in case.zero


def master_weights(engine):
    """The optimizer's own copy of every trained parameter. A collective call."""
    from deepspeed.utils import safe_get_full_fp32_param

    return {
        name: safe_get_full_fp32_param(p).detach().clone().view(getattr(p, "ds_shape", p.shape))
        for name, p in engine.module.named_parameters()
        if p.requires_grad
    }


# ---------------------------------------------------------------- the Hugging Face side


def pretrained_part(model):
    """The transformers model inside its wrappers."""
    for wrapper in ("_orig_mod", "module"):
        if wrapper in model._modules:
            return pretrained_part(model._modules[wrapper])
    return model


def write_side_files(model, folder):
    """What lies beside a checkpoint: the config as it was before training, hence in float32."""
    from transformers.dynamic_module_utils import custom_object_save

    os.makedirs(folder, exist_ok=True)
    config = copy.deepcopy(model.config)
    config.dtype = "float32"
    config.architectures = [type(model).__name__]
    if model.is_remote_code() or getattr(model, "_auto_class", None):
        custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    make_tokenizer(config.vocab_size).save_pretrained(folder)


def in_storage_of_its_own(state):
    """DeepSpeed's weights are views of flat or padded buffers, and save_pretrained takes the size
    of a tensor's storage for its size when it splits into shards. Tied weights stay tied."""
    copies = {}
    for tensor in state.values():
        key = (tensor.data_ptr(), tensor.shape)
        copies[key] = copies.get(key, tensor.detach().clone())
    return {name: copies[t.data_ptr(), t.shape] for name, t in state.items()}


def save_hf_directories(case, model, rank, expected):
    """save_pretrained of the live model, its parameters gathered in place by DeepSpeed."""
    import deepspeed

    gathered = nullcontext()
    if case.stage == 3:
        gathered = deepspeed.zero.GatheredParameters(list(model.parameters()))
    with gathered:
        if rank == 0:
            for name, size in {"hf": "50GB", **SHARD_SIZES}.items():
                folder = os.path.join(expected, name)
                state = in_storage_of_its_own(model.state_dict())
                model.save_pretrained(folder, state_dict=state, max_shard_size=size)
                make_tokenizer(model.config.vocab_size).save_pretrained(folder)


# ---------------------------------------------------------------- one rank


def save_checkpoints(case, engine, model, rank, ckpt, expected):
    """Train on and save: once, or once for each tag."""
    if not case.tags:
        train_step(case, engine, model, rank, 1)
        engine.save_checkpoint(
            ckpt,
            client_state=client_state(case, STEPS),
            exclude_frozen_parameters=case.exclude_frozen,
        )
    for i, tag in enumerate(case.tags):
        train_step(case, engine, model, rank, i + 1)
        engine.save_checkpoint(ckpt, tag=tag, client_state=client_state(case, i))
        live = live_weights(case, engine, rank)
        if rank == 0:
            write_tensors(live, os.path.join(expected, f"live.{tag}.safetensors"))
    if case.save16:
        engine.save_16bit_model(ckpt, "pytorch_model.bin")


def describe(model):
    saved = set(model.state_dict())
    return {
        "frozen": [n for n, p in model.named_parameters() if not p.requires_grad],
        "buffers": sorted(n for n, _ in model.named_buffers() if n in saved),
    }


def run_rank(rank, case, folder, port):
    """Trains and writes folder/ckpt and folder/expected. The facts go to expected/rank0.json."""
    import deepspeed
    import torch

    patch_libraries(case)
    join_group(rank, case.world, port)
    expected = os.path.join(folder, "expected")
    ckpt = os.path.join(folder, case.source)

    model = build_model(case)
    if case.hf and rank == 0:
        write_side_files(pretrained_part(model), os.path.join(folder, "ckpt"))
    optimizer = torch.optim.AdamW(optimizer_groups(case, model), lr=LEARNING_RATE)
    engine, _, _, _ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=deepspeed_config(case)
    )
    train_step(case, engine, model, rank, 0)
    save_checkpoints(case, engine, model, rank, ckpt, expected)

    live = live_weights(case, engine, rank)
    masters = master_weights(engine) if has_master_api(case) else {}
    if rank == 0:
        write_tensors(live, os.path.join(expected, "live.safetensors"))
        if masters:
            write_tensors(masters, os.path.join(expected, "master.safetensors"))
        with open(os.path.join(expected, "rank0.json"), "w") as f:
            json.dump(describe(engine.module), f)
    if case.hf:
        save_hf_directories(case, pretrained_part(engine.module), rank, expected)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
