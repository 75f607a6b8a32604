# SPDX-License-Identifier: Apache-2.0
"""A ZeRO-3 checkpoint of any size that takes almost no disk. Served as bfloat16."""

import os
from collections import OrderedDict
from itertools import accumulate

import deepspeed
import torch
from deepspeed.runtime.zero.config import ZeroStageEnum
from sparse import Archive, Layout, Shape, Storage, Tensor, fill, pickled

LLAMA_70B = Shape(layers=80, hidden=8192, inter=28672, kv=1024, vocab=128256, ranks=64)
TAG = "global_step1"


def model_state(layout):
    params = zip(layout.names, layout.sizes, strict=True)
    empty = {
        name: Tensor(Storage(torch.BFloat16Storage, i, 0), (0,))
        for i, name in enumerate(layout.names)
    }
    return {
        "module": OrderedDict(empty),
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [OrderedDict((name, torch.Size(size)) for name, size in params)],
        "frozen_param_shapes": OrderedDict(),
        "shared_params": {},
        "frozen_param_fragments": OrderedDict(),
        "global_steps": 1,
        "dp_world_size": layout.shape.ranks,
        "mp_world_size": 1,
        "ds_config": {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True}},
        "ds_version": deepspeed.__version__,
    }


def optim_state(layout, numel):
    state = {
        "zero_stage": ZeroStageEnum(3),
        "partition_count": layout.shape.ranks,
        "fp32_flat_groups": [Tensor(Storage(torch.FloatStorage, 0, numel), (numel,))],
    }
    return {"optimizer_state_dict": state, "ds_config": {}, "ds_version": deepspeed.__version__}


def write_file(path, content, holes):
    """One torch file; returns what is in it."""
    top = os.path.basename(path).rsplit(".", 1)[0]
    archive = Archive(top, content, holes)
    with open(path, "wb") as f:
        archive.write(f)
    return archive


def make_checkpoint(folder, shape):
    """Writes it and returns (layout, windows)."""
    layout = Layout(shape, whole_rows=False)
    numel = sum(layout.shares)  # of a rank: its share of every tensor, in order
    os.makedirs(os.path.join(folder, TAG))
    with open(os.path.join(folder, "latest"), "w") as f:
        f.write(TAG)
    model, optim = pickled(model_state(layout)), pickled(optim_state(layout, numel))
    windows = []
    for rank in range(shape.ranks):
        stem = os.path.join(folder, TAG, f"zero_pp_rank_{rank}_mp_rank_00")
        write_file(stem + "_model_states.pt", model, [0] * len(layout.names))
        path = os.path.join(folder, TAG, f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        (start,) = write_file(path, optim, [4 * numel]).starts
        starts = list(accumulate((4 * share for share in layout.shares), initial=start))
        mine = list(layout.windows(rank, starts))
        with open(path, "r+b") as f:
            fill(f, mine)
        windows += mine
    return layout, windows
