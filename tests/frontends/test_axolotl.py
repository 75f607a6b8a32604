# SPDX-License-Identifier: Apache-2.0
"""Runs of axolotl 0.19.0 by its own command line, in an environment of their own
(GATHERFS_AXOLOTL_VENV, made by tools/test): all weights, LoRA, FSDP2 and ZeRO-3 on two processes.
Every directory that it leaves against what axolotl itself gathers from it, and against the logits
that the model in memory computed when it was saved (axolotl_watch.py)."""

import os
import shutil

import environments
import pytest
import torch
import trained
from environments import read, run, tool, variables
from gathered import load_fsdp
from launch import FSDP2, RANKS, ZERO3, Background, accelerate_config, free_port, write_json
from probe import assert_close
from safetensors.torch import load_file
from tiny import make_instructions
from weights import assert_same, cast, differences, load_directory, sha256

pytestmark = [
    pytest.mark.skipif(
        not environments.venv("axolotl"), reason="there is no GATHERFS_AXOLOTL_VENV"
    ),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse"),
]

STEPS = ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
KINDS = ["full", "lora", "fsdp2", "zero3"]
READERS = ["axolotl", "main", "clients"]
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}

COMMON = {
    "datasets": [{"path": "rows.jsonl", "ds_type": "json", "type": "alpaca"}],
    "dataset_prepared_path": "prepared",
    "sequence_len": 128,
    "val_set_size": 0,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "max_steps": len(STEPS),
    "save_steps": 1,
    "optimizer": "adamw_torch",
    "learning_rate": 0.01,  # no two checkpoints look alike
    "lr_scheduler": "constant",
    "bf16": False,
    "fp16": False,
    "tf32": False,
    "attn_implementation": "eager",
    "plugins": ["axolotl_watch.Watch"],
}
LORA = {
    "adapter": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_target_modules": ["q_proj", "v_proj", "down_proj"],
} | {f"lora_{kernel}_kernel": False for kernel in ("mlp", "qkv", "o", "embedding")}

kinds = pytest.mark.parametrize("kind", KINDS)
readers = pytest.mark.parametrize("reader", READERS)


def axolotl_fsdp():
    config = {key.removeprefix("fsdp_"): value for key, value in FSDP2.items()}
    config["final_state_dict_type"] = config["state_dict_type"]
    return {"fsdp_version": config.pop("version"), "fsdp_config": config}


def prepare(kind, folder, base):
    """The words after `axolotl train CONFIG`, with all files that they need."""
    config = COMMON | {"base_model": base, "output_dir": os.path.join(folder, "run")}
    words = ["--launcher", "python"]
    if kind == "lora":
        config |= LORA
    elif kind == "fsdp2":
        config |= axolotl_fsdp()
        words = ["--launcher", "accelerate", "--", "--main_process_port", free_port()]
        words += ["--config_file", accelerate_config(kind, folder)]
    elif kind == "zero3":
        config["deepspeed"] = write_json(os.path.join(folder, "deepspeed.json"), ZERO3)
        words = ["--launcher", "torchrun", "--", "--nproc-per-node", str(RANKS)]
        words += ["--master-port", free_port()]
    make_instructions(os.path.join(folder, "rows.jsonl"))
    write_json(os.path.join(folder, "config.yml"), config)  # JSON is YAML
    return words


def environment(made):
    switches = {"GATHERFS_TEST_CPU_SHIM": "1", "GATHERFS_TEST_KEPT": f"{made.folder}/kept"}
    return variables("axolotl", **switches)


@pytest.fixture(scope="module")
def axolotl_run(tmp_path_factory, base):
    """axolotl_run(kind) -> Trained"""
    runs = {}

    def do_run(kind):
        if kind not in runs:
            made = trained.start(str(tmp_path_factory.mktemp(kind)))
            words = prepare(kind, made.folder, base)
            command = [tool("axolotl", "axolotl"), "train", "config.yml", *words]
            with Background(command, made.folder, "train", environment(made)) as training:
                training.finish(timeout=600)  # DeepSpeed may have to compile first
            runs[kind] = made
        return runs[kind]

    return do_run


def after_training(command, made, *words):
    """Another command of axolotl, on the same config."""
    program = tool("axolotl", "axolotl")
    run(program, command, "config.yml", *words, cwd=made.folder, env=environment(made))


