# SPDX-License-Identifier: Apache-2.0
"""What a watched training leaves: its output, and what was in memory at each save."""

import os
from dataclasses import dataclass

from safetensors.torch import load_file


@dataclass
class Trained:
    folder: str  # where it ran
    out: str

    def path(self, *names):
        return os.path.join(self.out, *names)

    def kept(self, name, prefix=""):
        """{name: tensor} of KEPT/<name>.safetensors, of those that begin so, without the prefix."""
        tensors = load_file(os.path.join(self.folder, "kept", name + ".safetensors"))
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def start(folder):
    os.makedirs(os.path.join(folder, "kept"))
    return Trained(folder, os.path.join(folder, "run"))
