# SPDX-License-Identifier: Apache-2.0
"""Run directories: which checkpoints are shown and why, their links, config and bytes."""

import hashlib
import json
import mmap
import os
import shutil
import subprocess
import sys
import time

import pytest
from cases import from_environment
from weights import assert_same, load_directory, sha256

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLE_SHA256 = "1d5736a8eddaade32bd077112770f99dabbf0c88eb2e4cfede1a87d148deb0e3"

# The checkpoints of each run (format, step), what is hidden (words of the reason), the links.
RUNS = {
    "trainer/run": (
        {f"checkpoint-{n}": ("safetensors", n) for n in (2, 4, 6)},
        {"checkpoint-8": "no 'trainer_state.json' yet"},
        {"latest": "checkpoint-6", "best": "checkpoint-4"},
    ),
    "trainer/final": (
        {f"checkpoint-{n}": ("safetensors", n) for n in (2, 4, 6)},
        {"checkpoint-8": "no 'trainer_state.json' yet"},
        {"latest": "checkpoint-6", "best": "checkpoint-4"},
    ),
    "trainer_fsdp/run": (
        {f"checkpoint-{n}": ("dcp", n) for n in (1, 2)},
        {"checkpoint-3": "no 'trainer_state.json' yet"},
        {"latest": "checkpoint-2"},
    ),
    "trainer_deepspeed/run": (
        {f"checkpoint-{n}": ("deepspeed", n) for n in (1, 2)},
        {},
        {"latest": "checkpoint-2"},
    ),
    "axolotl/run": (
        {f"checkpoint-{n}": ("safetensors", n) for n in (10, 20)},
        {},
        {"latest": "checkpoint-20"},
    ),
    "axolotl_lora/run": (
        {f"checkpoint-{n}": ("safetensors", n) for n in (10, 20)},
        {},
        {"latest": "checkpoint-20"},
    ),
    "llama_factory/run": (
        {f"checkpoint-{n}": ("safetensors", n) for n in (10, 20)},
        {},
        {"latest": "checkpoint-20"},
    ),
    "accelerate/run": (
        {f"checkpoints/checkpoint_{n}": ("safetensors", n) for n in range(3)},
        {},
        {"latest": "checkpoints/checkpoint_2"},
    ),
    "accelerate_fsdp/run": (
        {
            f"checkpoints/checkpoint_{n}{second}": ("dcp", n)
            for n in range(2)
            for second in ("", "/pytorch_model_fsdp_1")
        },
        {},
        {"latest": "checkpoints/checkpoint_1"},
    ),
    "accelerate_fsdp/full": ({"checkpoint_1": ("torch", 1)}, {}, {"latest": "checkpoint_1"}),
    "accelerate_fsdp/zero": ({"checkpoint_1": ("deepspeed", 1)}, {}, {"latest": "checkpoint_1"}),
    "trlx/run": (
        {
            "best_checkpoint": ("torch", None),
            "checkpoint_02": ("torch", 2),
            "checkpoint_10": ("torch", 10),
        },
        {"checkpoint_12": "no 'random_states_0.pkl' yet"},
        {"latest": "checkpoint_10", "best": "best_checkpoint"},
    ),
    "open_instruct/run": (
        {"step_5": ("torch", 5), "step_10": ("torch", 10)},
        {"step_15": "no 'COMPLETED'"},
        {"latest": "step_10"},
    ),
    "open_instruct/out_checkpoints": (
        {"step_1": ("safetensors", 1)},
        {"step_2": "no 'COMPLETED' or '.checkpoint_complete'"},
        {"latest": "step_1"},
    ),
    "open_instruct/states": (
        {"global_step5": ("deepspeed", 5), "ref_policy": ("torch", None)},
        {},
        {},
    ),
    "torchtitan/dump": (
        {"checkpoint/step-5": ("dcp", 5), "checkpoint/step-10": ("dcp", 10)},
        {"checkpoint/step-15": ".metadata"},
        {"latest": "checkpoint/step-10"},
    ),
    "lightning/run": (
        {
            f"lightning_logs/version_0/checkpoints/epoch=0-step={n}": ("torch", n)
            for n in (10, 20)
        },
        {},
        {"latest": "lightning_logs/version_0/checkpoints/epoch=0-step=20"},
    ),
    "verl/run": (
        {
            f"global_step_{n}/{part}": ("torch-ranks", n)
            for n in (4, 8)
            for part in ("actor", "critic")
        },
        {},
        {"latest": "global_step_8"},
    ),
    "openrlhf/ckpt": (
        {
            "_actor": ("deepspeed", None),
            "_critic": ("deepspeed", None),
            "_actor/global_step5": ("deepspeed", 5),
            "_critic/global_step5": ("deepspeed", 5),
        },
        {},
        {},
    ),
}

