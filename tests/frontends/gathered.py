# SPDX-License-Identifier: Apache-2.0
"""The answers of the frameworks themselves: one file from the parts."""

import os

from safetensors.torch import load_file


def merge_fsdp(checkpoint, work):
    """`accelerate merge-weights` on a checkpoint-N of FSDP. The names are the model's: accelerate
    saves {"model": state} under a key of that name, and takes one of the two off again."""
    from accelerate.utils import merge_fsdp_weights

    merge_fsdp_weights(os.path.join(checkpoint, "pytorch_model_fsdp_0"), work)
    return load_file(os.path.join(work, "model.safetensors"))


def load_fsdp(checkpoint, work):
    """torch's own dcp_to_torch_save."""
    import torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    path = os.path.join(work, "gathered.pt")
    dcp_to_torch_save(os.path.join(checkpoint, "pytorch_model_fsdp_0"), path)
    return torch.load(path)["model"]


def trainer_saved(checkpoint, work=None):
    """What the trainer has gathered itself, beside the shards."""
    return load_file(os.path.join(checkpoint, "model.safetensors"))
