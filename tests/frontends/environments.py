# SPDX-License-Identifier: Apache-2.0
"""Python environments beside the tests' own. Front-ends and readers that want other versions of
their libraries live in environments that tools/test makes; a variable says where each one is."""

import os
import subprocess
import sys

import offline  # noqa: F401
import pytest
from safetensors.torch import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT = os.path.join(HERE, "client.py")
VARIABLES = {
    "clients": "GATHERFS_CLIENTS_VENV",
    "axolotl": "GATHERFS_AXOLOTL_VENV",
    "trlx": "GATHERFS_TRLX_VENV",
    "llamafactory": "GATHERFS_LLAMAFACTORY_VENV",
}
PATH = [os.path.join(HERE, "shim"), HERE, os.path.join(os.path.dirname(HERE), "formats")]


def venv(name):
    """The folder of an environment, or None where there is none."""
    path = os.environ.get(VARIABLES[name], "")
    return path if os.path.exists(os.path.join(path, "bin", "python")) else None


def python(name):
    """The interpreter of an environment; 'main' is the tests' own."""
    if name == "main":
        return sys.executable
    return tool(name, "python")


def tool(name, program):
    if not venv(name):
        pytest.skip(f"there is no {VARIABLES[name]}")
    return os.path.join(venv(name), "bin", program)


def variables(name, **extra):
    """What a process in that environment gets to see: its own programs first, the shim (which
    does nothing unless it is switched on), and the scripts here."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(PATH)}
    if name != "main":
        env["PATH"] = os.path.join(venv(name), "bin") + os.pathsep + env["PATH"]
        # what DeepSpeed compiles names the folders of one environment
        env["TORCH_EXTENSIONS_DIR"] = os.path.join(venv(name), "extensions")
    return env | extra


def run(*args, **options):
    """Runs a program to its end. One that ends with 77 skips the test."""
    result = subprocess.run(
        list(map(str, args)), stdin=subprocess.DEVNULL, capture_output=True, text=True, **options
    )
    if result.returncode == 77:
        pytest.skip(result.stdout.strip())
    assert result.returncode == 0, f"{args}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout


def read(name, what, out, *folders):
    """What a reader of client.py gets in an environment, for each of the model directories."""
    out = os.fspath(out)
    run(python(name), CLIENT, what, out, *folders, env=variables(name))
    return [load_file(os.path.join(out, f"{i}.safetensors")) for i in range(len(folders))]
