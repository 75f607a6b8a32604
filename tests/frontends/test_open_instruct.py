# SPDX-License-Identifier: Apache-2.0
"""Directories as open-instruct leaves them. It cannot run here (it imports vllm and CUDA kernels),
so train_open_instruct.py makes its save calls in its order, on the real accelerate, DeepSpeed
ZeRO-3 on two processes, transformers and peft: SFT, LoRA alone, PPO's policy and value model in
one, and GRPO's training states beside finished models."""

import json
import os
import shutil

import pytest
import trained
from environments import read
from launch import Training
from probe import assert_close
from safetensors.torch import load_file
from weights import assert_same, differences, load_directory, sha256

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")

STEPS = ["step_1", "step_2", "step_3"]
MARKER = dict.fromkeys(["sft", "lora", "lora-tokens", "ppo"], "COMPLETED")
MARKER["grpo"] = ".checkpoint_complete"
READERS = ["main", "clients"]

kinds = pytest.mark.parametrize("kind", MARKER)
readers = pytest.mark.parametrize("reader", READERS)
names = pytest.mark.parametrize("name", STEPS)


@pytest.fixture(scope="module")
def open_instruct_run(tmp_path_factory, base):
    """open_instruct_run(kind) -> Trained"""
    pytest.importorskip("deepspeed")
    runs = {}

    def do_run(kind):
        if kind not in runs:
            made = trained.start(str(tmp_path_factory.mktemp(kind)))
            args = [kind, base, made.out, os.path.join(made.folder, "kept")]
            with Training("zero3", made.folder, "train_open_instruct.py", *args) as training:
                training.finish(timeout=600)  # DeepSpeed may have to compile first
            runs[kind] = made
        return runs[kind]

    return do_run


def root_of_steps(made, kind):
    return made.out + "_checkpoints" if kind == "grpo" else made.out


def files(folder):
    return {entry.name for entry in os.scandir(folder) if entry.is_file()}


def model_of(made, name, start=""):
    """What accelerate has gathered from all ranks, of one attribute of the model."""
    state = {key: tensor for key, tensor in made.kept(name, start).items() if key}
    if start == "policy.":
        assert len(state) == 21
    return state


def assert_computes(reader, what, places, made, tmp_path):
    results = read(reader, what, tmp_path, *places.values())
    for name, found in zip(places, results, strict=True):
        assert_close(found[""], made.kept(name)[""])


@kinds
def test_the_engine_was_at_work(kind, open_instruct_run):
    made = open_instruct_run(kind)
    for n, name in enumerate(STEPS, 1):
        assert os.path.exists(os.path.join(root_of_steps(made, kind), name, MARKER[kind]))
        tag = f"global_step{n}" if kind == "grpo" else os.path.join(name, "pytorch_model")
        optimizer = "zero_pp_rank_1_mp_rank_00_optim_states.pt"
        assert os.path.exists(made.path(tag, optimizer))


@kinds
def test_no_two_steps_are_alike(kind, open_instruct_run):
    kept = [open_instruct_run(kind).kept(name) for name in STEPS]
    for older, newer in zip(kept, kept[1:], strict=False):
        assert len(differences(older, newer)) >= 8


@kinds
def test_steps_without_the_marker_are_hidden(kind, open_instruct_run, mount, gatherfs, tmp_path):
    """Whole or not: open-instruct itself wouldn't resume from them."""
    copy = str(tmp_path / "copy")
    shutil.copytree(root_of_steps(open_instruct_run(kind), kind), copy)
    os.remove(os.path.join(copy, STEPS[2], MARKER[kind]))
    point = mount(copy)
    assert set(STEPS[:2]) <= set(os.listdir(point))
    assert STEPS[2] not in os.listdir(point)
    assert os.readlink(os.path.join(point, "latest")) == STEPS[1]
    found = json.loads(gatherfs.run("inspect", "--json", copy).ok().text)
    (hidden,) = [entry for entry in found["checkpoints"] if entry["name"] == STEPS[2]]
    assert not hidden["complete"]


# ---------------------------------------------------------------- SFT, ZeRO-3


@names
def test_step_is_what_accelerate_gathers(name, open_instruct_run, mount):
    made = open_instruct_run("sft")
    point = mount(made.out)
    assert_same(load_directory(os.path.join(point, name)), model_of(made, name))


def test_last_step_is_byte_for_byte_what_it_saves(open_instruct_run, mount):
    """save_with_accelerate writes the final model into the root, config and tokenizer with it."""
    made = open_instruct_run("sft")
    point = mount(made.out)
    for file in ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json"):
        saved = sha256(made.path(file))
        assert sha256(os.path.join(point, file)) == saved, file
        assert sha256(os.path.join(point, STEPS[-1], file)) == saved, file


@readers
def test_steps_compute_what_they_did_in_memory(reader, open_instruct_run, mount, tmp_path):
    made = open_instruct_run("sft")
    point = mount(made.out)
    places = {name: os.path.join(point, name) for name in STEPS}
    assert_computes(reader, "transformers", places, made, tmp_path)