# The newest checkpoint of runs that have one, and which model it is: see make_runs.model
NEWEST = {
    "trainer/run": ("checkpoint-6", 6),
    "trainer/final": ("", 100),
    "trainer_fsdp/run": ("checkpoint-2", 2),
    "axolotl/run": ("checkpoint-20", 20),
    "llama_factory/run": ("", 100),
    "accelerate/run": ("checkpoints/checkpoint_2", 2),
    "accelerate_fsdp/run": ("checkpoints/checkpoint_1", 1),
    "accelerate_fsdp/full": ("checkpoint_1", 1),
    "trlx/run": ("checkpoint_10", 10),
    "open_instruct/run": ("step_10", 10),
    "torchtitan/dump": ("checkpoint/step-10", 10),
}


@pytest.fixture(scope="session")
def runs():
    """runs(name) -> its directory; made at the first use."""
    root = os.path.join(from_environment("GATHERFS_CASES"), "runs")
    make = [sys.executable, os.path.join(HERE, "make_runs.py"), "--out", root]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    return lambda name: os.path.join(root, name)


def inspect(gatherfs, source, *options):
    return json.loads(gatherfs.run("inspect", "--json", source, *options).ok().text)


@pytest.fixture
def mounted(gatherfs, tmp_path):
    """mounted(source, options...) -> the mountpoint"""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse")
    point = tmp_path / "mnt"
    point.mkdir()

    def run(source, *options):
        gatherfs.mount(source, point, *options).ok()
        return str(point)

    yield run
    gatherfs.unmount(point)


def weights(step):
    from make_runs import model

    return {k: v.detach() for k, v in model(step).state_dict().items()}


def served(gatherfs, source, path):
    """The tensors of a file by `cat`."""
    from safetensors.torch import load

    return load(gatherfs.cat(source, path).ok().out)


# ---------------------------------------------------------------- what is seen


@pytest.mark.parametrize("name", RUNS)
def test_checkpoints_and_links(name, runs, gatherfs):
    shown, hidden, links = RUNS[name]
    seen = {c["name"]: c for c in inspect(gatherfs, runs(name))["checkpoints"]}
    assert {n: c["link"] for n, c in seen.items() if "link" in c} == links
    found = {n: (c["format"], c["step"]) for n, c in seen.items() if c.get("complete")}
    assert found == shown
    assert all(seen[n]["because"] for n in shown)
    assert {n for n, c in seen.items() if c.get("complete") is False} == set(hidden)
    for n, words in hidden.items():
        assert words in seen[n]["why"]


@pytest.mark.parametrize("name", RUNS)
def test_a_mount_shows_the_same(name, runs, mounted):
    shown, hidden, links = RUNS[name]
    point = mounted(runs(name))
    top = {n.split("/")[0] for n in shown} | set(links)
    assert top <= set(os.listdir(point))
    assert not {n for n in os.listdir(point) if os.path.isdir(f"{point}/{n}")} - top
    for n in shown:
        assert os.path.isdir(f"{point}/{n}"), n
        assert any("model" in f for f in os.listdir(f"{point}/{n}")), n
    for n in hidden:
        assert not os.path.lexists(f"{point}/{n}"), n
        assert os.path.basename(n) not in os.listdir(os.path.dirname(f"{point}/{n}"))
    for n, target in links.items():
        assert os.readlink(f"{point}/{n}") == target
        assert os.path.samefile(f"{point}/{n}", f"{point}/{target}")
    with open(f"{point}/.gatherfs/status.json") as f:
        status = {c["name"]: c for c in json.load(f)["checkpoints"]}
    assert {n for n, c in status.items() if c.get("complete") is False} == set(hidden)


@pytest.mark.parametrize("name", NEWEST)
def test_export_takes_the_newest(name, runs, gatherfs, tmp_path):
    path, step = NEWEST[name]
    dest = tmp_path / "out"
    said = json.loads(gatherfs.export(runs(name), dest, "--json").ok().text)
    assert said.get("checkpoint", "") == path
    assert_same(load_directory(dest), weights(step))
    shutil.rmtree(dest)
    text = gatherfs.export(runs(name), dest).ok().text
    assert not path or f"the newest checkpoint, {path}" in text