@pytest.fixture(scope="module")
def merged_lora(axolotl_run):
    """merged/, which `axolotl merge-lora` has made in the output directory."""
    made = axolotl_run("lora")
    after_training("merge-lora", made, "--lora-model-dir", made.out)
    return made.path("merged")


def files(folder):
    return {entry.name for entry in os.scandir(folder) if entry.is_file()}


def all_of(point):
    """The root, which is what axolotl saved last, and the checkpoints."""
    return {"final": point} | {name: os.path.join(point, name) for name in STEPS}


def assert_computes(reader, what, places, made, tmp_path):
    """{name in kept: directory}"""
    results = read(reader, what, tmp_path, *places.values())
    for name, found in zip(places, results, strict=True):
        assert_close(found[""], made.kept(name)[""])


MARKS = {
    "full": ["optimizer.pt", "model.safetensors"],
    "lora": ["optimizer.pt", "adapter_model.safetensors"],
    "fsdp2": ["pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__1_0.distcp"],
    "zero3": ["latest", "global_step{n}/zero_pp_rank_1_mp_rank_00_optim_states.pt"],
}


@kinds
def test_the_engine_was_at_work(kind, axolotl_run):
    for n, name in enumerate(STEPS, 1):
        for mark in MARKS[kind]:
            assert os.path.exists(axolotl_run(kind).path(name, mark.format(n=n))), mark


@kinds
def test_no_two_steps_are_alike(kind, axolotl_run):
    logits = [axolotl_run(kind).kept(name)[""] for name in STEPS]
    for older, newer in zip(logits, logits[1:], strict=False):
        assert (older - newer).abs().max() > 0.01
    assert torch.equal(axolotl_run(kind).kept("final")[""], logits[-1])


@kinds
def test_run_is_its_final_model_with_the_checkpoints_below(kind, axolotl_run, mount):
    point = mount(axolotl_run(kind).out)
    assert {*STEPS, "latest"} <= set(os.listdir(point))
    assert os.readlink(os.path.join(point, "latest")) == STEPS[-1]
    for folder in all_of(point).values():
        adapter = {"adapter_config.json", "adapter_model.safetensors"}
        model = {"config.json", "model.safetensors"}
        there, gone = (adapter, model) if kind == "lora" else (model, adapter)
        assert TOKENIZER | there <= files(folder)
        assert not gone & files(folder)


# ---------------------------------------------------------------- all weights


@pytest.mark.parametrize("kind", ["full", "zero3"])
def test_files_are_those_that_axolotl_saved(kind, axolotl_run, mount):
    """Under ZeRO-3 its own model.safetensors is what all ranks have gathered: the mount gets the
    same from the shards."""
    made = axolotl_run(kind)
    for name, folder in all_of(mount(made.out)).items():
        saved = made.out if name == "final" else made.path(name)
        for file in ("model.safetensors", "generation_config.json", *TOKENIZER):
            assert sha256(os.path.join(folder, file)) == sha256(os.path.join(saved, file)), file


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["full", "zero3"])
def test_computes_what_it_did_in_memory(kind, reader, axolotl_run, mount, tmp_path):
    made = axolotl_run(kind)
    assert_computes(reader, "transformers", all_of(mount(made.out)), made, tmp_path)


@pytest.mark.parametrize("name", STEPS)
def test_shards_alone_are_enough(name, axolotl_run, gatherfs, tmp_path):
    """Without the model that DeepSpeed has gathered beside them (which it doesn't always)."""
    made = axolotl_run("zero3")
    shutil.copytree(made.path(name), tmp_path / name)
    os.remove(tmp_path / name / "model.safetensors")
    gatherfs.export(tmp_path / name, tmp_path / "out").ok()
    saved = made.path(name, "model.safetensors")
    assert sha256(tmp_path / "out" / "model.safetensors") == sha256(saved)


# ---------------------------------------------------------------- FSDP2, sharded


@pytest.mark.parametrize("name", STEPS)
def test_fsdp_checkpoint_is_what_torch_gathers(name, axolotl_run, mount, tmp_path):
    made = axolotl_run("fsdp2")
    wanted = load_fsdp(made.path(name), str(tmp_path))
    point = mount(made.path(name))
    assert_same(load_directory(point), wanted)
    assert {t.dtype for t in wanted.values()} == {torch.float32}
    assert_same(load_directory(mount(made.path(name), "-o", "dtype=bf16")), cast_bf16(wanted))


