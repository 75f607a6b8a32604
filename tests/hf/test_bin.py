# SPDX-License-Identifier: Apache-2.0
"""pytorch_model.bin, laid out before a byte is read, as torch.load and transformers read it."""

import json
import os
import shutil
import subprocess
import zipfile

import pytest
import torch
from test_components import Parts, assert_loads_as, causal, heads, tensors
from weights import assert_same

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")

FLOATS = ["float64", "float32", "float16", "bfloat16"]
EIGHT = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
INTEGERS = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"]
DTYPES = [*FLOATS, *EIGHT, *INTEGERS, "complex64"]
LOADS = [(only, mapped) for only in (True, False) for mapped in (True, False)]


def every_kind():
    """Each dtype as a matrix, a scalar and without elements."""
    torch.manual_seed(0)
    state = {}
    for name in DTYPES:
        dtype = getattr(torch, name)
        random = torch.randint(0, 2, (5, 16)) if name == "bool" else torch.randint(0, 256, (5, 16))
        whole = random.to(torch.uint8).view(dtype) if name != "bool" else random.bool()
        state[f"{name}.matrix"] = whole.clone()
        state[f"{name}.scalar"] = whole.reshape(-1)[3].clone()
        state[f"{name}.none"] = whole[:0].clone()
        state[f"{name}.no_columns"] = whole[:, :0].clone()
    state["f4"] = torch.arange(24, dtype=torch.uint8).view(4, 6).view(torch.float4_e2m1fn_x2)
    return state


def load(path, only, mapped):
    return torch.load(path, map_location="cpu", weights_only=only, mmap=mapped)


@pytest.mark.parametrize("only, mapped", LOADS)
def test_every_dtype_in_each_way_to_load(only, mapped, gatherfs, tmp_path):
    state = every_kind()
    torch.save(state, tmp_path / "state.pt")
    gatherfs.export(tmp_path / "state.pt", tmp_path / "out", "--format", "bin").ok()
    assert os.listdir(tmp_path / "out") == ["pytorch_model.bin"]
    found = load(tmp_path / "out" / "pytorch_model.bin", only, mapped)
    assert list(found) == list(state)
    assert_same(found, state)


@pytest.mark.parametrize("only, mapped", LOADS)
def test_each_way_to_load_from_a_mount(only, mapped, mount, tmp_path):
    state = every_kind()
    torch.save(state, tmp_path / "state.pt")
    point = mount(tmp_path / "state.pt", "-o", "bin")
    assert_same(load(os.path.join(point, "pytorch_model.bin"), only, mapped), state)


def test_members_are_those_that_torch_writes(gatherfs, tmp_path):
    """Names, order, stored and aligned. Checksums are 0: torch never looks at them."""
    state = tensors(causal())
    torch.save(state, tmp_path / "pytorch_model.bin")
    gatherfs.export(tmp_path / "pytorch_model.bin", tmp_path / "out", "--bin").ok()
    ours = zipfile.ZipFile(tmp_path / "out" / "pytorch_model.bin")
    torchs = zipfile.ZipFile(tmp_path / "pytorch_model.bin")
    wanted = [n for n in torchs.namelist() if not n.endswith("/.data/serialization_id")]
    assert ours.namelist() == wanted
    for info in ours.infolist():
        assert info.compress_type == zipfile.ZIP_STORED and info.CRC == 0
        if not info.filename.endswith("data.pkl"):
            assert info.file_size == torchs.getinfo(info.filename).file_size
        with open(ours.filename, "rb") as f:
            f.seek(info.header_offset)
            header = f.read(30)
        start = info.header_offset + 30
        start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        assert start % 64 == 0, info.filename


def test_the_size_is_known_before_anything_is_read(gatherfs, tmp_path, mount):
    """The weights are gone by then; the directory still says what they would have been."""
    source = tmp_path / "source"
    causal().save_pretrained(source)
    gatherfs.export(source, tmp_path / "out", "--bin").ok()
    wanted = (tmp_path / "out" / "pytorch_model.bin").stat().st_size
    point = mount(source, "-o", "bin,timeout=10")
    (source / "model.safetensors").rename(tmp_path / "gone")
    assert os.stat(os.path.join(point, "pytorch_model.bin")).st_size == wanted


