# SPDX-License-Identifier: Apache-2.0
"""Runs of TRL, sharded by accelerate in three ways: every checkpoint against what the framework
itself gathers from it."""

import json
import os

import pytest
from gathered import load_fsdp, merge_fsdp, trainer_saved
from safetensors.torch import load_file
from tiny import save_pretrained
from train_sft import STEPS
from weights import assert_same, differences, file_sums, load_directory, sha256

# What tells that the engine was at work: without it training runs, too, and saves something else.
MARKS = {
    "plain": ["optimizer.pt"],
    "fsdp1": ["pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__1_0.distcp"],
    "fsdp2": ["pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__1_0.distcp"],
    "zero3": ["latest", "global_step{n}/zero_pp_rank_1_mp_rank_00_optim_states.pt"],
}
FORMATS = {"plain": "safetensors", "fsdp1": "dcp", "fsdp2": "dcp", "zero3": "deepspeed"}
ORACLES = {
    "plain": [trainer_saved],
    "fsdp1": [merge_fsdp, load_fsdp],
    "fsdp2": [merge_fsdp, load_fsdp],
    "zero3": [trainer_saved],
}
NAMES = [f"checkpoint-{n + 1}" for n in range(STEPS)]
WEIGHTS = ["model.safetensors", "config.json", "generation_config.json"]

engines = pytest.mark.parametrize("engine", MARKS)
fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")


def config_from(engine, base):
    """FSDP checkpoints have neither config nor tokenizer."""
    return ["--config-from", base] if engine.startswith("fsdp") else []


def as_json(gatherfs, *args):
    return json.loads(gatherfs.run("inspect", "--json", *args).ok().text)


@engines
def test_the_engine_was_at_work(engine, sft_run):
    for n in range(1, STEPS + 1):
        checkpoint = os.path.join(sft_run(engine), f"checkpoint-{n}")
        for mark in MARKS[engine]:
            assert os.path.exists(os.path.join(checkpoint, mark.format(n=n))), mark
        assert os.path.exists(os.path.join(checkpoint, "trainer_state.json"))


@engines
def test_inspect_lists_the_checkpoints_of_the_run(engine, sft_run, gatherfs):
    found = as_json(gatherfs, sft_run(engine))
    assert found["format"] == "run"
    entries = {entry["name"]: entry for entry in found["checkpoints"]}
    assert set(entries) == {*NAMES, "latest"}
    assert all(entries[name]["complete"] for name in NAMES)
    assert entries["latest"]["link"] == NAMES[-1]


@engines
@pytest.mark.parametrize("n", range(1, STEPS + 1))
def test_inspect_tells_what_a_checkpoint_is(engine, n, sft_run, gatherfs):
    found = as_json(gatherfs, os.path.join(sft_run(engine), f"checkpoint-{n}"))
    assert found["format"] == FORMATS[engine]
    assert found["complete"] == "yes"
    assert found["step"] == n
    assert found["tensors"] == 21
    assert not [entry["name"] for entry in found["checkpoints"]]


@engines
@pytest.mark.parametrize("name", NAMES)
def test_export_equals_what_the_framework_gathers(engine, name, sft_run, gatherfs, base, tmp_path):
    checkpoint = os.path.join(sft_run(engine), name)
    gatherfs.export(checkpoint, tmp_path / "out", *config_from(engine, base)).ok()
    found = load_directory(tmp_path / "out")
    for i, gather in enumerate(ORACLES[engine]):
        work = tmp_path / f"work{i}"
        work.mkdir()
        state = gather(checkpoint, str(work))
        assert_same(found, state)
    wanted = save_pretrained(base, state, tmp_path / "saved")
    for file in WEIGHTS:
        own = os.path.join(checkpoint, file)  # a trainer's config.json also has use_cache off
        saved = own if os.path.exists(own) else os.path.join(wanted, file)
        assert sha256(tmp_path / "out" / file) == sha256(saved), file
    assert sha256(tmp_path / "out" / WEIGHTS[0]) == sha256(os.path.join(wanted, WEIGHTS[0]))
    gatherfs.run("verify", checkpoint, *config_from(engine, base)).ok()
    gatherfs.run("verify", checkpoint, *config_from(engine, base), "--against", wanted).ok()


