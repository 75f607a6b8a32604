# SPDX-License-Identifier: Apache-2.0
"""The torch files and model directories that make_torch_files.py makes, one function each.

A case's function runs on every rank (world processes of gloo, or this one alone) inside the case's
folder: it writes ckpt/ and returns the state dict that ckpt/ must resolve to.
"""

import argparse
import collections
import os
import random
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import nn

BIN = "ckpt/pytorch_model.bin"
SHARD_SIZES = {"hf": "1GB", "hf_40kb": "40KB", "hf_7kb": "7KB", "hf_2kb": "2KB"}


@dataclass
class Case:
    make: object
    world: int = 1
    source: str = "ckpt"  # relative to the case's folder
    options: list = field(default_factory=list)
    refused: str = ""  # what the one line of the refusal says
    odd: list = field(default_factory=list)  # names that cannot be served
    prefix: str = ""  # in front of all names, in the file only


CASES = {}


def case(**facts):
    def add(make):
        CASES[make.__name__] = Case(make, **facts)
        return make

    return add


# ---------------------------------------------------------------- models and values


def pattern(shape, dtype=torch.float32, salt=0):
    """Values that differ, and are exact in most types, so that misplaced parts show."""
    n = torch.Size(shape).numel()
    x = torch.arange(n, dtype=torch.int64) * 7 + salt
    if dtype == torch.bool:
        return (x % 3 == 0).reshape(shape)
    if dtype.is_complex:
        return torch.complex((x % 97).float(), (x % 89).float()).to(dtype).reshape(shape)
    return (x % 101 if dtype.is_floating_point else x % 50).to(torch.int32).to(dtype).reshape(shape)


