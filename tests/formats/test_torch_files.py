# SPDX-License-Identifier: Apache-2.0
"""gatherfs on torch files, per-rank files and ready model directories that the real frameworks
wrote (make_torch_files.py)."""

import json
import os
import shutil

import pytest
from torch_cases import CASES, SHARD_SIZES
from weights import assert_same, differences, file_sums, load_directory

SERVED = [n for n, c in CASES.items() if not c.refused and not n.startswith("hf_")]
REFUSED = [n for n, c in CASES.items() if c.refused]
WITH_ODD = [n for n, c in CASES.items() if c.odd]
READY = [n for n in CASES if n.startswith("hf_")]


def options(case):
    """Directories among a case's options are below its folder."""
    given = CASES[case.name].options
    words = [w if w.startswith("-") else os.path.join(case.folder, w) for w in given]
    return words + (["-o", "allow_incomplete"] if CASES[case.name].odd else [])


@pytest.fixture
def copy_of(tmp_path):
    """copy_of(case) -> its source, to be changed"""

    def copy(case):
        dest = tmp_path / "copy"
        shutil.copytree(case.source, dest)
        return dest

    return copy


# ---------------------------------------------------------------- tensors


@pytest.mark.parametrize("name", SERVED)
def test_raw_view_is_what_the_framework_held(name, case_dir, gatherfs, tmp_path):
    case = case_dir(name)
    gatherfs.export(case.source, tmp_path / "out", "--view", "raw", *options(case)).ok()
    wanted = {CASES[name].prefix + k: v for k, v in case.expected("state").items()}
    assert_same(load_directory(tmp_path / "out"), wanted)


