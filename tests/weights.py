# SPDX-License-Identifier: Apache-2.0
"""Weights of a model directory, and comparing them bit for bit."""

import hashlib
import json
import os


def load_directory(folder):
    """All tensors of a directory of safetensors, sharded or not."""
    from safetensors.torch import load_file

    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return load_file(os.path.join(folder, "model.safetensors"))
    with open(index) as f:
        files = set(json.load(f)["weight_map"].values())
    return {k: v for file in files for k, v in load_file(os.path.join(folder, file)).items()}


def bits(tensor):
    """The bytes of a tensor: NaNs count as equal when, and only when, their bits are."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8)


def differences(found, wanted):
    """One line for each tensor that isn't the same in name, type, shape and bits."""
    import torch

    lines = [f"{name}: missing" for name in wanted if name not in found]
    lines += [f"{name}: surplus" for name in found if name not in wanted]
    for name in set(found) & set(wanted):
        f, w = found[name], wanted[name]
        if (f.dtype, f.shape) != (w.dtype, w.shape):
            lines.append(f"{name}: {f.dtype} {list(f.shape)}, wanted {w.dtype} {list(w.shape)}")
        elif not torch.equal(bits(f), bits(w)):
            lines.append(f"{name}: {(bits(f) != bits(w)).sum()} of {bits(f).numel()} bytes differ")
    return sorted(lines)


def assert_same(found, wanted):
    lines = differences(found, wanted)
    assert not lines, "\n".join(lines[:20])


def cast(tensors, dtype):
    """What --dtype does: floating-point tensors change type, the others stay."""
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def file_sums(folder):
    return {name: sha256(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
