# SPDX-License-Identifier: Apache-2.0
"""The DCP cases: each function is one rank of a run that saves a checkpoint into `ckpt` and
returns the tensors that a reader must find, gathered from the live state."""

import os
import random
from dataclasses import dataclass
from typing import Callable

import torch
from torch import nn

SEED = 1234
CASES = {}


@dataclass
class Case:
    run: Callable
    world: int
    source: str
    facts: dict


def case(name, world=1, source="ckpt", **facts):
    def add(run):
        CASES[name] = Case(run, world, source, facts)
        return run

    return add


# ---------------------------------------------------------------- models


def pattern(shape, dtype=torch.float32, salt=0):
    """Values that are exact in every dtype and that no two places near each other share."""
    n = torch.Size(shape).numel()
    x = torch.arange(n, dtype=torch.int64) * 7 + salt
    if dtype == torch.bool:
        return (x % 3 == 0).reshape(shape)
    if dtype.is_complex:
        return torch.complex((x % 97).float(), (x % 89).float()).to(dtype).reshape(shape)
    if dtype.is_floating_point:
        small = torch.finfo(dtype).bits <= 8
        x = (x % 9 - 4).double() if small else (x % 251 - 125).double() / 8
    else:
        x = (x % 101).to(torch.int32)
    return x.to(dtype).reshape(shape)


class Uneven(nn.Module):
    """Sizes that four ranks can't share evenly, one row, 1-D, buffers of other types."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 1)
        self.five = nn.Linear(3, 5, bias=False)
        self.seven = nn.Linear(4, 7)
        self.emb = nn.Embedding(9, 4)
        self.norm = nn.LayerNorm(7)
        self.conv = nn.Conv2d(3, 5, 2)
        self.register_buffer("steps", torch.tensor(17, dtype=torch.int64))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("scratch", torch.ones(3), persistent=False)
        for i, p in enumerate(self.parameters()):
            p.data.copy_(pattern(p.shape, p.dtype, i * 13))

    def forward(self, x):
        return self.one(x).sum()


def llama(tied=False, dtype=torch.float32):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    config = LlamaConfig(
        hidden_size=40,
        intermediate_size=72,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=133,
        max_position_embeddings=64,
        pad_token_id=0,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).to(dtype)


def train(model, optimizer=None):
    ids = torch.arange(24).reshape(2, 12) * 5 % 133
    model(input_ids=ids, labels=ids).loss.backward()
    if optimizer:
        optimizer.step()


# ---------------------------------------------------------------- wrapping and saving


def mesh(shape=None, names=("fsdp",)):
    from torch.distributed.device_mesh import init_device_mesh

    shape = shape or (torch.distributed.get_world_size(),)
    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def fsdp2(model, over=None):
    from torch.distributed.fsdp import fully_shard

    over = over or mesh()
    for block in getattr(getattr(model, "model", None), "layers", []):
        fully_shard(block, mesh=over)
    return fully_shard(model, mesh=over)


def fsdp1(model, over=None, use_orig_params=False):
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    blocks = {type(b) for b in getattr(getattr(model, "model", None), "layers", [])}
    return FullyShardedDataParallel(
        model,
        auto_wrap_policy=ModuleWrapPolicy(blocks) if blocks else None,
        use_orig_params=use_orig_params,
        device_id=torch.device("cpu"),
        device_mesh=over,
    )


def model_state(model):
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    return get_model_state_dict(model)


def gathered(state):
    from torch.distributed.tensor import DTensor

    full = {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in state.items()}
    return {k: v.detach().clone().contiguous() for k, v in full.items() if torch.is_tensor(v)}


def save(state, path="ckpt", writer=None, no_dist=False, **options):
    import torch.distributed.checkpoint as dcp

    planner = options.pop("planner", None)
    collectives = options.pop("use_collectives", True)
    writer = writer or dcp.FileSystemWriter(path, **options)
    dcp.save(
        state, storage_writer=writer, planner=planner, no_dist=no_dist, use_collectives=collectives
    )


def rank():
    return torch.distributed.get_rank()


# ---------------------------------------------------------------- one process


@case("dcp_one_rank")
def one_rank():
    state = Uneven().state_dict()
    extra = {"epoch": 3, "tensors": [torch.ones(2), {"x": torch.zeros(3)}], 7: "int key"}
    save({"model": state, "extra": extra}, no_dist=True)
    return gathered(state)


@case("dcp_dtypes")
def dtypes():
    names = "float32 float64 float16 bfloat16 float8_e4m3fn float8_e5m2 int8 int16 int32 int64 "
    names += "uint8 uint16 bool complex64"
    state = {f"t.{n}": pattern((3, 5), getattr(torch, n), len(n)) for n in names.split()}
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.empty(0, 3)
    state["transposed"] = pattern((4, 6)).t()
    state["columns"] = pattern((6, 8))[:, 2:5]
    state["tied_a"] = state["tied_b"] = pattern((4, 4))
    save(state, no_dist=True)
    return gathered(state)


@case("dcp_no_flattening")
def no_flattening():
    """A state dict that is one object, and tensors whose memory isn't row-major in it."""
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    state = Uneven().state_dict()
    state["transposed"] = pattern((4, 6)).t()
    planner = DefaultSavePlanner(flatten_state_dict=False)
    save({"model": state, "optimizer": {"t": torch.ones(2)}}, no_dist=True, planner=planner)
    return gathered(state)