def test_cp_export_and_cat_are_one_file(gatherfs, mount, tmp_path):
    source = tmp_path / "source"
    causal().save_pretrained(source)
    gatherfs.export(source, tmp_path / "out", "--bin").ok()
    wanted = (tmp_path / "out" / "pytorch_model.bin").read_bytes()
    point = mount(source, "-o", "bin")
    shutil.copy(os.path.join(point, "pytorch_model.bin"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == wanted
    assert gatherfs.cat(source, "pytorch_model.bin", "--bin").ok().out == wanted


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("shards", [None, "40KB"], ids=["one file", "several"])
def test_transformers_loads_it(tie, shards, mount, tmp_path):
    source = tmp_path / "source"
    causal(tie=tie).save_pretrained(source)
    options = "bin" + (f",max_shard_size={shards}" if shards else "")
    point = mount(source, "-o", options)
    files = {f for f in os.listdir(point) if "model" in f}
    if shards:
        index = json.load(open(os.path.join(point, "pytorch_model.bin.index.json")))
        assert files == {*index["weight_map"].values(), "pytorch_model.bin.index.json"}
        assert len(files) > 2
        for name, file in index["weight_map"].items():
            assert name in load(os.path.join(point, file), True, True)
    else:
        assert files == {"pytorch_model.bin"}
    assert_loads_as(point, source)


def test_tied_tensors_are_written_once_or_both(gatherfs, tmp_path):
    """Tied by config.json: once. In raw both, as they are stored."""
    source = tmp_path / "source"
    model = causal(tie=True)
    model.config.save_pretrained(source)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    gatherfs.export(source, tmp_path / "full", "--bin").ok()
    found = load(tmp_path / "full" / "pytorch_model.bin", True, True)
    assert "lm_head.weight" not in found
    gatherfs.export(source, tmp_path / "raw", "--bin", "--view", "raw").ok()
    found = load(tmp_path / "raw" / "pytorch_model.bin", True, True)
    assert_same(found, dict(model.state_dict()))


def test_old_clients_load_it_too(mount, tmp_path):
    """A reader that knows nothing of zip64 extras but what the standard says."""
    source = tmp_path / "source"
    causal().save_pretrained(source)
    point = mount(source, "-o", "bin")
    path = os.path.join(point, "pytorch_model.bin")
    listing = subprocess.run(
        ["python3", "-c", f"import zipfile; print(zipfile.ZipFile({path!r}).namelist()[0])"],
        capture_output=True,
        text=True,
    )
    assert listing.stdout.strip() == "pytorch_model/data.pkl"


# ---- trlx's layout ----


def trlx_state(policy):
    return {**tensors(policy, "base_model."), **heads()}


def test_trlx_hf_model_as_the_source(mount, tmp_path):
    made = Parts(tmp_path, causal()).save(trlx_state(causal()))
    hf_model = made.source.rename(tmp_path / "hf_model")
    assert_loads_as(mount(hf_model), made.alone)
    assert_loads_as(mount(hf_model, "-o", "bin"), made.alone)


def test_trlx_hf_model_in_a_checkpoint(gatherfs, mount, tmp_path):
    """Accelerate's state at the top has the weights, hf_model the files beside them."""
    made = Parts(tmp_path, causal()).save(trlx_state(causal(5)))
    checkpoint = tmp_path / "ckpts" / "checkpoint_10"
    checkpoint.mkdir(parents=True)
    made.source.rename(checkpoint / "hf_model")
    torch.save(trlx_state(causal()), checkpoint / "pytorch_model.bin")
    torch.save({}, checkpoint / "optimizer.bin")
    (checkpoint / "random_states_0.pkl").write_bytes(b"")
    assert_loads_as(mount(checkpoint), made.alone)
    assert_loads_as(os.path.join(mount(tmp_path / "ckpts"), "latest"), made.alone)


def test_trlx_checkpoint_that_holds_hf_model_alone(mount, tmp_path):
    """save_optimizer=False: there is no state of Accelerate."""
    made = Parts(tmp_path, causal()).save(trlx_state(causal()))
    checkpoint = tmp_path / "ckpts" / "checkpoint_10"
    checkpoint.mkdir(parents=True)
    made.source.rename(checkpoint / "hf_model")
    assert_loads_as(mount(checkpoint / "hf_model"), made.alone)
    assert_loads_as(os.path.join(mount(checkpoint), "hf_model"), made.alone)
    assert_loads_as(os.path.join(mount(tmp_path / "ckpts"), "latest", "hf_model"), made.alone)
