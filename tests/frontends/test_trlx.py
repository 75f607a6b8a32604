# SPDX-License-Identifier: Apache-2.0
"""Runs of trlx 0.7.0, in an environment of their own (GATHERFS_TRLX_VENV, made by tools/test):
PPO with a value head, the same with LoRA, and SFT. Every checkpoint against what the wrapped model
was in memory when it was saved, read with trlx's own transformers 4.32 and with newer ones."""

import os

import environments
import pytest
import torch
import trained
from environments import python, read, run, variables
from launch import Background
from probe import assert_close
from safetensors.torch import load_file
from weights import assert_same, differences, load_directory

pytestmark = [
    pytest.mark.skipif(not environments.venv("trlx"), reason="there is no GATHERFS_TRLX_VENV"),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse"),
]

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = ["checkpoint_1", "checkpoint_2", "checkpoint_3"]
NAMES = ["best_checkpoint", *STEPS]
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
READERS = ["trlx", "main", "clients"]

names = pytest.mark.parametrize("name", NAMES)
readers = pytest.mark.parametrize("reader", READERS)


@pytest.fixture(scope="module")
def old_base(tmp_path_factory):
    """The model, as libraries of trlx's age write it."""
    folder = str(tmp_path_factory.mktemp("model") / "base")
    run(python("trlx"), os.path.join(HERE, "tiny.py"), folder, env=variables("trlx"))
    return folder


@pytest.fixture(scope="module")
def trlx_run(tmp_path_factory, old_base):
    """trlx_run(kind) -> Trained"""
    runs = {}

    def do_run(kind):
        if kind not in runs:
            made = trained.start(str(tmp_path_factory.mktemp(kind)))
            script = os.path.join(HERE, "train_trlx.py")
            args = [kind, old_base, made.out, os.path.join(made.folder, "kept")]
            command = [python("trlx"), script, *args]
            with Background(command, made.folder, kind, variables("trlx")) as training:
                training.finish()
            runs[kind] = made
        return runs[kind]

    return do_run


def load_bin(*path):
    return torch.load(os.path.join(*path, "pytorch_model.bin"), weights_only=True)


def files(folder):
    return {entry.name for entry in os.scandir(folder) if entry.is_file()}


def folders(folder):
    return {entry.name for entry in os.scandir(folder) if entry.is_dir()}


# ---------------------------------------------------------------- PPO


@pytest.mark.parametrize("kind", ["ppo", "ppo-lora"])
def test_run_has_its_checkpoints_and_the_best(kind, trlx_run, mount):
    point = mount(trlx_run(kind).out)
    assert sorted(os.listdir(point)) == sorted([*NAMES, "best", "latest"])
    assert os.readlink(os.path.join(point, "best")) == "best_checkpoint"
    assert os.readlink(os.path.join(point, "latest")) == STEPS[-1]


@pytest.mark.parametrize("kind", ["ppo", "ppo-lora", "sft"])
def test_no_two_steps_are_alike(kind, trlx_run):
    """So that no test can pass with another step; the best one is the first, and not the last."""
    kept = [trlx_run(kind).kept(name, "lm.") for name in STEPS]
    for older, newer in zip(kept, kept[1:], strict=False):
        assert len(differences(older, newer)) >= 7
    if kind != "sft":
        assert_same(trlx_run(kind).kept("best_checkpoint"), trlx_run(kind).kept(STEPS[0]))


