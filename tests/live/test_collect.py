# SPDX-License-Identifier: Apache-2.0
"""gatherfs._collect against what each framework gathers itself: names, order, every element.

Two steps of training, then the pieces of all ranks (first replicas) must cover each tensor
exactly once and be equal to the gathered state dict, bit for bit."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

HERE = Path(__file__).parent
ZERO = ["zero1", "zero2", "zero3"] if importlib.util.find_spec("deepspeed") else []
# Starting processes takes longer than the rest: those of a world share them.
MODES = {2: ["ddp", "fsdp1", "fsdp1_flat", "fsdp1_ignored", "fsdp2", "fsdp2_kept", "tp", *ZERO], 4: ["hsdp"]}
NAMES = {"zero1": "zero", "zero2": "zero", "tp": "fsdp2", "hsdp": "fsdp2"}


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """collected(world) -> the folder of that world's modes"""
    out = tmp_path_factory.mktemp("collected")
    started = set()

    def run(world):
        if world not in started:
            started.add(world)
            env = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
            command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(world)]
            command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
            command += [str(HERE / "collect_ranks.py"), ",".join(MODES[world]), str(out)]
            with open(out / f"{world}.log", "w") as log:
                subprocess.run(command, env=env, stdout=log, stderr=log, timeout=240)
        return out

    return run


def put(piece, whole, seen):
    if piece["flat"] is not None:
        first, count = piece["flat"]
        whole.view(-1)[first : first + count] = piece["data"]
        seen.view(-1)[first : first + count] += 1
        return
    local = piece["local"] if piece["local"] is not None else piece["shape"]
    first = piece["first"] if piece["first"] is not None else [0] * len(local)
    box = tuple(slice(f, f + n) for f, n in zip(first, local))
    whole[box] = piece["data"]
    seen[box] += 1


def load(out, world, mode):
    if not (out / mode / "framework").exists():
        pytest.fail((out / f"{world}.log").read_text()[-3000:])
    return [torch.load(out / mode / f"rank{r}.pt") for r in range(world)]


@pytest.mark.parametrize("world,mode", [(w, m) for w, modes in MODES.items() for m in modes])
def test_pieces_are_the_gathered_state(world, mode, collected):
    out = collected(world)
    ranks = load(out, world, mode)
    full = torch.load(out / mode / "full.pt")
    assert (out / mode / "framework").read_text() == NAMES.get(mode, mode.partition("_")[0])

    assert [p["name"] for p in ranks[0]] == list(full)
    whole = {}
    for piece in (p for pieces in ranks for p in pieces):
        if piece["alias"] is None and piece["replica"] == 0:
            empty = torch.empty(piece["shape"], dtype=piece["data"].dtype)
            put(piece, *whole.setdefault(piece["name"], (empty, torch.zeros(piece["shape"], dtype=torch.int))))
    alias = {p["name"]: p["alias"] for p in ranks[0]}
    for name, want in full.items():
        got, seen = whole[alias[name] or name]
        assert (seen == 1).all(), name
        assert torch.equal(got, want), name


def test_replicas_are_numbered_once_each(collected):
    ranks = load(collected(4), 4, "hsdp")
    assert [r[2]["replica"] for r in ranks] == [0, 0, 1, 1]
    assert {p["replicas"] for r in ranks for p in r if not p["buffer"] and not p["alias"]} == {2}
