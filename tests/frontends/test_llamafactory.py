# SPDX-License-Identifier: Apache-2.0
"""Runs of LLaMA-Factory 0.9.5, in an environment of their own (GATHERFS_LLAMAFACTORY_VENV, made by
tools/test): SFT with LoRA, and reward models, whose value head it splits off into a file. Every
checkpoint against its own files and the logits and values that were in memory."""

import json
import os

import environments
import pytest
import trained
from environments import python, read, variables
from launch import Background, write_json
from probe import assert_close
from safetensors.torch import load_file
from tiny import make_instructions
from weights import assert_same, load_directory, sha256

pytestmark = [
    pytest.mark.skipif(
        not environments.venv("llamafactory"), reason="there is no GATHERFS_LLAMAFACTORY_VENV"
    ),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse"),
]

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
LORA = {"finetuning_type": "lora", "lora_target": "q_proj,v_proj", "lora_rank": 4}
KINDS = {
    "sft-lora": {"stage": "sft", "dataset": "rows"} | LORA,
    "rm-lora": {"stage": "rm", "dataset": "pairs"} | LORA,
    "rm-full": {"stage": "rm", "dataset": "pairs", "finetuning_type": "full"},
}
COMMON = {
    "do_train": True,
    "dataset_dir": ".",
    "template": "alpaca",
    "cutoff_len": 64,
    "per_device_train_batch_size": 2,
    "max_steps": len(STEPS),
    "save_steps": 1,
    "learning_rate": 0.01,  # no two checkpoints look alike
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
}
COLUMNS = {
    "rows": {"prompt": "instruction", "response": "output"},
    "pairs": {"prompt": "instruction", "chosen": "output", "rejected": "rejected"},
}

lora_kinds = pytest.mark.parametrize("kind", ["sft-lora", "rm-lora"])
readers = pytest.mark.parametrize("reader", ["llamafactory", "main", "clients"])
names = pytest.mark.parametrize("name", ["", *STEPS])


def prepare(kind, folder, base, out):
    with open(make_instructions(os.path.join(folder, "rows.jsonl"))) as f:
        rows = [json.loads(line) for line in f]
    info = {}
    for name, columns in COLUMNS.items():
        chosen = [row | {"rejected": "the quick brown fox"} for row in rows]
        write_json(os.path.join(folder, name + ".json"), chosen)
        info[name] = {"file_name": name + ".json", "columns": columns}
    info["pairs"]["ranking"] = True
    write_json(os.path.join(folder, "dataset_info.json"), info)
    config = COMMON | KINDS[kind] | {"model_name_or_path": base, "output_dir": out}
    return write_json(os.path.join(folder, "config.json"), config)


@pytest.fixture(scope="module")
def llamafactory_run(tmp_path_factory, base):
    """llamafactory_run(kind) -> Trained"""
    runs = {}

    def do_run(kind):
        if kind not in runs:
            made = trained.start(str(tmp_path_factory.mktemp(kind)))
            script = os.path.join(HERE, "train_llamafactory.py")
            config = prepare(kind, made.folder, base, made.out)
            command = [python("llamafactory"), script, config, os.path.join(made.folder, "kept")]
            env = variables("llamafactory", DISABLE_VERSION_CHECK="1")
            with Background(command, made.folder, kind, env) as training:
                training.finish()
            runs[kind] = made
        return runs[kind]

    return do_run


def files(folder):
    return {entry.name for entry in os.scandir(folder) if entry.is_file()}


def assert_computes(reader, what, mounted, made, tmp_path, view=""):
    places = [os.path.join(mounted, name, view) for name in STEPS]
    for name, found in zip(STEPS, read(reader, what, tmp_path, *places), strict=True):
        for key, wanted in made.kept(name).items():
            if key in found:
                assert_close(found[key], wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_steps_are_alike(kind, llamafactory_run):
    kept = [llamafactory_run(kind).kept(name) for name in STEPS]
    for older, newer in zip(kept, kept[1:], strict=False):
        for name in older:
            assert (older[name] - newer[name]).abs().max() > 0.001, name


@names
@lora_kinds
def test_adapter_files_are_those_that_it_saved(name, kind, llamafactory_run, mount):
    made = llamafactory_run(kind)
    point = os.path.join(mount(made.out), name)
    assert not {"config.json", "model.safetensors", "value_head.safetensors"} & files(point)
    for file in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json"):
        assert sha256(os.path.join(point, file)) == sha256(made.path(name, file)), file


@readers
@lora_kinds
def test_adapter_computes_what_it_did_in_memory(kind, reader, llamafactory_run, mount, tmp_path):
    made = llamafactory_run(kind)
    assert_computes(reader, "adapter", mount(made.out), made, tmp_path)


@readers
@lora_kinds
def test_merged_on_read_computes_what_it_did_in_memory(
    kind, reader, llamafactory_run, mount, base, tmp_path
):
    made = llamafactory_run(kind)
    point = mount(made.out, "-o", f"base={base}")
    assert_computes(reader, "transformers", point, made, tmp_path, "full")


@names
def test_reward_model_shows_the_model_that_it_saved(name, llamafactory_run, mount):
    made = llamafactory_run("rm-full")
    point = os.path.join(mount(made.out), name)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files(point)
    for file in ("model.safetensors", "generation_config.json"):
        assert sha256(os.path.join(point, file)) == sha256(made.path(name, file)), file


@names
@pytest.mark.parametrize("kind", ["rm-lora", "rm-full"])
def test_value_head_is_a_view_of_its_own(name, kind, llamafactory_run, mount):
    made = llamafactory_run(kind)
    head = os.path.join(mount(made.out), name, "v_head")
    stored = load_file(made.path(name, "value_head.safetensors"))
    wanted = {key.removeprefix("v_head."): tensor for key, tensor in stored.items()}
    assert set(wanted) == {"summary.weight", "summary.bias"}
    assert_same(load_directory(head), wanted)
    assert not {"config.json", "adapter_config.json"} & files(head)


@readers
@pytest.mark.parametrize("kind", ["rm-lora", "rm-full"])
def test_reward_model_computes_what_it_did_in_memory(
    kind, reader, llamafactory_run, mount, tmp_path
):
    made = llamafactory_run(kind)
    assert_computes(reader, "critic", mount(made.out), made, tmp_path)