@names
def test_ppo_shows_the_model_and_each_head_by_itself(name, trlx_run, mount):
    made = trlx_run("ppo")
    point = mount(made.path(name))
    stored = load_bin(made.path(name))
    assert files(point) == TOKENIZER | {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    assert folders(point) == {"base_model", "v_head", "frozen_head"}
    assert_same(load_directory(point), made.kept(name, "lm."))
    assert_same(load_directory(os.path.join(point, "base_model")), made.kept(name, "lm."))
    assert_same(load_directory(os.path.join(point, "v_head")), made.kept(name, "v_head."))
    assert "config.json" not in files(os.path.join(point, "v_head"))
    frozen = {k[12:]: v for k, v in stored.items() if k.startswith("frozen_head.")}
    assert len(frozen) == 11
    assert_same(load_directory(os.path.join(point, "frozen_head")), frozen)
    assert_same(load_directory(os.path.join(point, "raw")), stored)


@names
def test_its_hf_model_is_the_same(name, trlx_run, mount):
    """trlx's own export has the wrapper's names, too."""
    made = trlx_run("ppo")
    point = mount(made.path(name, "hf_model"))
    assert_same(load_directory(point), made.kept(name, "lm."))
    assert_same(load_directory(os.path.join(point, "v_head")), made.kept(name, "v_head."))


@readers
def test_ppo_computes_what_it_did_in_memory(reader, trlx_run, mount, tmp_path):
    """The language model's logits, and the values of the head on top of it."""
    made = trlx_run("ppo")
    point = mount(made.out)
    places = [os.path.join(point, name) for name in NAMES]
    for name, found in zip(NAMES, read(reader, "critic", tmp_path, *places), strict=True):
        kept = made.kept(name)
        assert_close(found[""], kept[""])
        assert_close(found["value"], kept["value"])


def test_without_the_view_it_would_be_random_weights(trlx_run):
    from transformers import AutoModelForCausalLM

    made = trlx_run("ppo")
    _, report = AutoModelForCausalLM.from_pretrained(
        made.path(STEPS[0], "hf_model"), output_loading_info=True
    )
    assert len(report["missing_keys"]) == 21


def test_ppo_as_the_files_that_trlx_would_want(trlx_run, mount, tmp_path):
    """pytorch_model.bin, which is all that transformers of trlx's age write."""
    made = trlx_run("ppo")
    point = mount(made.path(STEPS[1]), "-o", "bin,views=none")
    assert files(point) == TOKENIZER | {
        "config.json",
        "generation_config.json",
        "pytorch_model.bin",
    }
    for use_mmap in (False, True):
        found = torch.load(os.path.join(point, "pytorch_model.bin"), mmap=use_mmap)
        assert_same(found, made.kept(STEPS[1], "lm."))
    (found,) = read("trlx", "transformers", tmp_path, point)
    assert_close(found[""], made.kept(STEPS[1])[""])


def test_export_of_the_run_is_the_last_policy(trlx_run, gatherfs, tmp_path):
    made = trlx_run("ppo")
    gatherfs.export(made.out, tmp_path / "out").ok()
    assert_same(load_directory(tmp_path / "out"), made.kept(STEPS[-1], "lm."))
    gatherfs.export(made.out, tmp_path / "best", "--step", "best").ok()
    assert_same(load_directory(tmp_path / "best"), made.kept("best_checkpoint", "lm."))


# ---------------------------------------------------------------- PPO with LoRA


def load_adapter(*path):
    return torch.load(os.path.join(*path, "adapter_model.bin"), weights_only=True)


@names
@pytest.mark.parametrize("inner", ["", "hf_model"])
def test_lora_shows_the_adapter_and_the_head(name, inner, trlx_run, mount):
    """Here pytorch_model.bin holds the value head alone: it is no model."""
    made = trlx_run("ppo-lora")
    point = mount(made.path(name, inner))
    found = files(point)
    assert {"adapter_config.json", "adapter_model.safetensors"} < found
    assert not {"config.json", "model.safetensors"} & found
    assert_same(
        load_file(os.path.join(point, "adapter_model.safetensors")), load_adapter(made.path(name))
    )
    assert_same(load_directory(os.path.join(point, "v_head")), made.kept(name, "v_head."))
    assert not {"config.json", "adapter_config.json"} & files(os.path.join(point, "v_head"))


@readers
def test_lora_computes_what_it_did_in_memory(reader, trlx_run, mount, tmp_path):
    made = trlx_run("ppo-lora")
    point = mount(made.out)
    places = [os.path.join(point, name) for name in NAMES]
    for name, found in zip(NAMES, read(reader, "adapter", tmp_path, *places), strict=True):
        assert_close(found[""], made.kept(name)[""])


@readers
def test_lora_merged_computes_what_it_did_in_memory(reader, trlx_run, mount, old_base, tmp_path):
    made = trlx_run("ppo-lora")
    point = mount(made.out, "-o", f"base={old_base}")
    places = [os.path.join(point, name, "full") for name in NAMES]
    for name, found in zip(NAMES, read(reader, "transformers", tmp_path, *places), strict=True):
        assert_close(found[""], made.kept(name)[""])


def test_lora_stands_on_the_base_that_it_was_trained_on(trlx_run, mount, old_base):
    point = mount(trlx_run("ppo-lora").path(STEPS[0]), "-o", f"base={old_base}")
    assert_same(load_directory(os.path.join(point, "base")), load_bin(old_base))


# ---------------------------------------------------------------- SFT


@pytest.mark.parametrize("name", STEPS)
def test_sft_is_a_model_directory(name, trlx_run, mount):
    made = trlx_run("sft")
    point = mount(made.path(name))
    assert files(point) == TOKENIZER | {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    assert not folders(point)
    assert_same(load_directory(point), made.kept(name, "lm."))


@readers
def test_sft_computes_what_it_did_in_memory(reader, trlx_run, mount, tmp_path):
    made = trlx_run("sft")
    point = mount(made.out)
    assert os.readlink(os.path.join(point, "latest")) == STEPS[-1]
    places = [os.path.join(point, name) for name in STEPS]
    for name, found in zip(STEPS, read(reader, "transformers", tmp_path, *places), strict=True):
        assert_close(found[""], made.kept(name)[""])
