# SPDX-License-Identifier: Apache-2.0
"""Which tensors this rank holds of a model, without any communication.

Each way of sharding keeps its local part at an address that lives as long as the model:

    plain, DDP, ZeRO-1/2   the parameter itself, equal on all data-parallel ranks
    FSDP1                  runs of flat_param._local_shard (_shard_param_infos)
    FSDP2, HSDP, TP        DTensor._local_tensor, a box of the global tensor
    ZeRO-3                 p.ds_tensor, a run of the flattened parameter

A piece carries a function that finds the local tensor again: frameworks move storage now and
then, and the publisher compares addresses while somebody reads.
"""

import gc
import re
import sys
from dataclasses import dataclass
from typing import Callable, Optional, Sequence

import torch
import torch.distributed as dist

WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")


class Refused(ValueError):
    """A tensor whose bytes cannot be published, by name."""


@dataclass
class Piece:
    name: str
    shape: Sequence[int]
    hold: Callable[[], torch.Tensor]  # the tensor that holds it, as it is now
    part: Optional[tuple] = None  # (offset, count) of the flattened `hold()`; None: all of it
    local: Optional[Sequence[int]] = None  # size of this rank's box; None: all of it
    first: Optional[Sequence[int]] = None
    flat: Optional[tuple] = None  # (offset, count) of the flattened global tensor
    replica: int = 0
    replicas: int = 1
    trainable: bool = True
    buffer: bool = False
    alias: Optional[str] = None  # shares the piece of this name (tied weights)

    def find(self):
        """The local tensor, where it is now."""
        tensor = self.hold()
        if self.part is not None:
            tensor = tensor.view(-1)[self.part[0] : sum(self.part)]
        return tensor


def clean(name):
    """A name without the wrappers of training frameworks."""
    name = WRAPPERS.sub("", name)
    while name.startswith("module."):
        name = name[len("module.") :]
    return name


def is_engine(model):
    """Asks the class: wrappers hand the questions that they cannot answer to what they wrap."""
    return hasattr(type(model), "zero_optimization_stage") and hasattr(type(model), "was_step_applied")


def _next_inner(module, keys):
    for key in keys:
        if key in getattr(module, "_modules", {}):
            return module._modules[key]
    return None


def unwrap(model):
    """The user's module in an engine, DDP, or torch.compile, and what it was wrapped in."""
    wrappers = []
    while True:
        inner = _next_inner(model, ["_orig_mod"])
        names = {c.__name__ for c in type(model).__mro__}
        if is_engine(model) or names & {"DistributedDataParallel", "DataParallel"}:
            inner = model.module
        if inner is None:
            return model, wrappers
        wrappers.append(model)
        model = inner


def inner_model(module):
    """The model with its config: inside FSDP1's wrapper, where there is one."""
    while True:
        inner = _next_inner(module, ["_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"])
        if inner is None and not hasattr(module, "config"):
            inner = _next_inner(module, ["module", "pretrained_model"])
        if inner is None:
            return module
        module = inner


def outermost(model):
    """The DeepSpeed engine or the FSDP1 wrapper around `model`, or `model`. Trainers hand the
    inner module to their callbacks; what wraps it is known to its owner only."""
    kinds, module = (), unwrap(model)[0]
    if is_engine(model):
        return model
    if "deepspeed.runtime.engine" in sys.modules:
        from deepspeed.runtime.engine import DeepSpeedEngine

        kinds += (DeepSpeedEngine,)
    if vars(module).get("_is_fsdp_managed_module") and not _is_fsdp1(module) and not _has_fsdp2(module):
        from torch.distributed.fsdp import FullyShardedDataParallel

        kinds += (FullyShardedDataParallel,)
    if kinds:
        for candidate in gc.get_objects():
            # Not isinstance(), which asks proxies for the class of what may be gone.
            if issubclass(type(candidate), kinds) and candidate.module is module:
                return candidate
    return model


def framework_of(model):
    """What shards the model: 'zero3', 'fsdp1', 'fsdp2' (any DTensor), 'ddp', 'zero' or 'plain'."""
    module, wrappers = unwrap(model)
    if any(hasattr(p, "ds_tensor") for p in module.parameters()):
        return "zero3"
    if any(_is_fsdp1(m) for m in module.modules()):
        return "fsdp1"
    if any(_is_dtensor(p) for p in module.parameters()) or _has_fsdp2(module):
        return "fsdp2"
    if any(is_engine(w) for w in wrappers):
        return "zero"
    if any(type(w).__name__ == "DistributedDataParallel" for w in wrappers):
        return "ddp"
    return "plain"


def _is_fsdp1(module):
    from torch.distributed.fsdp import FullyShardedDataParallel

    return isinstance(module, FullyShardedDataParallel)


def _has_fsdp2(module):
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(m, FSDPModule) for m in module.modules())


