# SPDX-License-Identifier: Apache-2.0
"""gatherfs on real DCP checkpoints: what it serves against what the training processes held, and
what it says of broken ones."""

import os
import pickle
import random
import shutil

import pytest
from dcp_cases import CASES
from weights import assert_same, load_directory

DCP = [name for name in CASES if name.startswith("dcp_")]
SHARDED = [name for name in CASES if name.startswith("hf_")]
# more than one layout, types and strides that are not row-major, packed items
SLICED = ["dcp_columns", "dcp_zstd", "dcp_dtypes", "dcp_tp_strided_uneven", "hf_sharded"]


@pytest.fixture
def export(gatherfs, tmp_path):
    def run(source, *options):
        dest = tmp_path / "out"
        gatherfs.export(source, dest, *options).ok()
        return str(dest)

    return run


@pytest.fixture
def copied(case_dir, tmp_path):
    """copied(name) -> (case, a copy of its SOURCE)"""

    def run(name):
        case = case_dir(name)
        return case, shutil.copytree(case.source, tmp_path / "ckpt", dirs_exist_ok=True)

    return run


# ---------------------------------------------------------------- tensors


@pytest.mark.parametrize("name", CASES)
def test_export_is_the_gathered_state(name, case_dir, export):
    case = case_dir(name)
    assert_same(load_directory(export(case.source)), case.expected("live"))


@pytest.mark.parametrize("name", SLICED)
def test_any_part_equals_the_whole(name, case_dir, export, gatherfs):
    source = case_dir(name).source
    with open(os.path.join(export(source), "model.safetensors"), "rb") as f:
        whole = f.read()
    rng = random.Random(1)
    for _ in range(25):
        begin = rng.randrange(len(whole))
        end = min(len(whole), begin + rng.choice([1, 3, 64, 1000]))
        part = gatherfs.cat(source, "model.safetensors", "--range", f"{begin}-{end - 1}").ok().out
        assert part == whole[begin:end], (begin, end)


def test_order_is_the_state_dicts(case_dir, gatherfs):
    """Shards are cut in the model's order, which the files of DCP do not have."""
    case = case_dir("dcp_fsdp2_llama")
    reference = os.listdir(case.expected_path("hf"))
    assert "model.safetensors" in reference
    text = gatherfs.run("inspect", case.source, "--tensors").ok().text
    names = [line.split("]")[1].split()[0] for line in text.split("tensors\n")[-1].splitlines()]
    assert names[0] == "model.embed_tokens.weight" and names[-1] == "lm_head.weight"
    blocks = [name.split(".")[2] for name in names if ".layers." in name]
    assert blocks == sorted(blocks)


# ---------------------------------------------------------------- what it says


@pytest.mark.parametrize("name", DCP)
def test_dcp_is_whole(name, case_dir, gatherfs):
    gatherfs.run("verify", case_dir(name).source).ok()


@pytest.mark.parametrize("name", SHARDED)
def test_sharded_safetensors_cannot_prove_that_they_are_whole(name, case_dir, gatherfs):
    result = gatherfs.run("verify", case_dir(name).source)
    assert result.code == 2, result
    assert "config_from" in result.text


def test_a_template_proves_it(case_dir, gatherfs):
    case = case_dir("hf_sharded_two_files")
    gatherfs.run("verify", case.source, "--config-from", case.expected_path("hf")).ok()


def test_step_and_directory_of_accelerate(case_dir, gatherfs):
    text = gatherfs.run("inspect", case_dir("dcp_accelerate_fsdp2").source).ok().text
    assert "DCP, 2 ranks" in text
    assert "step        3" in text


# ---------------------------------------------------------------- unfinished and rewritten


def test_a_save_that_was_cut_off(copied, gatherfs, tmp_path):
    _, ckpt = copied("dcp_threads")
    os.rename(ckpt / ".metadata", ckpt / ".metadata.tmp")
    line = gatherfs.export(ckpt, tmp_path / "out", "-o", "allow_incomplete").failed(1)
    assert ".metadata.tmp" in line
    os.unlink(ckpt / ".metadata.tmp")
    assert "missing" in gatherfs.export(ckpt, tmp_path / "out").failed(1)
    assert not os.path.exists(tmp_path / "out")


def test_files_newer_than_the_metadata(copied, gatherfs, tmp_path):
    case, ckpt = copied("dcp_threads")
    saved = os.stat(ckpt / ".metadata").st_mtime
    os.utime(ckpt / "__1_0.distcp", (saved, saved + 590))
    gatherfs.export(ckpt, tmp_path / "in_time").ok()
    os.utime(ckpt / "__1_0.distcp", (saved, saved + 660))
    line = gatherfs.export(ckpt, tmp_path / "out").failed(1)
    assert "__1_0.distcp" in line and "allow_incomplete" in line
    gatherfs.export(ckpt, tmp_path / "out", "-o", "allow_incomplete").ok()
    assert_same(load_directory(tmp_path / "out"), case.expected("live"))


