# SPDX-License-Identifier: Apache-2.0
"""A mounted checkpoint is a model directory: transformers and safetensors load it as it is."""

import mmap
import os
import shutil
import threading

import pytest
import torch
from weights import assert_same, file_sums, load_directory, sha256

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")

MODELS = ["z0_hf_bf16_w2", "z2_hf_bf16_w2", "z3_hf_bf16_w4", "z3_hf_fp32_w3", "z3_hf_fp16_w2"]
MODELS += ["z2_hf_tied_w2", "z3_hf_tied_w3", "z3_hf_gpt2_w2", "z3_hf_frozen_w3", "z1_hf_frozen_w2"]
MODELS += ["z2_hf_wrapped_w2", "z2_hf_compiled_w2", "z3_hf_trainer_w2", "z3_hf_tags_w2"]


def logits(folder, **options):
    """One forward pass of the model in a directory, on a text that its own tokenizer encodes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True, **options
    )
    assert not any(report.values()), report
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    chat = [{"role": "user", "content": "gather the parts"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        return model(tokenizer(text, return_tensors="pt")["input_ids"]).logits


@pytest.mark.parametrize("name", MODELS)
def test_forward_pass_equals_the_saved_model(name, case_dir, mount):
    case = case_dir(name)
    found, wanted = logits(mount(case.source)), logits(case.expected_path("hf"))
    assert found.dtype == wanted.dtype
    assert torch.equal(found, wanted)


def test_model_with_code_of_its_own(case_dir, mount, tmp_path, monkeypatch):
    import transformers.dynamic_module_utils as modules

    monkeypatch.setattr(modules, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    case = case_dir("z3_hf_custom_w2")
    found = logits(mount(case.source), trust_remote_code=True)
    assert torch.equal(found, logits(case.expected_path("hf"), trust_remote_code=True))


def test_sharded_model(case_dir, mount):
    case = case_dir("z3_hf_bf16_w4")
    point = mount(case.source, "-o", "max_shard_size=7KB")
    assert file_sums(point) == file_sums(case.expected_path("hf_7kb"))
    assert torch.equal(logits(point), logits(case.expected_path("hf")))


def test_a_tag_of_several(case_dir, mount):
    case = case_dir("z3_hf_tags_w2")
    found = load_directory(mount(case.source, "-o", "tag=best"))
    assert_same(found, case.expected("live.best"))


@pytest.mark.parametrize("name", MODELS)
def test_listing_and_bytes_are_those_of_save_pretrained(name, case_dir, mount):
    case = case_dir(name)
    wanted = file_sums(case.expected_path("hf"))
    point = mount(case.source)
    files = {entry for entry in os.listdir(point) if os.path.isfile(os.path.join(point, entry))}
    assert files == set(wanted)
    assert {name: sha256(os.path.join(point, name)) for name in files} == wanted


def test_safe_open_reads_whole_tensors_and_slices(case_dir, mount):
    from safetensors import safe_open

    case = case_dir("z3_hf_bf16_w4")
    wanted = load_directory(case.expected_path("hf"))
    path = os.path.join(mount(case.source), "model.safetensors")
    with safe_open(path, "pt") as f:
        assert f.metadata() == {"format": "pt"}
        assert set(f.keys()) == set(wanted)
        assert_same({name: f.get_tensor(name) for name in f.keys()}, wanted)
        for name, tensor in wanted.items():
            middle = slice(tensor.shape[0] // 3, tensor.shape[0] // 2)
            assert_same({"": f.get_slice(name)[middle]}, {"": tensor[middle]})


def test_mapped_pages_hold_the_file(case_dir, mount):
    case = case_dir("z3_hf_fp32_w3")
    with open(case.expected_path("hf", "model.safetensors"), "rb") as f:
        wanted = f.read()
    with open(os.path.join(mount(case.source), "model.safetensors"), "rb") as f:
        with mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as shared:
            assert shared[:] == wanted
        private = mmap.mmap(
            f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
        with private:  # as torch maps it
            private[0] ^= 0xFF
            assert private[1:] == wanted[1:]
            assert f.read() == wanted


def test_a_copy_of_the_mount_loads(case_dir, mount, tmp_path):
    case = case_dir("z3_hf_bf16_w4")
    shutil.copytree(mount(case.source, "-o", "view=full"), tmp_path / "copy")
    assert file_sums(tmp_path / "copy") == file_sums(case.expected_path("hf"))
    assert torch.equal(logits(tmp_path / "copy"), logits(case.expected_path("hf")))


def test_a_loaded_model_outlives_a_second_mount(case_dir, mount):
    """Pages of the first model are read only now: they still come from the first mount."""
    from transformers import AutoModelForCausalLM

    case = case_dir("z3_hf_tags_w2")
    model = AutoModelForCausalLM.from_pretrained(mount(case.source, "-o", "tag=best"))
    mount(case.source)
    assert_same(dict(model.state_dict()), case.expected("live.best"))


def test_readers_at_once_see_the_same(case_dir, mount):
    case = case_dir("z3_hf_bf16_w5")
    point = mount(case.source)
    wanted = load_directory(case.expected_path("hf"))
    failures = []

    def read():
        try:
            for _ in range(5):
                assert_same(load_directory(point), wanted)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures[0]


def test_nothing_can_be_written(case_dir, mount):
    point = mount(case_dir("z3_hf_bf16_w4").source)
    for attempt in (
        lambda: open(os.path.join(point, "new"), "w"),
        lambda: open(os.path.join(point, "model.safetensors"), "r+b"),
        lambda: os.unlink(os.path.join(point, "config.json")),
        lambda: os.mkdir(os.path.join(point, "folder")),
        lambda: os.rename(os.path.join(point, "config.json"), os.path.join(point, "c")),
        lambda: os.truncate(os.path.join(point, "model.safetensors"), 0),
    ):
        with pytest.raises(OSError):
            attempt()


@pytest.mark.parametrize("damage", ["missing_optim", "optim_half", "hostile_flat"])
def test_a_broken_checkpoint_is_not_mounted(damage, gatherfs, tmp_path):
    from cases import from_environment
    from damage import make_damage

    make_damage(damage, from_environment("GATHERFS_CASES"), tmp_path / "ckpt")
    point = tmp_path / "mnt"
    point.mkdir()
    try:
        gatherfs.mount(tmp_path / "ckpt", point).failed(1)
        assert not os.path.ismount(point)
    finally:
        gatherfs.unmount(point)


@pytest.mark.parametrize("change", ["truncate", "remove", "replace"])
def test_a_source_that_changes_under_the_mount(change, case_dir, mount, tmp_path):
    """The right bytes, or an error: never wrong bytes. The mount itself lives on."""
    case = case_dir("z3_hf_fp32_w3")
    ckpt = tmp_path / "ckpt"
    shutil.copytree(case.source, ckpt)
    point = mount(ckpt)
    victim = next(p for p in sorted(ckpt.glob("*/*optim_states.pt")))
    if change == "truncate":
        os.truncate(victim, 4096)
    if change == "remove":
        victim.unlink()
    if change == "replace":
        data = bytearray(victim.read_bytes())
        data[len(data) // 4 : len(data) // 2] = os.urandom(len(data) // 2 - len(data) // 4)
        victim.unlink()
        victim.write_bytes(data)
    with open(case.expected_path("hf", "model.safetensors"), "rb") as f:
        wanted = f.read()
    try:
        with open(os.path.join(point, "model.safetensors"), "rb", buffering=0) as f:
            found = f.read()
        assert found == wanted[: len(found)]
    except OSError:
        pass
    with open(os.path.join(point, "config.json"), "rb") as f:
        assert f.read()