@pytest.mark.parametrize("name", SERVED)
def test_default_view_drops_wrappers_and_tied_names(name, case_dir, gatherfs, tmp_path):
    case = case_dir(name)
    gatherfs.export(case.source, tmp_path / "out", *options(case)).ok()
    lines = differences(load_directory(tmp_path / "out"), case.expected("state"))
    assert lines in ([], ["lm_head.weight: missing"]), lines


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_with_the_reason(name, case_dir, gatherfs, tmp_path):
    case = case_dir(name)
    result = gatherfs.export(case.source, tmp_path / "out")
    assert CASES[name].refused in result.failed(1, 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", WITH_ODD)
def test_tensors_that_cannot_be_served_are_named(name, case_dir, gatherfs, tmp_path):
    case = case_dir(name)
    line = gatherfs.export(case.source, tmp_path / "out").failed(2)
    count = len(CASES[name].odd)
    assert f"{count} tensors cannot be served, the first is '{CASES[name].odd[0]}'" in line
    result = gatherfs.export(case.source, tmp_path / "out", "-o", "allow_incomplete").ok()
    assert f"left out {count} tensors" in result.err


# ---------------------------------------------------------------- rank files


@pytest.mark.parametrize(
    "name", ["ranks_fsdp2", "ranks_hsdp", "ranks_verl", "fsdp1_sharded_tensors"]
)
def test_a_missing_rank_is_named(name, case_dir, gatherfs, copy_of, tmp_path):
    source = copy_of(case_dir(name))
    gone = sorted(f for f in os.listdir(source) if "model" in f)[-1]
    os.unlink(source / gone)
    line = gatherfs.export(source, tmp_path / "out").failed(1)
    assert f"missing '{gone}'" in line


def test_replicas_make_up_for_a_missing_rank_when_that_is_allowed(
    case_dir, gatherfs, copy_of, tmp_path
):
    case = case_dir("ranks_hsdp")
    source = copy_of(case)
    os.unlink(source / "pytorch_model_fsdp_0_rank3.bin")
    gatherfs.export(source, tmp_path / "out", "-o", "allow_incomplete").ok()
    assert_same(load_directory(tmp_path / "out"), case.expected("state"))


def test_a_hole_is_never_allowed(case_dir, gatherfs, copy_of, tmp_path):
    source = copy_of(case_dir("ranks_fsdp2"))
    os.unlink(source / "pytorch_model_fsdp_0_rank1.bin")
    gatherfs.export(source, tmp_path / "out", "-o", "allow_incomplete").failed(1)


@pytest.mark.parametrize("name", ["ranks_fsdp2", "bin_params", "local_flat"])
def test_a_file_that_is_cut_short_is_named(name, case_dir, gatherfs, copy_of, tmp_path):
    case = case_dir(name)
    source = copy_of(case)
    cut = sorted(os.listdir(source))[-1]
    os.truncate(source / cut, os.path.getsize(source / cut) - 1)
    assert f"'{cut}'" in gatherfs.export(source, tmp_path / "out", *options(case)).failed(1)


def test_flat_parameters_need_an_order_that_is_known(case_dir, gatherfs, tmp_path):
    case = case_dir("local_flat")
    shutil.copytree(os.path.join(case.folder, "base"), tmp_path / "base")
    os.unlink(tmp_path / "base" / "config.json")
    line = gatherfs.export(
        case.source, tmp_path / "out", "--config-from", tmp_path / "base"
    ).failed(2)
    assert "in an order that the template does not tell" in line


# ---------------------------------------------------------------- ready directories


@pytest.mark.parametrize("size", SHARD_SIZES)
@pytest.mark.parametrize("name", READY)
def test_a_ready_directory_is_exported_byte_for_byte(name, size, case_dir, gatherfs, tmp_path):
    source = case_dir(name).expected_path(size)
    limit = SHARD_SIZES[size].replace("KB", "000").replace("GB", "000000000")
    gatherfs.export(source, tmp_path / "out", "--max-shard-size", limit).ok()
    assert file_sums(tmp_path / "out") == file_sums(source)


@pytest.mark.parametrize("size", SHARD_SIZES)
@pytest.mark.parametrize("name", READY)
def test_a_directory_is_cut_anew_as_save_pretrained_cuts(name, size, case_dir, gatherfs, tmp_path):
    """Of the usual model types the order of parameters is known, whatever the source's cut."""
    case = case_dir(name)
    limit = SHARD_SIZES[size].replace("KB", "000").replace("GB", "000000000")
    gatherfs.export(case.expected_path("hf_7kb"), tmp_path / "out", "--max-shard-size", limit).ok()
    assert file_sums(tmp_path / "out") == file_sums(case.expected_path(size))


@pytest.mark.parametrize("name", READY)
def test_shards_are_kept_without_a_config(name, case_dir, gatherfs, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(case_dir(name).expected_path("hf_40kb"), source)
    os.unlink(source / "config.json")
    gatherfs.export(source, tmp_path / "out", "--max-shard-size", "40000").ok()
    assert file_sums(tmp_path / "out") == file_sums(source)


def test_a_missing_shard_is_named(case_dir, gatherfs, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(case_dir("hf_llama").expected_path("hf_40kb"), source)
    with open(source / "model.safetensors.index.json") as f:
        gone = max(json.load(f)["weight_map"].values())
    os.unlink(source / gone)
    assert f"missing '{gone}'" in gatherfs.export(source, tmp_path / "out").failed(1)


def test_an_index_does_not_lead_out(case_dir, gatherfs, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(case_dir("hf_llama").expected_path("hf_40kb"), source)
    whole = case_dir("hf_llama").expected_path("hf", "model.safetensors")
    shutil.copy(whole, tmp_path / "outside")
    index = source / "model.safetensors.index.json"
    text = json.loads(index.read_text())
    first = next(iter(text["weight_map"]))
    text["weight_map"][first] = "../outside"
    index.write_text(json.dumps(text))
    assert "not inside the directory" in gatherfs.export(source, tmp_path / "out").failed(1)


def test_a_single_file_is_a_source(case_dir, gatherfs, tmp_path):
    source = case_dir("hf_llama").expected_path("hf", "model.safetensors")
    gatherfs.export(source, tmp_path / "out").ok()
    found = file_sums(tmp_path / "out")["model.safetensors"]
    assert found == file_sums(os.path.dirname(source))["model.safetensors"]


def test_an_optimizer_is_no_model(case_dir, gatherfs, tmp_path):
    case = case_dir("fsdp1_full")
    gatherfs.export(os.path.join(case.source, "optimizer.bin"), tmp_path / "out").failed(2)
    os.makedirs(tmp_path / "only")
    shutil.copy(os.path.join(case.source, "optimizer.bin"), tmp_path / "only")
    gatherfs.export(tmp_path / "only", tmp_path / "out").failed(2)
