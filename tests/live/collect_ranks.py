# SPDX-License-Identifier: Apache-2.0
"""One rank of a model sharded by each of MODES (a list with commas): trains two steps, then
writes the pieces that gatherfs._collect finds to OUT/MODE, and rank 0 the state dict that the
framework itself gathers."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../src/live"))
from gatherfs import _collect  # noqa: E402


class Net(nn.Module):
    """Odd sizes, a tied pair, a buffer, a frozen parameter, a scalar."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(33, 10)
        self.layers = nn.ModuleList(nn.Linear(10, 10, bias=i % 2 == 0) for i in range(3))
        self.norm = nn.BatchNorm1d(10)
        self.gain = nn.Parameter(torch.ones(7))
        self.frozen = nn.Parameter(torch.arange(5.0), requires_grad=False)
        self.head = nn.Linear(10, 33, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(self.norm(x)) * self.gain.mean()


class Plain(nn.Module):
    """What tensor parallelism splits."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


def step(model, optimizer, rank, kind=None):
    x = torch.randn(4, 8) if kind == "tp" else torch.randint(0, 33, (4,), generator=torch.Generator().manual_seed(rank))
    loss = model(x).square().mean()
    model.backward(loss) if model is optimizer else loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def fsdp1(net, **options):
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    cpu = torch.device("cpu")
    net.layers[0] = FSDP(net.layers[0], device_id=cpu, **options)
    return FSDP(net, device_id=cpu, **options)


def fsdp1_state(model):
    from torch.distributed.fsdp import FullStateDictConfig, StateDictType
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    with FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT, FullStateDictConfig(rank0_only=False)):
        return model.state_dict()


def full_tensors(model):
    return {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in model.state_dict().items()}


def deepspeed_engine(net, stage):
    import deepspeed

    # Without its compiled shared-memory backend: gloo does, and nothing is built.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.ops.__compatible_ops__["shm_comm"] = False
    engine, *_ = deepspeed.initialize(
        model=net,
        model_parameters=[p for p in net.parameters() if p.requires_grad],
        config={
            "train_micro_batch_size_per_gpu": 4,
            "optimizer": {"type": "AdamW", "params": {"lr": 0.1, "torch_adam": True}},
            "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 16},
            "zero_allow_untested_optimizer": True,
        },
    )
    return engine


def zero3_state(engine):
    import deepspeed

    module = engine.module
    with deepspeed.zero.GatheredParameters(list(module.parameters())):
        return {k: v.detach().clone() for k, v in module.state_dict().items()}


def sharded(mode, rank, world):
    """The model and its optimizer, and how to gather it."""
    torch.manual_seed(0)
    net = Plain() if mode == "tp" else Net()
    if mode == "ddp":
        model = nn.parallel.DistributedDataParallel(net)
        gathered = lambda: model.module.state_dict()  # noqa: E731
    elif mode in ("fsdp1", "fsdp1_flat", "fsdp1_ignored"):
        # Frozen and trained parameters share no flat parameter of the older kind.
        net.frozen.requires_grad_(mode == "fsdp1_flat")
        ignored = {"ignored_states": [net.gain]} if mode == "fsdp1_ignored" else {}
        model = fsdp1(net, use_orig_params=mode != "fsdp1_flat", **ignored)
        gathered = lambda: fsdp1_state(model)  # noqa: E731
    elif mode in ("fsdp2", "hsdp", "fsdp2_kept"):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        shape, names = ((2, world // 2), ("replicate", "shard")) if mode == "hsdp" else ((world,), ("shard",))
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
        keep = {"reshard_after_forward": False} if mode == "fsdp2_kept" else {}
        fully_shard(net.layers[0], mesh=mesh, **keep)
        model = fully_shard(net, mesh=mesh, **keep)
        gathered = lambda: full_tensors(model)  # noqa: E731
    elif mode == "tp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

        mesh = init_device_mesh("cpu", (world,))
        model = parallelize_module(net, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
        gathered = lambda: full_tensors(model)  # noqa: E731
    elif mode in ("zero1", "zero2", "zero3"):
        engine = deepspeed_engine(net, int(mode[-1]))
        gathered = lambda: zero3_state(engine) if mode == "zero3" else engine.module.state_dict()  # noqa: E731
        return engine, engine, gathered
    else:
        raise SystemExit(f"no mode {mode}")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    return model, optimizer, gathered


def dump(model, path):
    pieces = []
    for p in _collect.collect(model):
        tensor = p.find() if p.alias is None else None
        pieces.append(
            {
                "name": p.name,
                "shape": tuple(p.shape),
                "local": p.local,
                "first": p.first,
                "flat": p.flat,
                "replica": p.replica,
                "replicas": p.replicas,
                "trainable": p.trainable,
                "buffer": p.buffer,
                "alias": p.alias,
                "data": None if tensor is None else tensor.detach().clone(),
            }
        )
    torch.save(pieces, path)


def collect_mode(mode, out):
    rank, world = dist.get_rank(), dist.get_world_size()
    os.makedirs(out, exist_ok=True)
    model, optimizer, gathered = sharded(mode, rank, world)
    for _ in range(2):
        step(model, optimizer, rank, mode)
    if mode == "fsdp2_kept":
        with torch.no_grad():
            model(torch.arange(4))  # leaves gathered parameters in place
    dump(model, f"{out}/rank{rank}.pt")
    state = gathered()
    if rank == 0:
        torch.save({k: v.detach().clone() for k, v in state.items()}, f"{out}/full.pt")
        with open(f"{out}/framework", "w") as file:
            file.write(_collect.framework_of(model))
    dist.barrier()


def main(modes, out):
    dist.init_process_group("gloo")
    for mode in modes.split(","):
        collect_mode(mode, f"{out}/{mode}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