class Uneven(nn.Module):
    """Fewer rows than ranks, rows that ranks do not divide, no dimensions at all, buffers."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 1)
        self.five = nn.Linear(3, 5, bias=False)
        self.seven = nn.Linear(4, 7)
        self.conv = nn.Conv2d(3, 5, 2)
        self.register_buffer("steps", torch.tensor(17))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(pattern(p.shape, salt=13 * i))


def causal(model_type="llama", tied=False):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4}}.get(
        model_type,
        {
            "hidden_size": 32,
            "intermediate_size": 44,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
    )
    config = AutoConfig.for_model(
        model_type, vocab_size=97, pad_token_id=0, tie_word_embeddings=tied, **sizes
    )
    return AutoModelForCausalLM.from_config(config)


def whole(state):
    """Tensors as safetensors can hold them: each on its own, contiguous."""
    out = {}
    for name, t in state.items():
        if not torch.is_tensor(t):
            continue
        t = t.full_tensor() if hasattr(t, "full_tensor") else t
        out[name] = t.detach().resolve_conj().resolve_neg().clone().contiguous()
    return out


# ---------------------------------------------------------------- torch.save by one process


@case(odd=["complex128", "complex32"])
def bin_dtypes():
    names = "float32 float64 float16 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz"
    names += " float8_e5m2fnuz int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64"
    state = {name: pattern((3, 5), getattr(torch, name)) for name in names.split()}
    state["float8_e8m0fnu"] = torch.arange(15, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    state["float4_e2m1fn_x2"] = torch.arange(6, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    state["scalar"] = torch.tensor(3.5)
    state["empty"] = torch.empty(0, 7, dtype=torch.bfloat16)
    for name in ("complex128", "complex32"):
        state[name] = pattern((2, 2), getattr(torch, name))
    torch.save(state, BIN)
    return state


@case()
def bin_views():
    base, line = pattern((16, 12)), pattern((1000,), torch.bfloat16)
    state = {
        "embed": base,
        "head": base,
        "rows": base[4:8],
        "columns": base[:, 2:5],
        "turned": base.t(),
        "steps": base[::2, 1::3],
        "stretched": base[3:4].expand(4, 12),
        "permuted": pattern((2, 3, 4), torch.float16).permute(2, 0, 1),
        "end": line[990:],
        "overlapping": torch.as_strided(line, (3, 3), (2, 5), 7),
        "channels_last": pattern((2, 3, 4, 5)).to(memory_format=torch.channels_last),
        "scalar": line[3],
        "nothing": line[5:5],
        "conj": pattern((2, 2), torch.complex64).conj(),
        "neg": pattern((2, 2), torch.complex64).conj().imag,
    }
    torch.save(state, BIN)
    return state


@case()
def bin_params():
    state = Uneven().state_dict(keep_vars=True)
    state["with_state"] = nn.Parameter(pattern((2, 3)))
    state["with_state"].tag = "x"
    state["with_attribute"] = pattern((2, 2))
    state["with_attribute"].note = {"a": 1}
    state["buffer"] = nn.Buffer(pattern((2,), torch.int32))
    torch.save(state, BIN)
    return state


@case(odd=["quantized", "sparse", "meta", "nested", "bits"])
def bin_exotic():
    state = {
        "ok": pattern((4, 4)),
        "quantized": torch.quantize_per_tensor(torch.ones(4, 6), 0.1, 3, torch.qint8),
        "sparse": torch.eye(4).to_sparse(),
        "meta": torch.empty(3, 5, device="meta"),
        "nested": torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)]),
        "bits": torch.arange(4, dtype=torch.uint8).view(torch.bits8),
        "ok2": pattern((2,)),
    }
    torch.save(state, BIN)
    return state


@case()
def bin_sharded():
    import json

    state, places = causal().state_dict(), {}
    for i in range(3):
        name = f"pytorch_model-{i + 1:05d}-of-00003.bin"
        part = {k: state[k].clone() for k in list(state)[i::3]}
        torch.save(part, "ckpt/" + name)
        places |= dict.fromkeys(part, name)
    with open(BIN + ".index.json", "w") as f:
        json.dump({"metadata": {"total_size": 1}, "weight_map": places}, f)
    return state


def nested(wrap, **options):
    model = Uneven()
    os.makedirs("ckpt", exist_ok=True)
    torch.save(wrap(model), "ckpt/x.pt", **options)
    return model.state_dict()


@case(source="ckpt/x.pt")
def file_lightning():
    keys = {"epoch": 1, "global_step": 5, "pytorch-lightning_version": "2.5.0", "loops": {}}
    return nested(lambda m: keys | {"state_dict": m.state_dict(), "callbacks": {}})


@case(source="ckpt/x.pt", prefix="module.")
def file_with_optimizer():
    def wrap(model):
        optimizer = torch.optim.AdamW(model.parameters())
        sum(p.sum() for p in model.parameters()).backward()
        optimizer.step()
        names = {"module." + k: v for k, v in model.state_dict().items()}
        return {"optimizer": optimizer.state_dict(), "module": names, "epoch": 1}

    return nested(wrap)


@case(source="ckpt/x.pt")
def file_with_ema():
    def wrap(model):
        ema = {k: v.double() for k, v in model.state_dict().items()}
        return {"ema": ema, "step": 3, "app": {"net": model.state_dict()}}

    return nested(wrap)


@case(source="ckpt/x.pt")
def file_legacy():
    return nested(lambda m: {"model": m.state_dict()}, _use_new_zipfile_serialization=False)


def odd_values():
    loop = []
    loop.append(loop)
    return {
        "big": 2**70,
        "bytes": b"\0x",
        "set": {1},
        "none": None,
        "loop": loop,
        "long": "a" * 70000,
        "arguments": argparse.Namespace(x=[1]),
        "rng": random.Random(3).getstate(),
        "count": collections.Counter("aab"),
        "complex": 1 + 2j,
    }


@case(source="ckpt/x.pt")
def file_odd_values():
    return nested(lambda m: odd_values() | {"state_dict": m.state_dict()})


@case(source="ckpt/x.pt")
def file_protocol_5():
    return nested(lambda m: odd_values() | {"model": m.state_dict()}, pickle_protocol=5)


@case(source="ckpt/x.pt", refused="a whole pickled nn.Module")
def file_module():
    return nested(lambda m: m)


@case(source="ckpt/x.pt", refused="no state dict in it")
def file_optimizer():
    return nested(lambda m: {"optimizer": {"state": {"a": torch.ones(2)}}, "epoch": 3})


# ---------------------------------------------------------------- one file per rank


def mesh(*sizes):
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", sizes, mesh_dim_names=[f"d{i}" for i in range(len(sizes))])


def fsdp2(model, over, blocks=()):
    from torch.distributed.fsdp import fully_shard

    for block in blocks:
        fully_shard(block, mesh=over)
    fully_shard(model, mesh=over)
    return model


def save_rank(state, pattern="ckpt/pytorch_model_fsdp_0_rank{}.bin"):
    torch.save(state, pattern.format(dist.get_rank()))
    return state


@case(world=3)
def ranks_fsdp2():
    model = fsdp2(Uneven(), mesh(3))
    return save_rank(model.state_dict())


@case(world=4)
def ranks_hsdp():
    return save_rank(fsdp2(Uneven(), mesh(2, 2)).state_dict())


@case(world=4)
def ranks_fsdp2_over_tp():
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 7))
    both = mesh(2, 2)
    parallelize_module(model, both["d1"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
    return save_rank(fsdp2(model, both["d0"]).state_dict())


@case(world=3)
def ranks_by_columns():
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    over = mesh(3)
    state = {
        "columns": distribute_tensor(pattern((4, 7)), over, [Shard(1)]),
        "middle": distribute_tensor(pattern((2, 5, 3), torch.bfloat16), over, [Shard(1)]),
        "everywhere": distribute_tensor(pattern((3, 2)), over, [Replicate()]),
        "plain": pattern((3,)),
    }
    return save_rank(state, "ckpt/rank_{}.pt")


@case(world=2, source="ckpt/actor")
def ranks_verl():
    os.makedirs("ckpt/actor", exist_ok=True)
    model = causal()
    state = fsdp2(model, mesh(2), model.model.layers).state_dict()
    rank = dist.get_rank()
    for name in ("optim", "extra_state"):
        torch.save({"a": torch.ones(2)}, f"ckpt/actor/{name}_world_size_2_rank_{rank}.pt")
    return save_rank(state, "ckpt/actor/model_world_size_2_rank_{}.pt")


@case()
def ranks_verl_alone():
    state = Uneven().state_dict()
    torch.save(state, "ckpt/model_world_size_1_rank_0.pt")
    return state


@case(world=2, refused="whose ranks hold terms of a sum")
def ranks_partial():
    from torch.distributed.tensor import DTensor, Partial

    return save_rank({"sum": DTensor.from_local(torch.ones(2, 2), mesh(2), [Partial()])})


@case(world=2, refused="tensor 'five.weight': one rank's part of it alone")
def rank_0_only():
    state = fsdp2(Uneven(), mesh(2)).state_dict()
    state = {k: v for k, v in state.items() if k == "five.weight"}
    if dist.get_rank() == 0:
        torch.save(state, "ckpt/pytorch_model_fsdp.bin")
    return state


# ---------------------------------------------------------------- FSDP1


def fsdp1(model, use_orig_params):
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    layers = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    policy = ModuleWrapPolicy({type(layers[0][0])}) if layers else None
    return FullyShardedDataParallel(
        model,
        auto_wrap_policy=policy,
        use_orig_params=use_orig_params,
        device_id=torch.device("cpu"),
    )


def state_of(model, kind):
    from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType

    config = FullStateDictConfig(False, False) if kind == "FULL_STATE_DICT" else None
    with FullyShardedDataParallel.state_dict_type(model, StateDictType[kind], config):
        return model.state_dict()


def save_local(model_type, use_orig_params):
    """The base model's directory is the template: the same model, other values."""
    base = causal(model_type)
    if dist.get_rank() == 0:
        base.save_pretrained("base")
    model = fsdp1(base, use_orig_params)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    save_rank(state_of(model, "LOCAL_STATE_DICT"), "ckpt/pytorch_model_fsdp_rank{}.bin")
    return state_of(model, "FULL_STATE_DICT")