@pytest.mark.parametrize("name", [n for n, (path, _) in NEWEST.items() if path])
def test_cat_and_step_lead_to_the_same_bytes(name, runs, gatherfs):
    path, step = NEWEST[name]
    file = "model.safetensors"
    assert_same(served(gatherfs, runs(name), f"{path}/{file}"), weights(step))
    data = gatherfs.cat(runs(name), f"{path}/{file}").ok().out
    assert gatherfs.cat(runs(name), f"latest/{file}").ok().out == data
    assert gatherfs.cat(f"{runs(name)}/{path}", file).ok().out == data
    assert gatherfs.cat(runs(name), file, "--step", path).ok().out == data
    assert gatherfs.cat(runs(name), file, "--step", "latest").ok().out == data
    if name != "accelerate_fsdp/run":  # two models of one number
        assert gatherfs.cat(runs(name), file, "--step", step).ok().out == data
    assert "no file 'model.safetensors'" in gatherfs.cat(runs(name), file).failed(2)


# ---------------------------------------------------------------- each producer


def test_each_trainer_step_has_its_own_weights_and_config(runs, gatherfs):
    for step in (2, 4, 6):
        source = runs("trainer/run")
        assert_same(served(gatherfs, source, f"checkpoint-{step}/model.safetensors"), weights(step))
        config = json.loads(gatherfs.cat(source, f"checkpoint-{step}/config.json").ok().out)
        assert config["architectures"] == ["LlamaForCausalLM"]
    # the tokenizer is the run's
    gatherfs.cat(source, "latest/tokenizer.json").ok()
    assert_same(served(gatherfs, source, "best/model.safetensors"), weights(4))


def test_an_unfinished_step_is_refused_by_name_of_the_run_alone(runs, gatherfs, tmp_path):
    source = runs("trainer/run")
    line = gatherfs.export(source, tmp_path / "a", "--step", "8").failed(1)
    assert "'checkpoint-8': no 'trainer_state.json' yet" in line
    gatherfs.cat(source, "checkpoint-8/model.safetensors").failed(2)
    # named by itself it is what its files say
    gatherfs.export(f"{source}/checkpoint-8", tmp_path / "b").ok()
    gatherfs.export(source, tmp_path / "c", "--step", "8", "--allow-incomplete").ok()
    assert_same(load_directory(tmp_path / "c"), weights(8))


def test_a_run_without_a_finished_step_says_so(runs, gatherfs, tmp_path):
    source = tmp_path / "run"
    shutil.copytree(runs("trainer/run/checkpoint-8"), source / "checkpoint-8")
    line = gatherfs.export(source, tmp_path / "out").failed(1)
    assert "no finished checkpoint: 'checkpoint-8': no 'trainer_state.json'" in line
    assert not (tmp_path / "out").exists()


def test_fsdp_steps_have_the_runs_config(runs, gatherfs):
    source = runs("trainer_fsdp/run")
    for part in (source, f"{source}/checkpoint-2"):
        path = "checkpoint-2/" if part == source else ""
        gatherfs.cat(part, f"{path}tokenizer.json").ok()
        assert json.loads(gatherfs.cat(part, f"{path}config.json").ok().out)["hidden_size"] == 16


def test_shards_are_the_checkpoint_beside_ready_weights(runs, gatherfs, tmp_path):
    source = runs("trainer_deepspeed/run")
    gatherfs.export(source, tmp_path / "out").ok()
    assert sha256(tmp_path / "out/model.safetensors") == SAMPLE_SHA256
    # damage beside the shards is a warning
    copy = shutil.copytree(f"{source}/checkpoint-1", tmp_path / "checkpoint-1")
    os.truncate(copy / "model.safetensors", 1000)
    result = gatherfs.export(copy, tmp_path / "out2").ok()
    assert "not used beside it" in result.err and "model.safetensors" in result.err
    assert sha256(tmp_path / "out2/model.safetensors") == SAMPLE_SHA256


def test_no_optimizer_is_taken_for_a_model(runs, gatherfs):
    for name in RUNS:
        for c in inspect(gatherfs, runs(name))["checkpoints"]:
            assert "optim" not in c["name"]


def test_axolotls_root_is_no_checkpoint_before_the_end(runs, gatherfs, mounted):
    source = runs("axolotl/run")
    assert inspect(gatherfs, source)["format"] == "run"
    point = mounted(source)
    assert sorted(os.listdir(point)) == ["checkpoint-10", "checkpoint-20", "latest"]
    assert "tokenizer.json" in os.listdir(f"{point}/latest")
    assert "tokens_state.json" not in os.listdir(f"{point}/latest")