def test_two_eos_ids(open_instruct_run, mount, tmp_path):
    """Under DeepSpeed open-instruct sets them on the engine, and saves another generation config.
    The option mends that, given as text or as a file."""
    from transformers import AutoTokenizer, GenerationConfig

    made = open_instruct_run("sft")
    assert GenerationConfig.from_pretrained(made.out).eos_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(mount(made.out))
    ids = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    text = json.dumps({"eos_token_id": ids})
    (tmp_path / "generation.json").write_text(text)
    for given in (text, tmp_path / "generation.json"):
        point = mount(made.out, "--generation-config", given)
        for folder in (point, os.path.join(point, STEPS[0])):
            assert GenerationConfig.from_pretrained(folder).eos_token_id == ids


# ---------------------------------------------------------------- LoRA


@names
def test_lora_step_is_the_adapter_that_peft_saves(name, open_instruct_run, mount):
    """All weights are in the state; the adapter's files are those of the save at the end."""
    made = open_instruct_run("lora")
    point = os.path.join(mount(made.out), name)
    assert not {"config.json", "model.safetensors"} & files(point)
    start = "base_model.model."
    adapter = {
        start + key.replace(".default.", "."): tensor
        for key, tensor in made.kept(name, start).items()
        if ".lora_" in key
    }
    assert len(adapter) == 8
    assert_same(load_file(os.path.join(point, "adapter_model.safetensors")), adapter)
    if name == STEPS[-1]:
        for file in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json"):
            assert sha256(os.path.join(point, file)) == sha256(made.path(file)), file


def test_adapter_with_grown_embeddings_is_what_peft_saves(open_instruct_run, mount, base):
    """New tokens make peft save both embeddings whole, as part of the adapter. The base model says
    that they have grown."""
    made = open_instruct_run("lora-tokens")
    saved = load_file(made.path("adapter_model.safetensors"))
    assert len(saved) == 10
    step = os.path.join(mount(made.out, "-o", f"base={base}"), STEPS[-1])
    for folder in (mount(made.out), step):
        found = sha256(os.path.join(folder, "adapter_model.safetensors"))
        assert found == sha256(made.path("adapter_model.safetensors"))


@names
def test_lora_step_has_its_base(name, open_instruct_run, mount):
    made = open_instruct_run("lora")
    base = {
        key.replace(".base_layer.", "."): tensor
        for key, tensor in made.kept(name, "base_model.model.").items()
        if ".lora_" not in key
    }
    assert len(base) == 21
    assert_same(load_directory(os.path.join(mount(made.out), name, "base")), base)


@readers
def test_merged_steps_compute_what_they_did_in_memory(
    reader, open_instruct_run, mount, base, tmp_path
):
    """Base and adapter both from the shards; config.json is nowhere in such a run."""
    made = open_instruct_run("lora")
    point = mount(made.out, "-o", f"config_from={base}")
    places = {name: os.path.join(point, name, "full") for name in STEPS}
    assert_computes(reader, "transformers", places, made, tmp_path)


# ---------------------------------------------------------------- PPO: policy and value model


@names
def test_ppo_step_shows_each_model_by_itself(name, open_instruct_run, mount):
    made = open_instruct_run("ppo")
    point = os.path.join(mount(made.out), name)
    assert_same(load_directory(point), model_of(made, name, "policy."))
    assert_same(load_directory(os.path.join(point, "policy")), model_of(made, name, "policy."))
    value = model_of(made, name, "value_model.")
    assert "score.weight" in value
    assert_same(load_directory(os.path.join(point, "value_model")), value)


def test_policy_of_the_last_step_is_byte_for_byte_what_it_saves(open_instruct_run, mount):
    """model_attribute_to_save="policy"."""
    made = open_instruct_run("ppo")
    point = mount(made.out)
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert sha256(os.path.join(point, STEPS[-1], file)) == sha256(made.path(file)), file


@readers
def test_policy_computes_what_it_did_in_memory(reader, open_instruct_run, mount, tmp_path):
    made = open_instruct_run("ppo")
    point = mount(made.out)
    places = {name: os.path.join(point, name, "policy") for name in STEPS}
    assert_computes(reader, "transformers", places, made, tmp_path)


# ---------------------------------------------------------------- GRPO


@names
def test_training_state_is_the_model_that_it_saved(name, open_instruct_run, mount):
    """global_stepN of DeepSpeed, and step_N that save_model() has gathered from it, are the same
    bytes."""
    made = open_instruct_run("grpo")
    saved = made.out + "_checkpoints"
    models, states = mount(saved), mount(made.out, "-o", f"config_from={saved}/{STEPS[0]}")
    state = os.path.join(states, name.replace("step_", "global_step"))
    if name == STEPS[-1]:
        state = states  # the one that 'latest' names
    wanted = sha256(os.path.join(saved, name, "model.safetensors"))
    assert sha256(os.path.join(state, "model.safetensors")) == wanted
    assert sha256(os.path.join(models, name, "model.safetensors")) == wanted
    assert_same(load_directory(state), model_of(made, name))


@readers
def test_grpo_computes_what_it_did_in_memory(reader, open_instruct_run, mount, tmp_path):
    made = open_instruct_run("grpo")
    point = mount(made.out + "_checkpoints")
    places = {name: os.path.join(point, name) for name in STEPS}
    assert_computes(reader, "transformers", places, made, tmp_path)


def test_reference_policy_stands_beside_the_states(open_instruct_run, mount):
    import torch

    made = open_instruct_run("grpo")
    saved = torch.load(made.path("ref_policy", "pytorch_model.bin"), weights_only=True)
    assert len(saved) == 21
    assert_same(load_directory(os.path.join(mount(made.out), "ref_policy")), saved)
