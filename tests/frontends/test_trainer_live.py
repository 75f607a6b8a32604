# SPDX-License-Identifier: Apache-2.0
"""A run mounted while it trains: a real Trainer on two processes, which saves, evaluates, keeps the
best and deletes the oldest, with somebody reading all the time."""

import hashlib
import json
import os
import re
import threading
import time

import pytest
from launch import Training
from safetensors.torch import load_file
from train_watched import STEPS
from weights import differences, file_sums, sha256

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")

LIMIT = 2.0  # seconds from a checkpoint's last file to its directory in the mount
TICK = 0.05


def checkpoints(folder):
    return {name for name in os.listdir(folder) if re.fullmatch(r"checkpoint-\d+", name)}


class Watcher(threading.Thread):
    """Looks at the mount all the time, and writes down what a reader would see."""

    def __init__(self, run, point):
        super().__init__()
        self.run_dir, self.point = run, point
        self.seen_at = {}  # name -> when it was listed first
        self.finished_at = {}  # name -> when its trainer_state.json was written
        self.unfinished = set()  # listed too early
        self.half_done = set()  # were there in the run, not finished yet: the watch is worth it
        self.held = {}  # name -> open file, of which the first bytes are read
        self.links = []  # where `latest` pointed to
        self.failure = None
        self.ended = threading.Event()

    def look(self):
        for name in checkpoints(self.run_dir):
            try:
                state = os.stat(os.path.join(self.run_dir, name, "trainer_state.json"))
                self.finished_at.setdefault(name, state.st_mtime)
            except FileNotFoundError:
                self.half_done.add(name)
        for name in checkpoints(self.point) - set(self.seen_at):
            self.seen_at[name] = time.time()
            state = os.path.join(self.run_dir, name, "trainer_state.json")
            if not os.path.exists(state):
                self.unfinished.add(name)
            self.held[name] = open(os.path.join(self.point, name, "model.safetensors"), "rb")
            self.held[name].read(64)
        latest = os.readlink(os.path.join(self.point, "latest"))
        if latest not in self.links[-1:]:
            self.links.append(latest)

    def run(self):
        try:
            while not self.ended.is_set():
                self.look()
                time.sleep(TICK)
            self.look()
        except BaseException as e:
            self.failure = e

    def stop(self):
        self.ended.set()
        self.join()
        if self.failure:
            raise self.failure

    def close(self):
        self.ended.set()
        for file in self.held.values():
            file.close()


def load_again_and_again(folder, training):
    """[state] of from_pretrained, until the training ends"""
    from transformers import AutoModelForCausalLM

    states = []
    while training.running:
        model = AutoModelForCausalLM.from_pretrained(folder)
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        time.sleep(0.3)
    return states


class Record:
    """One watched training, from its first checkpoint to its end."""


@pytest.fixture(scope="module", params=["ddp", "zero3"])
def record(request, gatherfs, tmp_path_factory, base, rows):
    folder = str(tmp_path_factory.mktemp("live"))
    run, kept, point = (os.path.join(folder, name) for name in ("run", "kept", "mnt"))
    for new in (kept, point):
        os.mkdir(new)
    args = (base, rows, run, kept)
    watcher = Watcher(run, point)
    try:
        with Training(request.param, folder, "train_watched.py", *args) as training:
            first = os.path.join(run, "checkpoint-1", "trainer_state.json")
            while training.running and not os.path.exists(first):
                time.sleep(TICK)
            assert training.running, training.output()
            gatherfs.mount(run, point).ok()
            watcher.start()
            result = Record()
            result.loaded = load_again_and_again(os.path.join(point, "latest"), training)
            training.finish()
        time.sleep(LIMIT)
        watcher.stop()
        result.engine, result.run, result.kept, result.point = request.param, run, kept, point
        result.watcher = watcher
        yield result
    finally:
        watcher.close()
        gatherfs.unmount(point)


def kept(record):
    """{checkpoint: its weights}, of all that were ever there"""
    return {
        name.removesuffix(".safetensors"): load_file(os.path.join(record.kept, name))
        for name in os.listdir(record.kept)
    }


def test_the_engine_was_at_work(record):
    last = os.listdir(os.path.join(record.run, f"checkpoint-{STEPS}"))
    assert "rng_state_1.pth" in last
    assert (f"global_step{STEPS}" in last) == (record.engine == "zero3")


def test_new_checkpoints_appear_in_time(record):
    late = {
        name: record.watcher.seen_at[name] - finished
        for name, finished in record.watcher.finished_at.items()
        if name != "checkpoint-1"  # was there before the mount
    }
    assert len(late) == STEPS - 1
    assert all(delay <= LIMIT + 2 * TICK for delay in late.values()), late


def test_unfinished_checkpoints_are_never_seen(record):
    assert len(record.watcher.half_done) >= STEPS - 2, "the watcher caught none half done"
    assert not record.watcher.unfinished


def test_latest_moved_forward_only(record):
    numbers = [int(name.rpartition("-")[2]) for name in record.watcher.links]
    assert numbers == sorted(numbers)
    assert numbers[-1] == STEPS
    assert len(numbers) >= STEPS - 1


def test_latest_and_best_at_the_end(record):
    assert os.readlink(os.path.join(record.point, "latest")) == f"checkpoint-{STEPS}"
    with open(os.path.join(record.run, f"checkpoint-{STEPS}", "trainer_state.json")) as f:
        best = os.path.basename(json.load(f)["best_model_checkpoint"])
    assert best != f"checkpoint-{STEPS}", "the test means to tell them apart"
    assert os.readlink(os.path.join(record.point, "best")) == best


def test_models_loaded_during_the_training_are_one_step_each(record):
    """Each of them equals one checkpoint, weight by weight, and they go forward."""
    wanted = kept(record)
    assert len(wanted) == STEPS
    order = []
    for state in record.loaded:
        same = [name for name, weights in wanted.items() if not differences(state, weights)]
        assert len(same) == 1, f"a model that is no checkpoint, after {order}"
        order += same
    assert order == sorted(order)
    assert len(set(order)) >= 3, order


def test_readers_keep_what_the_rotation_took(record):
    """The file was opened when its checkpoint appeared and is read to its end only now."""
    gone = set(record.watcher.held) - checkpoints(record.run)
    assert len(gone) >= 2, "the rotation took nothing"
    for name, file in record.watcher.held.items():
        file.seek(0)
        found = hashlib.sha256(file.read()).hexdigest()
        assert found == sha256(os.path.join(record.kept, name + ".safetensors")), name


def test_the_mount_shows_what_is_left(record):
    assert checkpoints(record.point) == checkpoints(record.run)
    for name in checkpoints(record.run):
        found = file_sums(os.path.join(record.point, name))
        own = file_sums_of_files(os.path.join(record.run, name))
        for file in ("model.safetensors", "config.json", "tokenizer.json"):
            assert found[file] == own[file], (name, file)


def file_sums_of_files(folder):
    paths = {name: os.path.join(folder, name) for name in os.listdir(folder)}
    return {name: sha256(path) for name, path in paths.items() if os.path.isfile(path)}