def test_value_heads_of_llama_factory_are_not_the_model(runs, gatherfs):
    seen = inspect(gatherfs, runs("llama_factory/run"), "--step", "10")
    files = [f["name"] for f in seen["views"][0]["files"]]
    assert "model.safetensors" in files and "value_head.safetensors" not in files


def test_both_models_of_an_accelerate_state(runs, gatherfs):
    source = runs("accelerate_fsdp/run")
    second = "checkpoints/checkpoint_1/pytorch_model_fsdp_1/model.safetensors"
    assert_same(served(gatherfs, source, second), weights(11))
    second = "latest/pytorch_model_fsdp_1/model.safetensors"
    assert_same(served(gatherfs, source, second), weights(11))


def test_trlx_reads_its_shards_and_the_exports_tokenizer(runs, gatherfs):
    source = runs("trlx/run")
    assert_same(served(gatherfs, source, "best/model.safetensors"), weights(2))
    gatherfs.cat(source, "checkpoint_02/tokenizer.json").ok()
    gatherfs.cat(source, "checkpoint_02/config.json").ok()


def test_lightning_steps(runs, gatherfs, tmp_path):
    source = runs("lightning/run")
    file = f"{source}/lightning_logs/version_0/checkpoints/epoch=0-step=20.ckpt"
    data = gatherfs.cat(file, "model.safetensors").ok().out
    assert gatherfs.cat(source, "latest/model.safetensors").ok().out == data
    assert "epoch=0-step=20" in gatherfs.export(source, tmp_path / "out").ok().text


def test_verl_keeps_its_inner_tree(runs, gatherfs, tmp_path, mounted):
    source = runs("verl/run")
    line = gatherfs.export(source, tmp_path / "out").failed(2)
    assert "'global_step_8/actor' and 'global_step_8/critic': choose one with step=" in line
    line = gatherfs.export(source, tmp_path / "out", "--step", "8").failed(2)
    assert "'global_step_8/actor' or 'global_step_8/critic'" in line
    gatherfs.export(source, tmp_path / "out", "--step", "global_step_8/critic").ok()
    assert_same(load_directory(tmp_path / "out"), weights(9))
    point = mounted(source)
    assert sorted(os.listdir(point)) == ["global_step_4", "global_step_8", "latest"]
    assert sorted(os.listdir(f"{point}/latest")) == ["actor", "critic"]
    assert_same(load_directory(f"{point}/latest/actor"), weights(8))
    assert "tokenizer.json" in os.listdir(f"{point}/latest/actor")
    shutil.copytree(f"{source}/global_step_8", tmp_path / "step")
    shutil.rmtree(tmp_path / "step/critic")
    assert_same(served(gatherfs, tmp_path / "step", "actor/model.safetensors"), weights(8))


def test_openrlhf_tags(runs, gatherfs, tmp_path):
    for path in ("_actor", "_critic", "_actor/global_step5"):
        data = gatherfs.cat(runs("openrlhf/ckpt"), f"{path}/model.safetensors").ok().out
        assert hashlib.sha256(data).hexdigest() == SAMPLE_SHA256
    line = gatherfs.export(runs("openrlhf/ckpt"), tmp_path / "out").failed(2)
    assert "no single newest step" in line


# ---------------------------------------------------------------- options


def test_view_applies_to_each_checkpoint(runs, gatherfs, mounted):
    source = runs("trainer/run")
    point = mounted(source, "--view", "raw")
    steps = [f"checkpoint-{n}" for n in (2, 4, 6)]
    assert sorted(os.listdir(point)) == ["best", *steps, "latest"]
    raw = gatherfs.cat(source, "latest/raw/model.safetensors").ok().out
    with open(f"{point}/latest/model.safetensors", "rb") as f:
        assert f.read() == raw
    assert not os.path.exists(f"{point}/latest/full")


def test_view_at_a_root_with_weights_is_that_view_alone(runs, mounted):
    point = mounted(runs("trainer/final"), "--view", "full")
    assert not [n for n in os.listdir(point) if os.path.isdir(f"{point}/{n}")]
    assert_same(load_directory(point), weights(100))


def test_a_step_alone_has_nothing_below(runs, mounted):
    point = mounted(runs("trainer/run"), "--step", "4")
    assert not [n for n in os.listdir(point) if os.path.isdir(f"{point}/{n}")]
    assert_same(load_directory(point), weights(4))