def test_short_and_missing_files(copied, gatherfs, tmp_path):
    _, ckpt = copied("dcp_threads")
    with open(ckpt / "__1_0.distcp", "r+b") as f:
        f.truncate(os.path.getsize(f.name) - 1)
    assert "'__1_0.distcp': cut short" in gatherfs.export(ckpt, tmp_path / "out").failed(1)
    os.unlink(ckpt / "__1_0.distcp")
    assert "missing '__1_0.distcp'" in gatherfs.export(ckpt, tmp_path / "out").failed(1)
    assert not os.path.exists(tmp_path / "out")


@pytest.mark.parametrize("name", ["dcp_threads", "dcp_zstd", "dcp_columns"])
def test_a_damaged_item_is_an_error_and_never_wrong_bytes(name, copied, gatherfs, tmp_path):
    _, ckpt = copied(name)
    path = ckpt / "__1_0.distcp"
    for place in (0, os.path.getsize(path) - 300):
        _, ckpt = copied(name)
        with open(path, "r+b") as f:
            f.seek(place)
            f.write(b"\xaa" * 300)
        gatherfs.export(ckpt, tmp_path / "out").failed(1, 2)
        assert not os.path.exists(tmp_path / "out")
        assert gatherfs.run("verify", ckpt).code == 1


# ---------------------------------------------------------------- hostile metadata


def rewrite(ckpt, change):
    """Unpickles `.metadata`, lets `change` loose on it, and saves it with its old time."""
    path = ckpt / ".metadata"
    times = os.stat(path)
    with open(path, "rb") as f:
        metadata = pickle.load(f)
    change(metadata)
    with open(path, "wb") as f:
        pickle.dump(metadata, f)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def first_stored(metadata, name="model.five.weight"):
    return next(info for index, info in metadata.storage_data.items() if index.fqn == name)


class Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_call_in_the_pickle_is_not_made(copied, gatherfs, export, tmp_path):
    case, ckpt = copied("dcp_threads")
    trap = tmp_path / "executed"

    def set_trap(metadata):
        metadata.storage_meta = Touch(trap)

    rewrite(ckpt, set_trap)
    assert_same(load_directory(export(ckpt)), case.expected("live"))
    with open(ckpt / ".metadata", "rb") as f:
        pickle.load(f)  # the trap is a real one
    assert trap.exists()


@pytest.mark.parametrize("path", ["../outside.distcp", "/etc/hostname", "a/../../outside.distcp"])
def test_files_outside_of_the_checkpoint(path, copied, gatherfs, tmp_path):
    _, ckpt = copied("dcp_threads")
    shutil.copy(ckpt / "__0_0.distcp", tmp_path / "outside.distcp")

    def lead_out(metadata):
        first_stored(metadata).relative_path = path

    rewrite(ckpt, lead_out)
    line = gatherfs.export(ckpt, tmp_path / "out").failed(1, 2)
    assert "not inside the checkpoint" in line


def test_chunks_that_overlap_or_leave_holes(copied, gatherfs, tmp_path):
    import torch

    def move(to, size):
        def change(metadata):
            name = "model.five.weight"
            chunk = metadata.state_dict_metadata[name].chunks[1]
            index = next(
                i for i in metadata.storage_data if i.fqn == name and i.offset == chunk.offsets
            )
            info = metadata.storage_data.pop(index)
            chunk.offsets, chunk.sizes = torch.Size(to), torch.Size(size)
            metadata.storage_data[type(index)(name, chunk.offsets, 1)] = info

        return change

    _, ckpt = copied("dcp_threads")  # five rows: three and two
    rewrite(ckpt, move([2, 0], [2, 3]))
    assert "overlap" in gatherfs.export(ckpt, tmp_path / "out").failed(1)
    _, ckpt = copied("dcp_threads")
    rewrite(ckpt, move([4, 0], [1, 3]))
    assert "five.weight" in gatherfs.export(ckpt, tmp_path / "out").failed(1)
    _, ckpt = copied("dcp_threads")
    rewrite(ckpt, move([4, 0], [2, 3]))
    assert "which has 5" in gatherfs.export(ckpt, tmp_path / "out").failed(1)


def test_items_with_another_shape_or_place(copied, gatherfs, tmp_path):
    def swap(metadata):
        a = first_stored(metadata, "model.norm.weight")
        b = first_stored(metadata, "model.norm.bias")
        a.offset, b.offset = b.offset, a.offset + 1
        a.length, b.length = b.length, a.length

    _, ckpt = copied("dcp_threads")
    rewrite(ckpt, swap)
    gatherfs.export(ckpt, tmp_path / "out").failed(1, 2)
    assert not os.path.exists(tmp_path / "out")


def test_unknown_packing_is_refused_by_name(copied, gatherfs, tmp_path):
    def pack(metadata):
        first_stored(metadata).transform_descriptors = ["stream.lz77/9"]

    _, ckpt = copied("dcp_threads")
    rewrite(ckpt, pack)
    line = gatherfs.export(ckpt, tmp_path / "out").failed(2)
    assert "stream.lz77/9" in line and "five.weight" in line
