# SPDX-License-Identifier: Apache-2.0
"""Damage to what the files say: well-formed objects with impossible, hostile or unsupported values.

The objects go through torch.load and torch.save, so the containers are as torch writes them.
"""

import os
from collections import OrderedDict

import torch
from break_files import ranks_in


def edit(path, change):
    """Loads a file, lets change(object) work on it or return another, and saves it."""
    obj = torch.load(path, weights_only=False)
    new = change(obj)
    torch.save(obj if new is None else new, path)


def replace_by(path, obj):
    edit(path, lambda old: obj)


def drop_key(path, key):
    edit(path, lambda obj: obj.pop(key) and None)


# ---------------------------------------------------------------- tensors that can't be


class Tensor:
    """Pickles as a tensor with any geometry, which torch itself would never make."""

    def __init__(self, storage, offset, size, stride):
        self.args = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.args


def geometry(tensor, offset=0, size=None, stride=None):
    size = tuple(tensor.shape) if size is None else size
    stride = tuple(tensor.stride()) if stride is None else stride
    return Tensor(tensor._typed_storage(), offset, size, stride)


TENSORS = {
    "offset_negative": lambda t: geometry(t, offset=-1),
    "offset_huge": lambda t: geometry(t, offset=2**62),
    "offset_past_the_end": lambda t: geometry(t, offset=t.untyped_storage().nbytes()),
    "size_negative": lambda t: geometry(t, size=(-4,) + tuple(t.shape[1:])),
    "size_overflows": lambda t: geometry(t, size=(2**33, 2**33), stride=(2**33, 1)),
    "size_too_big": lambda t: geometry(t, size=(10**7,) + tuple(t.shape[1:])),
    "size_of_too_many_dims": lambda t: geometry(t, size=(1,) * 5000, stride=(1,) * 5000),
    "stride_negative": lambda t: geometry(t, stride=(-1,) * t.dim()),
    "stride_huge": lambda t: geometry(t, stride=(2**61,) * t.dim()),
    "stride_missing": lambda t: geometry(t, stride=()),
    "size_not_numbers": lambda t: geometry(t, size=("a",) * t.dim()),
    "other_dtype": lambda t: torch.zeros(t.shape, dtype=torch.int64),
    "complex": lambda t: torch.zeros(t.shape, dtype=torch.complex128),
    "sparse": lambda t: torch.eye(3).to_sparse(),
    "other_shape": lambda t: torch.zeros(tuple(t.shape[:-1]) + (t.shape[-1] + 1,), dtype=t.dtype),
    "placeholder": lambda t: torch.zeros(0, dtype=t.dtype),
    "number": lambda t: 7,
    "none": lambda t: None,
}

WEIGHT = "model.layers.1.mlp.down_proj.weight"


def edit_module(path, change):
    def apply(obj):
        obj["module"][WEIGHT] = change(obj["module"][WEIGHT])

    edit(path, apply)


def edit_flat(path, change):
    def apply(obj):
        groups = obj["optimizer_state_dict"]["fp32_flat_groups"]
        groups[0] = change(groups[0].detach().clone())

    edit(path, apply)


def edit_fragment(path, change):
    def apply(obj):
        fragments = obj["frozen_param_fragments"]
        name = list(fragments)[1]
        fragments[name] = change(fragments[name])

    edit(path, apply)


def set_flat(path, value):
    def apply(obj):
        obj["optimizer_state_dict"]["fp32_flat_groups"] = value

    edit(path, apply)


# ---------------------------------------------------------------- shapes and names


def laughs(levels=60):
    value = (2,)
    for _ in range(levels):
        value = (value, value)
    return value


def loop():
    value = []
    value.append(value)
    return value


SHAPES = {
    "one_row_more": lambda shapes: shapes.update({WEIGHT: torch.Size((21, 33))}),
    "negative": lambda shapes: shapes.update({WEIGHT: (-20, 33)}),
    "overflows": lambda shapes: shapes.update({WEIGHT: (2**40, 2**40)}),
    "huge": lambda shapes: shapes.update({WEIGHT: (2**31, 2**31)}),
    "laughs": lambda shapes: shapes.update({WEIGHT: laughs()}),
    "loop": lambda shapes: shapes.update({WEIGHT: loop()}),
    "text": lambda shapes: shapes.update({WEIGHT: "20x33"}),
    "gone": lambda shapes: shapes.pop(WEIGHT) and None,
    "surplus": lambda shapes: shapes.update({"model.extra.weight": torch.Size((3, 3))}),
}


