# SPDX-License-Identifier: Apache-2.0
"""The generated checkpoints that the Python tests read. Two variables say where things are:

GATHERFS        the binary under test
GATHERFS_CASES  the directory that formats/make_deepspeed.py has filled
"""

import json
import os

import offline  # noqa: F401
import pytest


def from_environment(name):
    if name not in os.environ:
        raise pytest.UsageError(f"set {name} (see tests/cases.py)")
    return os.path.abspath(os.environ[name])


class CaseDir:
    """One checkpoint and what it must resolve to."""

    def __init__(self, root, name):
        self.name = name
        self.folder = os.path.join(root, name)
        with open(self.expected_path("case.json")) as f:
            self.facts = json.load(f)
        self.source = os.path.join(self.folder, self.facts["source"])

    def expected_path(self, *parts):
        return os.path.join(self.folder, "expected", *parts)

    def expected(self, name):
        """The tensors of expected/NAME.safetensors; none if there is no such file."""
        from safetensors.torch import load_file

        path = self.expected_path(name + ".safetensors")
        return load_file(path) if os.path.exists(path) else {}

    @property
    def tag_folder(self):
        with open(os.path.join(self.source, "latest")) as f:
            return os.path.join(self.source, f.read().strip())
