# SPDX-License-Identifier: Apache-2.0
"""Starting a training script as its users do: alone, by torchrun, or by `accelerate launch`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

from environments import variables

HERE = os.path.dirname(os.path.abspath(__file__))
RANKS = 2

FSDP = {
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
    "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    "fsdp_cpu_ram_efficient_loading": False,
    "fsdp_offload_params": False,
}
FSDP1 = FSDP | {
    "fsdp_version": 1,
    "fsdp_sharding_strategy": "FULL_SHARD",
    "fsdp_use_orig_params": True,
    "fsdp_backward_prefetch": "NO_PREFETCH",
    "fsdp_sync_module_states": False,
}
FSDP2 = FSDP | {"fsdp_version": 2, "fsdp_reshard_after_forward": True}
ZERO3 = {
    "zero_optimization": {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": True,
        "stage3_param_persistence_threshold": 0,
    },
    "zero_allow_untested_optimizer": True,
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
}


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=2)
    return path


def accelerate_config(engine, folder):
    config = {"compute_environment": "LOCAL_MACHINE", "num_processes": RANKS, "debug": False}
    if engine == "zero3":
        config |= {"distributed_type": "DEEPSPEED", "use_cpu": False}
        zero = write_json(os.path.join(folder, "deepspeed.json"), ZERO3)
        config["deepspeed_config"] = {"deepspeed_config_file": zero}
    else:
        config |= {"distributed_type": "FSDP", "use_cpu": True, "mixed_precision": "no"}
        config["fsdp_config"] = {"fsdp1": FSDP1, "fsdp2": FSDP2}[engine]
    return write_json(os.path.join(folder, engine + ".json"), config)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def command(engine, folder):
    """The words in front of the script's name."""
    if engine == "plain":
        return [sys.executable]
    port = free_port()
    if engine == "ddp":
        run = [sys.executable, "-m", "torch.distributed.run", "--master-port", port]
        return run + ["--nproc-per-node", str(RANKS)]
    run = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", port]
    return run + ["--config_file", accelerate_config(engine, folder)]


class Background:
    """A program in the background, and all of its processes gone at the end of the `with`."""

    def __init__(self, command, folder, name, env):
        os.makedirs(folder, exist_ok=True)
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=env,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    @property
    def running(self):
        return self.process.poll() is None

    def output(self):
        with open(self.log, errors="replace") as f:
            return "".join(f.readlines()[-60:])

    def finish(self, timeout=300):
        deadline = time.monotonic() + timeout
        while self.running:
            assert time.monotonic() < deadline, f"still training\n{self.output()}"
            time.sleep(0.1)
        assert self.process.returncode == 0, self.output()


class Training(Background):
    """A script of this folder, in the tests' own environment."""

    def __init__(self, engine, folder, script, *args):
        os.makedirs(folder, exist_ok=True)
        words = command(engine, folder) + [os.path.join(HERE, script), *args]
        super().__init__(words, folder, engine, variables("main", GATHERFS_TEST_CPU_SHIM="1"))