@engines
def test_no_two_checkpoints_are_alike(engine, sft_run, gatherfs, tmp_path):
    """So that none of the other tests can pass with the weights of another step."""
    for name in NAMES:
        gatherfs.export(os.path.join(sft_run(engine), name), tmp_path / name).ok()
    states = [load_directory(tmp_path / name) for name in NAMES]
    for older, newer in zip(states, states[1:], strict=False):
        assert len(differences(older, newer)) > 15


def test_ready_weights_are_another_format(sft_run, gatherfs, tmp_path):
    """DeepSpeed's shards come first, but the gathered file beside them can be asked for."""
    checkpoint = os.path.join(sft_run("zero3"), NAMES[-1])
    option = ["--source-format", "safetensors"]
    assert as_json(gatherfs, checkpoint, *option)["format"] == "safetensors"
    gatherfs.export(checkpoint, tmp_path / "ready", *option).ok()
    gatherfs.export(checkpoint, tmp_path / "shards").ok()
    assert file_sums(tmp_path / "ready") == file_sums(tmp_path / "shards")


@engines
def test_export_of_the_run_is_the_newest_checkpoint(engine, sft_run, gatherfs, base, tmp_path):
    options = config_from(engine, base)
    result = gatherfs.export(sft_run(engine), tmp_path / "run", *options).ok()
    assert NAMES[-1] in result.text + result.err
    gatherfs.export(os.path.join(sft_run(engine), NAMES[-1]), tmp_path / "last", *options).ok()
    assert file_sums(tmp_path / "run") == file_sums(tmp_path / "last")


@fuse
@engines
def test_mounted_run_is_the_same_tree(engine, sft_run, gatherfs, mount, base, tmp_path):
    options = config_from(engine, base)
    point = mount(sft_run(engine), *options)
    assert sorted(os.listdir(point)) == sorted([*NAMES, "latest"])
    assert os.readlink(os.path.join(point, "latest")) == NAMES[-1]
    for name in NAMES:
        gatherfs.export(os.path.join(sft_run(engine), name), tmp_path / name, *options).ok()
        assert file_sums(os.path.join(point, name)) == file_sums(tmp_path / name)
        cat = gatherfs.cat(sft_run(engine), name + "/model.safetensors", *options).ok()
        with open(os.path.join(point, name, "model.safetensors"), "rb") as f:
            assert cat.out == f.read()


@fuse
@engines
def test_latest_loads(engine, sft_run, mount, base):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    latest = os.path.join(mount(sft_run(engine), *config_from(engine, base)), "latest")
    model, report = AutoModelForCausalLM.from_pretrained(latest, output_loading_info=True)
    assert not any(report.values()), report
    assert AutoTokenizer.from_pretrained(latest).encode("gather the parts")
    wanted = load_directory(latest)
    assert_same({k: v for k, v in model.state_dict().items() if k in wanted}, wanted)


@fuse
@engines
def test_a_checkpoint_alone_is_a_model_directory(engine, sft_run, mount, base):
    """And nothing else: what stood beside the model's shards is no directory of weights."""
    options = config_from(engine, base)
    alone = mount(os.path.join(sft_run(engine), NAMES[1]), *options)
    assert not [entry.name for entry in os.scandir(alone) if entry.is_dir()]
    in_run = os.path.join(mount(sft_run(engine), *options), NAMES[1])
    path = "model.safetensors"
    assert sha256(os.path.join(alone, path)) == sha256(os.path.join(in_run, path))


# ---------------------------------------------------------------- adapters


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_of_an_adapter_exports_the_adapter(name, sft_run, gatherfs, tmp_path):
    """Its files as peft wrote them, and no config.json: there are no full weights here."""
    checkpoint = os.path.join(sft_run("plain", "lora"), name)
    assert as_json(gatherfs, checkpoint)["default_view"] == "adapter"
    gatherfs.export(checkpoint, tmp_path / "out").ok()
    found = file_sums(tmp_path / "out")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= set(found)
    assert "config.json" not in found
    for file, found_sum in found.items():
        assert found_sum == sha256(os.path.join(checkpoint, file)), file


@fuse
def test_mounted_adapter_loads_with_its_base(sft_run, mount):
    from peft import AutoPeftModelForCausalLM, get_peft_model_state_dict

    run = sft_run("plain", "lora")
    latest = os.path.join(mount(run), "latest")
    model = AutoPeftModelForCausalLM.from_pretrained(latest)
    wanted = load_file(os.path.join(run, NAMES[-1], "adapter_model.safetensors"))
    assert_same(get_peft_model_state_dict(model), wanted)