# ---------------------------------------------------------------- FSDP2 and tensor parallelism


def fsdp2_uneven(**options):
    state = model_state(fsdp2(Uneven()))
    save({"model": state}, **options)
    return gathered(state)


@case("dcp_fsdp2_uneven", world=4)
def uneven():
    return fsdp2_uneven()


@case("dcp_threads", world=2)
def threads():
    return fsdp2_uneven(thread_count=3)


@case("dcp_file_per_item", world=2)
def file_per_item():
    return fsdp2_uneven(single_file_per_rank=False)


@case("dcp_zstd", world=2)
def zstd():
    from torch.distributed.checkpoint._extension import ZStandard

    return fsdp2_uneven(_extensions=[ZStandard()])


@case("dcp_without_collectives", world=2)
def without_collectives():
    return fsdp2_uneven(use_collectives=False)


@case("dcp_async", world=2)
def asynchronous():
    import torch.distributed.checkpoint as dcp

    state = model_state(fsdp2(Uneven()))
    dcp.async_save({"model": state}, storage_writer=dcp.FileSystemWriter("ckpt")).result()
    return gathered(state)


@case("dcp_flat_keys", world=2)
def flat_keys():
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    state = model_state(fsdp2(Uneven()))
    planner = DefaultSavePlanner(flatten_state_dict=False)
    save({**state, "opt": {"lr": 1, "t": torch.ones(2)}}, planner=planner)
    return gathered(state)


@case("dcp_fsdp2_llama", world=4, hf=True)
def fsdp2_llama():
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model = fsdp2(llama())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    train(model, optimizer)
    state, optim = get_state_dict(model, optimizer)
    loader = {f"rank_{rank()}": b"abc"}
    save({"model": state, "optim": optim, "step": 1, "dataloader": loader})
    return gathered(state)


@case("dcp_stateful_wrapper", world=2)
def stateful_wrapper():
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.checkpoint.stateful import Stateful

    model = fsdp2(llama())
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer)

    class App(Stateful):
        def state_dict(self):
            state, optim = get_state_dict(model, optimizer)
            return {"model": state, "optim": optim}

        def load_state_dict(self, state):
            raise NotImplementedError

    save({"app": App()})
    return gathered(model_state(model))


@case("dcp_torchtitan", world=2, source="ckpt/step-1")
def torchtitan():
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    model = fsdp2(llama())
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer)
    state = model_state(model)
    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    rest = {
        "optimizer": get_optimizer_state_dict(model, optimizer, options=flat),
        "lr_scheduler": {"last_epoch": 1},
        "train_state": {"step": torch.tensor(1), "tokens": torch.tensor(24)},
        "dataloader": {f"dp_rank_{rank()}": b"x" * 20},
    }
    save({**state, **rest}, "ckpt/step-1")
    return gathered(state)


@case("dcp_bf16", world=2)
def bf16():
    state = model_state(fsdp2(llama(dtype=torch.bfloat16)))
    save({"model": state})
    return gathered(state)


@case("dcp_tied", world=2)
def tied():
    state = model_state(fsdp2(llama(tied=True)))
    save({"model": state})
    return gathered(state)


@case("dcp_hsdp", world=4)
def hsdp():
    state = model_state(fsdp2(Uneven(), mesh((2, 2), ("replicate", "shard"))))
    save({"model": state})
    return gathered(state)


def parallel(model, plan, blocks):
    from torch.distributed.tensor.parallel import parallelize_module

    both = mesh((2, 2), ("dp", "tp"))
    for block in blocks:
        parallelize_module(block, both["tp"], plan)
    return fsdp2(model, both["dp"])


@case("dcp_tp_fsdp2", world=4)
def tp_fsdp2():
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

    columns = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj"]
    plan = {name: ColwiseParallel() for name in [*columns, "mlp.up_proj"]}
    plan |= {name: RowwiseParallel() for name in ("self_attn.o_proj", "mlp.down_proj")}
    model = llama()
    state = model_state(parallel(model, plan, model.model.layers))
    save({"model": state})
    return gathered(state)


