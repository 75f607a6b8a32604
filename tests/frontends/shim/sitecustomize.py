# SPDX-License-Identifier: Apache-2.0
"""Lets accelerate train with FSDP and DeepSpeed where there is no GPU.

Left to itself accelerate turns an FSDP setup on CPUs into plain DDP without a word, and counts one
process under DeepSpeed. With this folder on PYTHONPATH and GATHERFS_TEST_CPU_SHIM set, the ranks of
a launch (those have LOCAL_RANK) get both for real, over gloo. Nothing else is changed, so what they
write is what they would write on GPUs. Python imports this file by itself, before any program.
"""

import importlib.machinery
import os
import sys


def patch_state(state):
    kinds = state.DistributedType

    def prepare_backend(self, *args, **kwargs):
        deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
        return "gloo", kinds.MULTI_GPU if deepspeed else kinds.MULTI_CPU

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if kwargs.get("fsdp_plugin") and self.distributed_type == kinds.MULTI_CPU:
            self.fsdp_plugin = kwargs["fsdp_plugin"]
            self.distributed_type = kinds.FSDP
            state.PartialState._shared_state["distributed_type"] = kinds.FSDP

    original = state.AcceleratorState.__init__
    state.AcceleratorState.__init__ = init
    state.PartialState._prepare_backend = prepare_backend


def patch_parallelism(module):
    """Front-ends ask for a mesh of "cuda" devices by name."""
    config = module.ParallelismConfig
    original = config.build_device_mesh
    config.build_device_mesh = lambda self, device: original(self, "cpu")


class Patcher:
    """Finds modules as Python would, and patches some of them once they have run."""

    patches = {
        "accelerate.state": patch_state,
        "accelerate.parallelism_config": patch_parallelism,
    }

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in cls.patches:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            cls.patches[name](module)

        spec.loader.exec_module = exec_module
        return spec


if "GATHERFS_TEST_CPU_SHIM" in os.environ and "LOCAL_RANK" in os.environ:
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"  # FSDP1 would find that cpu is not cpu:0
    sys.meta_path.insert(0, Patcher)