def _is_dtensor(tensor):
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _world():
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank():
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _copies(group_ranks):
    """(which, of how many) copies of a tensor sharded over these global ranks this one is in.

    Groups that hold copies are blocks of neighbours, or interleaved: nothing else is made by
    the frameworks."""
    n = max(_world() // max(len(group_ranks), 1), 1)
    neighbours = len(group_ranks) < 2 or group_ranks[1] - group_ranks[0] == 1
    which = min(group_ranks) // len(group_ranks) if neighbours else min(group_ranks)
    return which % n, n


def _whole(name, hold, tensor, **more):
    """What no framework shards: equal on all ranks, wherever there are several."""
    return Piece(name, tuple(tensor.shape), hold, replica=_rank(), replicas=_world(), **more)


def _neighbours(p):
    """Whether the rows of a dimension that is sharded twice (FSDP2 over TP) lie side by side."""
    from torch.distributed.tensor._utils import _get_shard_size_and_offsets

    offsets, sizes = {}, list(p.shape)
    for dim, placement in enumerate(p.placements):
        d = getattr(placement, "dim", None)
        if d is not None:
            place = p.device_mesh.get_local_rank(dim), placement, offsets.get(d), p.shape[d], False
            sizes[d], offsets[d] = _get_shard_size_and_offsets(sizes[d], p.device_mesh.size(dim), *place)
    return all(int(o[-1] - o[0]) + 1 == len(o) for o in offsets.values())


def _dtensor_piece(name, find, **more):
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    p = find()
    mesh = p.device_mesh
    which, n = _copies(mesh.mesh.flatten().tolist())
    for dim, placement in enumerate(p.placements):
        if isinstance(placement, Replicate):
            which, n = which * mesh.size(dim) + mesh.get_local_rank(dim), n * mesh.size(dim)
        elif type(placement).__name__ == "_StridedShard":
            if not _neighbours(p):
                raise Refused(f"'{name}': placements {p.placements} scatter its rows")
        elif not isinstance(placement, Shard):
            raise Refused(f"'{name}': placement {placement} holds no elements of its own")
    local, first = compute_local_shape_and_global_offset(p.shape, mesh, p.placements)
    tensor = p._local_tensor
    if type(tensor) is not torch.Tensor and type(tensor) is not torch.nn.Parameter:
        raise Refused(f"'{name}': a {type(tensor).__name__}, whose bytes are not the weights")
    if tuple(tensor.shape) != tuple(local):
        raise Refused(
            f"'{name}': local shape {tuple(tensor.shape)}, placements {p.placements} give {tuple(local)}"
        )
    return Piece(
        name,
        tuple(p.shape),
        lambda: find()._local_tensor,
        local=tuple(local),
        first=tuple(first) if all(local) else (0,) * len(local),
        replica=which,
        replicas=n,
        trainable=p.requires_grad,
        **more,
    )


def _zero3_piece(name, p):
    shard = p.ds_tensor
    place = getattr(shard, "final_location", None)
    if str(place).lower().endswith("nvme") and "not" not in str(place).lower():
        raise Refused(f"'{name}': its ZeRO-3 partition is on NVMe, not in memory")
    if hasattr(p, "ds_quant_scale"):
        raise Refused(f"'{name}': quantized by ZeRO-3")
    group = dist.get_process_group_ranks(p.ds_process_group)
    rank = dist.get_rank(p.ds_process_group)
    size, total = shard.ds_numel, p.ds_numel
    first = min(rank * size, total)
    count = min(size, total - first)
    which, n = _copies(group)
    return Piece(
        name,
        tuple(p.ds_shape),
        lambda: p.ds_tensor,
        part=(0, count),
        flat=(first, count),
        replica=which,
        replicas=n,
        trainable=p.requires_grad,
    )


def _joined(*parts):
    return clean(".".join(part for part in parts if part))


def _fsdp1_handle_pieces(path, handle):
    flat = handle.flat_param
    group = dist.get_process_group_ranks(handle.process_group)
    which, n = _copies(group) if handle.uses_sharded_strategy else (_rank(), _world())

    def shard():
        return flat._local_shard if hasattr(flat, "_local_shard") else flat.data

    params = flat._params or [flat] * len(flat._fqns)
    for i, (fqn, shape, info) in enumerate(zip(flat._fqns, flat._shapes, flat._shard_param_infos)):
        name = _joined(path, fqn)
        if not flat._contiguities[i]:
            raise Refused(f"'{name}': flattened by FSDP from a tensor that was not contiguous")
        if flat._param_extensions[i] is not None:
            raise Refused(f"'{name}': FSDP1 over tensor parallelism (FSDP2 can be published)")
        off, count = (info.offset_in_shard, info.numel_in_shard) if info.in_shard else (0, 0)
        yield Piece(
            name,
            tuple(shape),
            shard,
            part=(off, count),
            flat=(info.intra_param_start_idx if info.in_shard else 0, count),
            replica=which,
            replicas=n,
            trainable=params[i].requires_grad,
        )
    for info in flat._shared_param_infos:
        first = _joined(path, info.prim_module_name, info.prim_param_name)
        yield Piece(_joined(path, info.module_name, info.param_name), (), lambda: None, alias=first)


def _fsdp1_pieces(root):
    """Those of all flat parameters, and the parameters that FSDP was told to ignore."""
    flattened = set()
    for path, module in root.named_modules():
        if _is_fsdp1(module) and module._handle is not None:
            flat = module._handle.flat_param
            flattened.update(map(id, [flat, *(flat._params or []), *(flat._shared_params or [])]))
            yield from _fsdp1_handle_pieces(path, module._handle)
    yield from _parameter_pieces(root, {}, flattened)


def _persistent_buffers(module):
    for path, sub in module.named_modules():
        for name, buffer in sub._buffers.items():
            if buffer is not None and name not in sub._non_persistent_buffers_set:
                yield (f"{path}." if path else "") + name, sub, name


def _buffer_pieces(module):
    for full, sub, key in _persistent_buffers(module):
        yield _tensor_piece(clean(full), lambda sub=sub, key=key: sub._buffers[key], buffer=True)


def _fsdp2_params(module):
    """(module, parameter name) -> FSDP2's record of it. FSDP2 puts gathered parameters in their
    place during, and for some modules after, a forward; its shards stay the truth."""
    from torch.distributed.fsdp import FSDPModule

    found = {}
    for sub in module.modules():
        if not isinstance(sub, FSDPModule):
            continue
        state = sub._get_fsdp_state()
        groups = getattr(state, "_fsdp_param_groups", None)  # older: one or None
        for group in groups if groups is not None else filter(None, [state._fsdp_param_group]):
            for param in group.fsdp_params:
                info = param._module_info
                owners = [(info.module, info.param_name)]
                owners += zip(info.shared_modules, info.shared_param_names)
                found.update({(id(m), n): param for m, n in owners})
    return found


def _tensor_piece(name, find, **more):
    """A parameter or a buffer; find() gives it as it is now."""
    p = find()
    if hasattr(p, "ds_tensor"):
        return _zero3_piece(name, p)
    if getattr(p, "_fsdp_flattened", False):
        raise Refused(f"'{name}': sharded by an FSDP wrapper outside of the model given")
    if getattr(p, "allreduce", True) is False or getattr(p, "tensor_model_parallel", False):
        raise Refused(f"'{name}': split by Megatron or DeepSpeed's experts, nothing here says how")
    if _is_dtensor(p):
        return _dtensor_piece(name, find, **more)
    if type(p.data) is not torch.Tensor or hasattr(p, "quant_state"):
        raise Refused(f"'{name}': a {type(p).__name__}, whose bytes are not the weights")
    return _whole(name, lambda: find().data, p, trainable=p.requires_grad, **more)


def _parameter_pieces(module, sharded, apart):
    """Of all parameters but those whose ids are in `apart`. sharded: see _fsdp2_params()."""
    first_name = {}
    for path, sub in module.named_modules(remove_duplicate=False):
        for key, p in sub._parameters.items():
            if p is None or id(p) in apart:
                continue
            name = clean(f"{path}.{key}" if path else key)
            record = sharded.get((id(sub), key))
            first = first_name.setdefault(id(p if record is None else record), name)
            if first != name:
                yield Piece(name, (), lambda: None, alias=first)
            elif record is not None:
                yield _dtensor_piece(name, lambda record=record: record.sharded_param)
            else:
                yield _tensor_piece(name, lambda sub=sub, key=key: sub._parameters[key])


def _in_order(root, pieces):
    """As the state dict has them: module by module, parameters before buffers."""
    modules, keys = {}, {}
    for path, module in root.named_modules(remove_duplicate=False):
        modules.setdefault(clean(path + ".")[:-1] if path else "", len(modules))
        for key in module._parameters:
            keys.setdefault(clean(f"{path}.{key}" if path else key), len(keys))

    def place(piece):
        return modules.get(piece.name.rpartition(".")[0], len(modules)), piece.buffer, keys.get(piece.name, 0)

    return sorted(pieces, key=place)


def collect(model):
    """All pieces of this rank, in the state dict's order. Raises Refused, naming the tensor."""
    root, _ = unwrap(model)
    framework = framework_of(model)
    if framework == "fsdp1":
        parameters = _fsdp1_pieces(root)
    else:
        parameters = _parameter_pieces(root, _fsdp2_params(root) if framework == "fsdp2" else {}, ())
    return _in_order(root, [*parameters, *_buffer_pieces(root)])