@case(world=2, options=["--config-from", "base"])
def local_flat():
    return save_local("llama", False)


@case(world=3, options=["--config-from", "base"])
def local_flat_qwen2():
    return save_local("qwen2", False)


@case(world=2, options=["--config-from", "base"])
def local_flat_gpt2():
    return save_local("gpt2", False)


@case(world=3, options=["--config-from", "base"])
def local_slices():
    return save_local("llama", True)


@case(world=2, refused="give config_from=DIR")
def local_without_template():
    return save_local("llama", False)


@case(world=2)
def fsdp1_full():
    state = state_of(fsdp1(causal(), True), "FULL_STATE_DICT")
    if dist.get_rank() == 0:
        torch.save(state, "ckpt/pytorch_model_fsdp.bin")
        torch.save({"state": {}}, "ckpt/optimizer.bin")
    return state


@case(world=3)
def fsdp1_sharded_tensors():
    model = fsdp1(Uneven(), True)
    save_rank(state_of(model, "SHARDED_STATE_DICT"))
    return state_of(model, "FULL_STATE_DICT")


# ---------------------------------------------------------------- ready model directories


def save_hf(model):
    for name, size in SHARD_SIZES.items():
        model.save_pretrained(f"expected/{name}", max_shard_size=size)
    return {}


@case(source="expected/hf")
def hf_llama():
    return save_hf(causal())


@case(source="expected/hf")
def hf_llama_tied():
    return save_hf(causal(tied=True).to(torch.bfloat16))


@case(source="expected/hf")
def hf_gpt2():
    return save_hf(causal("gpt2", tied=True))