def test_verify_takes_the_newest(runs, gatherfs):
    gatherfs.run("verify", runs("trainer/run")).ok()
    against = f"{runs('trainer/run')}/checkpoint-6"
    gatherfs.run("verify", runs("trainer/run"), "--against", against).ok()


# ---------------------------------------------------------------- while training goes on


def until(condition, seconds=3.0):
    """Two seconds are promised; the third is for a busy machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def drop_caches():
    """So that reads reach gatherfs, where we may."""
    if os.access("/proc/sys/vm/drop_caches", os.W_OK):
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("1")


@pytest.fixture
def training(runs, tmp_path):
    """A copy of the Trainer's run with its first step only; add(N) makes another appear."""
    source = tmp_path / "run"
    shutil.copytree(runs("trainer/run/checkpoint-2"), source / "checkpoint-2")

    def add(step, finished=True):
        target = source / f"checkpoint-{step}"
        shutil.copytree(runs(f"trainer/run/checkpoint-{step}"), target, dirs_exist_ok=True)
        if not finished:
            (target / "trainer_state.json").unlink(missing_ok=True)

    return source, add


def test_new_steps_appear_and_the_links_move(training, mounted):
    source, add = training
    point = mounted(source)
    assert sorted(os.listdir(point)) == ["best", "checkpoint-2", "latest"]
    assert not os.path.exists(f"{point}/checkpoint-4")
    add(4, finished=False)
    time.sleep(1.5)
    assert sorted(os.listdir(point)) == ["best", "checkpoint-2", "latest"]
    assert not os.path.exists(f"{point}/checkpoint-4")
    add(4)
    until(lambda: os.path.exists(f"{point}/checkpoint-4/model.safetensors"))
    until(lambda: os.readlink(f"{point}/latest") == "checkpoint-4")
    assert_same(load_directory(f"{point}/latest"), weights(4))
    add(6)
    until(lambda: os.path.realpath(f"{point}/latest").endswith("checkpoint-6"))
    assert os.readlink(f"{point}/best") == "checkpoint-4"
    steps = [f"checkpoint-{n}" for n in (2, 4, 6)]
    assert sorted(os.listdir(point)) == ["best", *steps, "latest"]


def test_rotation_does_not_disturb_readers(training, mounted):
    source, add = training
    point = mounted(source)
    add(4)
    until(lambda: os.path.exists(f"{point}/checkpoint-4"))
    path = f"{point}/checkpoint-2/model.safetensors"
    with open(path, "rb") as f:
        whole = f.read()
    drop_caches()
    with open(path, "rb", buffering=0) as reading, open(path, "rb") as mapped:
        first = reading.read(100)
        view = mmap.mmap(mapped.fileno(), 0, access=mmap.ACCESS_READ)
        assert view[:8] == whole[:8]
        shutil.rmtree(source / "checkpoint-2")
        until(lambda: "checkpoint-2" not in os.listdir(point))
        until(lambda: not os.path.exists(path))
        drop_caches()
        assert first + reading.read() == whole
        assert bytes(view) == whole
        view.close()


def test_a_resolved_directory_is_one_step(training, mounted):
    """What a reader that resolves `latest` once opens is of one step, whatever moves."""
    source, add = training
    point = mounted(source)
    folder = os.path.realpath(f"{point}/latest")
    with open(f"{folder}/config.json") as f:
        json.load(f)
    add(4)
    until(lambda: os.readlink(f"{point}/latest") == "checkpoint-4")
    assert_same(load_directory(folder), weights(2))
    # who works in the directory keeps it
    fd = os.open(f"{point}/checkpoint-2", os.O_RDONLY)
    add(6)
    until(lambda: os.readlink(f"{point}/latest") == "checkpoint-6")
    assert os.readlink(f"/proc/self/fd/{fd}") == f"{point}/checkpoint-2"
    assert os.stat("model.safetensors", dir_fd=fd).st_size > 0
    os.close(fd)


def test_a_model_that_appears_at_the_root(training, runs, mounted):
    source, add = training
    point = mounted(source)
    assert not os.path.exists(f"{point}/model.safetensors")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(f"{runs('trainer/final')}/{name}", source)
    until(lambda: os.path.exists(f"{point}/model.safetensors"))
    assert_same(load_directory(point), weights(100))
    assert_same(load_directory(f"{point}/latest"), weights(2))
