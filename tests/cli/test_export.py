# SPDX-License-Identifier: Apache-2.0
"""export and cat: the same bytes, all of them or nothing."""

import hashlib
import json
import os
import pty
import signal
import subprocess

import pytest

STAGED = ".gatherfs-part"


def tree(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def exported(gatherfs, sample, tmp_path_factory):
    dest = tmp_path_factory.mktemp("export") / "model"
    gatherfs.export(sample, dest).ok()
    return dest


def test_the_bytes_are_those_of_save_pretrained(exported, sample_sums):
    for name, wanted in sample_sums.items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == wanted, name


def test_cat_gives_the_same_bytes(gatherfs, sample, exported):
    for name, data in tree(exported).items():
        assert gatherfs.cat(sample, name).ok().out == data, name


def test_export_says_what_it_wrote(gatherfs, sample, tmp_path):
    result = gatherfs.export(sample, tmp_path / "out").ok()
    assert len(result.text.splitlines()) == 1 and result.err == ""
    assert "files" in result.text and "step 2" in result.text


def test_export_json(gatherfs, sample, tmp_path):
    facts = json.loads(gatherfs.export(sample, tmp_path / "out", "--json").ok().out)
    written = tree(tmp_path / "out")
    assert facts["files"] == len(written)
    assert facts["bytes"] == sum(map(len, written.values()))
    assert facts["view"] == "full" and facts["step"] == 2 and facts["seconds"] >= 0


def test_jobs_and_shards_do_not_change_bytes(gatherfs, sample, tmp_path):
    gatherfs.export(sample, tmp_path / "a", "--max-shard-size", "40KB", "--jobs", "1").ok()
    gatherfs.export(sample, tmp_path / "b", "-o", "max_shard_size=40KB", "-j7").ok()
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 2
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_modes_and_times(gatherfs, sample, tmp_path):
    old = os.umask(0o027)
    try:
        gatherfs.export(sample, tmp_path / "out").ok()
    finally:
        os.umask(old)
    newest = max(p.stat().st_mtime_ns for p in sample.glob("global_step2/*"))
    for path in (tmp_path / "out").iterdir():
        assert path.stat().st_mode & 0o777 == 0o640, path
        assert path.stat().st_mtime_ns == newest, path


def test_views(gatherfs, sample, tmp_path):
    gatherfs.export(sample, tmp_path / "raw", "--view", "raw").ok()
    assert (
        gatherfs.cat(sample, "raw/model.safetensors").ok().out
        == (tmp_path / "raw" / "model.safetensors").read_bytes()
    )
    assert "nosuch" in gatherfs.export(sample, tmp_path / "x", "--view", "nosuch").failed(2)
    assert not (tmp_path / "x").exists()


# ---------------------------------------------------------------- what is there already


def test_an_empty_dest_is_used(gatherfs, sample, tmp_path, exported):
    (tmp_path / "out").mkdir()
    gatherfs.export(sample, f"{tmp_path}/out/").ok()
    assert tree(tmp_path / "out") == tree(exported)


def test_a_dest_with_files_is_refused(gatherfs, sample, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    assert "not empty" in gatherfs.export(sample, tmp_path / "out").failed(2)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "precious"]


def test_force_replaces_it_and_never_mixes(gatherfs, sample, tmp_path, exported):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.bin").write_text("x")
    gatherfs.export(sample, tmp_path / "out", "--force").ok()
    assert tree(tmp_path / "out") == tree(exported)
    assert os.listdir(tmp_path) == ["out"]


def test_force_keeps_the_old_one_when_it_fails(gatherfs, sample_copy, tmp_path):
    next(sample_copy.glob("global_step2/*_rank_1_*optim_states.pt")).unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.bin").write_text("x")
    gatherfs.export(sample_copy, tmp_path / "out", "--force").failed(1)
    assert os.listdir(tmp_path / "out") == ["old.bin"]


def test_force_spares_directories_and_the_source(gatherfs, sample_copy, tmp_path):
    (tmp_path / "out" / "sub").mkdir(parents=True)
    assert "'sub'" in gatherfs.export(sample_copy, tmp_path / "out", "--force").failed(2)
    before = sorted(p.name for p in sample_copy.rglob("*"))
    step = sample_copy / "global_step2"
    for source, dest in ((sample_copy, step), (step, step), (sample_copy, sample_copy)):
        gatherfs.export(source, dest, "--force").failed(2)
    assert sorted(p.name for p in sample_copy.rglob("*")) == before


def test_a_dest_that_cannot_be_made(gatherfs, sample, tmp_path):
    (tmp_path / "file").write_text("x")
    gatherfs.export(sample, tmp_path / "file").failed(2)
    gatherfs.export(sample, tmp_path / "file", "--force").failed(2)
    gatherfs.export(sample, tmp_path / "no" / "such" / "parent").failed(2)
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_export_left_is_replaced(gatherfs, sample, tmp_path, exported):
    left = tmp_path / ("out" + STAGED)
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    gatherfs.export(sample, tmp_path / "out").ok()
    assert tree(tmp_path / "out") == tree(exported)
    assert os.listdir(tmp_path) == ["out"]


# ---------------------------------------------------------------- a run that ends early


def large_source(path):
    """A model of one tensor that is mostly a hole: converting it takes seconds."""
    nbytes = 4 << 30
    header = {"w": {"dtype": "F32", "shape": [nbytes // 4], "data_offsets": [0, nbytes]}}
    text = json.dumps(header).encode()
    path.mkdir()
    with open(path / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + nbytes)
    return path


def interrupted_export(gatherfs, source, dest, number):
    """Sends the signal once staging has begun."""
    process = subprocess.Popen(
        [gatherfs.binary, "export", source, dest, "--dtype", "bf16"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    staged = dest.with_name(dest.name + STAGED)
    while process.poll() is None and not staged.exists():
        pass
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(gatherfs, tmp_path, number):
    source = large_source(tmp_path / "source")
    code, out, err = interrupted_export(gatherfs, source, tmp_path / "out", number)
    assert code == 2 and out == "" and len(err.splitlines()) == 1 and "interrupted" in err
    assert os.listdir(tmp_path) == ["source"]


def test_a_full_disk_leaves_nothing(gatherfs, sample, tmp_path):
    """RLIMIT_FSIZE stands in for the disk."""
    script = 'ulimit -f 20; trap "" XFSZ; exec "$0" "$@"'
    done = subprocess.run(
        ["bash", "-c", script, gatherfs.binary, "export", sample, tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done
    assert "model.safetensors" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_truncated_source_leaves_nothing(gatherfs, sample_copy, tmp_path):
    rank = next(sample_copy.glob("global_step2/*_rank_3_*optim_states.pt"))
    os.truncate(rank, rank.stat().st_size // 2)
    line = gatherfs.export(sample_copy, tmp_path / "out").failed(1)
    assert "rank_3" in line
    assert os.listdir(tmp_path) == ["source"]


def test_progress_is_for_terminals(gatherfs, sample, tmp_path):
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [gatherfs.binary, "export", sample, tmp_path / "out"],
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:
        pass
    os.close(ours)
    assert done.returncode == 0
    assert shown.endswith(b"\r\x1b[K")  # whatever was drawn is wiped


# ---------------------------------------------------------------- cat


@pytest.mark.parametrize(
    "text, part",
    [
        ("0-7", slice(0, 8)),
        ("5-5", slice(5, 6)),
        ("100-", slice(100, None)),
        ("-10", slice(-10, None)),
        ("-99999999", slice(None)),
        ("10-99999999", slice(10, None)),
    ],
)
def test_ranges_are_those_of_http(gatherfs, sample, exported, text, part):
    whole = (exported / "model.safetensors").read_bytes()
    assert gatherfs.cat(sample, "model.safetensors", "--range", text).ok().out == whole[part]
    assert gatherfs.cat(sample, "model.safetensors", f"--range={text}").ok().out == whole[part]


@pytest.mark.parametrize("text", ["", "-", "x", "7", "3-x", "7-3", "99999999-", "1-2-3", "+1-2"])
def test_bad_ranges_are_refused(gatherfs, sample, text):
    result = gatherfs.cat(sample, "model.safetensors", "--range", text)
    result.failed(2)
    assert result.out == b""


def test_paths_are_those_of_a_mount(gatherfs, sample, exported):
    whole = (exported / "config.json").read_bytes()
    assert gatherfs.cat(sample, "/config.json").ok().out == whole
    assert gatherfs.cat(sample, "full/config.json").ok().out == whole
    for path in ("nosuch", "raw/nosuch", "../latest", "global_step2/../latest", ""):
        gatherfs.cat(sample, path).failed(2)


def test_control_files(gatherfs, sample):
    status = json.loads(gatherfs.cat(sample, ".gatherfs/status.json").ok().out)
    assert status
    path = ".gatherfs/provenance/model.safetensors.json"
    assert "optim_states.pt" in json.dumps(json.loads(gatherfs.cat(sample, path).ok().out))
    for path in (".gatherfs/nosuch", ".gatherfs/provenance/nosuch.json", ".gatherfs/stats.json"):
        gatherfs.cat(sample, path).failed(2)


def test_cat_into_a_closed_pipe_is_quiet(gatherfs, sample):
    script = 'set -o pipefail; "$0" cat "$1" model.safetensors | head -c 10 >/dev/null'
    done = subprocess.run(
        ["bash", "-c", script, gatherfs.binary, sample], capture_output=True, text=True
    )
    assert done.stderr == ""