@case("dcp_tp_strided_uneven", world=4)
def tp_strided_uneven():
    """10 rows over 2 x 2 ranks: _StridedShard with pieces of 3 and 2 rows, interleaved."""
    from torch.distributed.tensor.parallel import ColwiseParallel

    full = pattern((10, 3), salt=1)
    model = nn.Sequential(nn.Linear(3, 10, bias=False))
    model[0].weight.data.copy_(full)
    save({"model": model_state(parallel(model, {"0": ColwiseParallel()}, [model]))})
    return {"0.weight": full}  # full_tensor() of this one is wrong in torch 2.13


@case("dcp_columns", world=2)
def columns():
    """Shard(1), and local tensors that aren't row-major."""
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    over = mesh()
    shapes = [(4, 6), (3, 5), (5, 1), (2, 3, 7)]
    full = {f"w{i}": pattern(s, salt=i) for i, s in enumerate(shapes)}
    state = {k: distribute_tensor(v, over, [Shard(1)]) for k, v in full.items()}
    mine = slice(rank() * 3, (rank() + 1) * 3)
    state["strided"] = DTensor.from_local(pattern((4, 6), salt=44)[:, mine], over, [Shard(1)])
    turned = pattern((6, 4), salt=45)[mine].t()
    state["transposed"] = DTensor.from_local(turned, over, [Shard(1)])
    state["whole"] = distribute_tensor(full["w0"], over, [Replicate()])
    save(state)
    return gathered(state)


@case("dcp_ddp", world=2)
def ddp():
    state = nn.parallel.DistributedDataParallel(llama()).state_dict()
    save({"model": state})
    return {k.removeprefix("module."): v for k, v in gathered(state).items()}


# ---------------------------------------------------------------- FSDP1


def fsdp1_sharded(model, over=None, use_orig_params=False):
    from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType

    model = fsdp1(model, over, use_orig_params)
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.SHARDED_STATE_DICT):
        save({"model": model.state_dict()})
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT):
        return gathered(model.state_dict())


@case("dcp_fsdp1", world=4)
def fsdp1_sharded_tensor():
    return fsdp1_sharded(llama())


@case("dcp_fsdp1_uneven", world=4)
def fsdp1_uneven():
    return fsdp1_sharded(Uneven(), use_orig_params=True)


@case("dcp_fsdp1_dtensor", world=4)
def fsdp1_dtensor():
    return fsdp1_sharded(llama(), mesh(), use_orig_params=True)


# ---------------------------------------------------------------- Accelerate


def accelerate_state(version, folder):
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType
    from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType

    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": str(version)}
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=version,
        state_dict_type="SHARDED_STATE_DICT",
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        use_orig_params=True if version == 1 else None,
    )
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    # without an accelerator device it would not choose FSDP by itself
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    AcceleratorState._shared_state["distributed_type"] = DistributedType.FSDP
    model = fsdp1(llama(), use_orig_params=True) if version == 1 else fsdp2(llama())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    accelerator._models.append(model)
    accelerator._optimizers.append(optimizer)
    train(model, optimizer)
    random.seed(3)
    accelerator.save_state(folder)
    if version == 2:
        return gathered(model_state(model))
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT):
        return gathered(model.state_dict())


@case("dcp_accelerate_fsdp1", world=2)
def accelerate_fsdp1():
    return accelerate_state(1, "ckpt")


@case("dcp_accelerate_fsdp2", world=2, source="ckpt/checkpoint-3")
def accelerate_fsdp2():
    return accelerate_state(2, "ckpt/checkpoint-3")


# ---------------------------------------------------------------- sharded safetensors


def hf_writer(state, files=1, **options):
    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    where = {name: 1 + i % files for i, name in enumerate(state)} if files > 1 else None
    return HuggingFaceStorageWriter(
        "ckpt", fqn_to_index_mapping=where, save_distributed=True, **options
    )


@case("hf_sharded", world=4)
def hf_sharded():
    state = model_state(fsdp2(Uneven()))
    save(state, writer=hf_writer(state))
    return gathered(state)


@case("hf_sharded_two_files", world=4, hf=True)
def hf_sharded_two_files():
    state = model_state(fsdp2(llama()))
    save(state, writer=hf_writer(state, 2))
    return gathered(state)


@case("hf_sharded_consolidated", world=2)
def hf_sharded_consolidated():
    state = model_state(fsdp2(llama()))
    save(state, writer=hf_writer(state, 2, enable_consolidation=True))
    return gathered(state)


# ---------------------------------------------------------------- running one


def run_rank(rank, case, folder, port):
    from safetensors.torch import save_file

    os.chdir(folder)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(case.world), "LOCAL_RANK": str(rank)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(case.world), "ACCELERATE_USE_CPU": "true"}
    if case.world > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=case.world)
    tensors = case.run()
    if rank == 0:
        save_file(tensors, "expected/live.safetensors", metadata={"format": "pt"})
        if case.facts.get("hf"):
            llama().save_pretrained("expected/hf")
    if case.world > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