def cast_bf16(tensors):
    return cast(tensors, torch.bfloat16)


@readers
def test_fsdp_checkpoints_compute_what_they_did_in_memory(reader, axolotl_run, mount, tmp_path):
    made = axolotl_run("fsdp2")
    point = mount(made.out)
    places = {name: os.path.join(point, name) for name in STEPS}
    assert_computes(reader, "transformers", places, made, tmp_path)


def test_dtype_bf16_is_what_axolotl_merges(axolotl_run, gatherfs, tmp_path):
    """merge-sharded-fsdp-weights casts to BF16, and axolotl runs it itself after training."""
    made = axolotl_run("fsdp2")
    gatherfs.export(made.out, tmp_path / "out", "--step", "latest", "--dtype", "bf16").ok()
    found = sha256(tmp_path / "out" / "model.safetensors")
    assert found == sha256(made.path("model.safetensors"))
    after_training("merge-sharded-fsdp-weights", made, "--launcher", "python")
    assert found == sha256(made.path("merged", "model.safetensors"))


# ---------------------------------------------------------------- LoRA


def test_adapter_files_are_those_that_axolotl_saved(axolotl_run, mount):
    made = axolotl_run("lora")
    assert os.path.exists(made.path("config.json"))  # of the base model
    for name, folder in all_of(mount(made.out)).items():
        saved = made.out if name == "final" else made.path(name)
        for file in ("adapter_model.safetensors", "adapter_config.json", *TOKENIZER):
            assert sha256(os.path.join(folder, file)) == sha256(os.path.join(saved, file)), file


@readers
def test_adapter_computes_what_it_did_in_memory(reader, axolotl_run, mount, tmp_path):
    made = axolotl_run("lora")
    assert_computes(reader, "adapter", all_of(mount(made.out)), made, tmp_path)


@readers
def test_merged_on_read_computes_what_it_did_in_memory(reader, axolotl_run, mount, base, tmp_path):
    made = axolotl_run("lora")
    point = mount(made.out, "-o", f"base={base}")
    places = {name: os.path.join(folder, "full") for name, folder in all_of(point).items()}
    assert_computes(reader, "transformers", places, made, tmp_path)


def test_full_is_what_axolotl_merges(axolotl_run, mount, base, merged_lora):
    point = mount(axolotl_run("lora").out, "-o", f"base={base}")
    full = os.path.join(point, "full")
    assert "adapter_config.json" not in files(full)
    assert_same(load_directory(full), load_directory(merged_lora))
    assert sha256(os.path.join(full, "model.safetensors")) == sha256(
        os.path.join(merged_lora, "model.safetensors")
    )


def test_base_is_the_model_that_it_stands_on(axolotl_run, mount, base):
    point = mount(axolotl_run("lora").out, "-o", f"base={base}")
    assert_same(load_directory(os.path.join(point, "base")), load_directory(base))


@readers
def test_merged_directory_of_the_run(reader, axolotl_run, mount, merged_lora, tmp_path):
    made = axolotl_run("lora")
    merged = os.path.join(mount(made.out), "merged")
    assert sha256(os.path.join(merged, "model.safetensors")) == sha256(
        os.path.join(merged_lora, "model.safetensors")
    )
    assert_computes(reader, "transformers", {"final": merged}, made, tmp_path)


@readers
def test_root_with_adapter_and_merged_weights(
    reader, axolotl_run, mount, merged_lora, base, tmp_path
):
    """The trap: transformers 5 would apply the adapter to merged weights once more, transformers 4
    would ignore them. The mount shows the one or the other, so both load what was trained."""
    made = axolotl_run("lora")
    root = str(tmp_path / "root")
    shutil.copytree(made.out, root, ignore=shutil.ignore_patterns("merged", "checkpoint-*"))
    for name in ("model.safetensors", "generation_config.json"):
        shutil.copy(os.path.join(merged_lora, name), root)
    point = mount(root)
    assert not {"adapter_config.json", "adapter_model.safetensors"} & files(point)
    merged, kept = load_directory(merged_lora), load_file(made.path("adapter_model.safetensors"))
    assert len(differences(load_directory(base), merged)) == len(kept) // 2
    assert_same(load_directory(point), merged)
    assert_computes(reader, "transformers", {"final": point}, made, tmp_path)