def edit_shapes(change):
    """In every rank's model file: what one says, all say."""

    def apply(root, tag):
        for _, path in ranks_in(tag, ["model_states"]):
            edit(path, lambda obj: change(obj["param_shapes"][0]))

    return apply


NAMES = {
    "number": 7,
    "tuple": ("a", "b"),
    "empty": "",
    "with_zero": "model.\0.weight",
    "with_quotes": 'model."\\\n\x01.weight',
    "not_ascii": "model.größe.☃.weight",
    "surrogate": "model.\ud800.weight",
    "very_long": "a" * 5_000_000,
}

# What isn't plainly damage: exit codes that are fine (else 1)
CODES = {
    "empty": (0, 1),
    "with_zero": (0, 1),
    "with_quotes": (0,),
    "not_ascii": (0,),
    "other_dtype": (1, 2),
    "complex": (2,),  # kinds of tensors that aren't supported
    "sparse": (2,),
}


def rename(path, new):
    """WEIGHT gets another name, in all places."""

    def apply(obj):
        for names in (obj["module"], *obj["param_shapes"]):
            items = [(new if k == WEIGHT else k, v) for k, v in names.items()]
            names.clear()
            names.update(items)

    edit(path, apply)


def edit_state(path, change):
    edit(path, lambda obj: change(obj["module"]))


def put_module_into_itself(module):
    module[WEIGHT] = module


def add_many_names(module):
    module.update({f"w{i}": module[WEIGHT] for i in range(100_000)})


# ---------------------------------------------------------------- the world


def set_world(world, ranks):
    def apply(root, tag):
        for rank, path in ranks_in(tag, ["optim_states"]):
            if rank in ranks:
                edit(path, set_partition_count)

    def set_partition_count(obj):
        state = obj["optimizer_state_dict"]
        old = state["partition_count"]
        state["partition_count"] = [world] * len(old) if isinstance(old, list) else world

    return apply


# ---------------------------------------------------------------- what can't be served


def leave_on_nvme(root, tag):
    """With offload to NVMe the flat groups stay in swap files; the checkpoint has placeholders."""
    for rank, path in ranks_in(tag, ["optim_states"]):
        set_flat(path, [torch.empty(0)])
        swap = os.path.join(tag, "offloaded_tensors", f"rank{rank:02}")
        os.makedirs(swap)
        with open(os.path.join(swap, "0_param.tensor.swp"), "wb") as f:
            f.write(bytes(4096))


def quantize_fragments(root, tag):
    """zero_quantized_nontrainable_weights keeps frozen weights as bytes."""

    def apply(obj):
        for name, t in obj["frozen_param_fragments"].items():
            obj["frozen_param_fragments"][name] = t.to(torch.int8)

    for _, path in ranks_in(tag, ["model_states"]):
        edit(path, apply)


# ---------------------------------------------------------------- code


class Hostile:
    """Unpickling it with Python would create a file."""

    def __init__(self, path):
        tag = os.path.dirname(path)
        self.command = f"touch {os.path.join(os.path.dirname(tag), 'executed')}"

    def __reduce__(self):
        return os.system, (self.command,)


def add_hostile_client_state(path):
    def apply(obj):
        obj["args"] = Hostile(path)
        obj["more"] = {"nested": [Hostile(path)], Hostile(path): 1}

    edit(path, apply)


def put_hostile_weight(path):
    def apply(obj):
        obj["module"][WEIGHT] = Hostile(path)

    edit(path, apply)


def put_hostile_flat(path):
    set_flat(path, [Hostile(path)])


def put_hostile_shapes(path):
    def apply(obj):
        obj["param_shapes"] = [Hostile(path)]

    edit(path, apply)


def put_hostile_root(path):
    replace_by(path, Hostile(path))
