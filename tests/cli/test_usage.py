# SPDX-License-Identifier: Apache-2.0
"""Help, options, exit codes, and the one line on stderr of a command that fails."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

COMMANDS = ["mount", "umount", "inspect", "export", "cat", "verify", "status", "plan", "doctor"]
READERS = ["inspect", "export", "cat", "verify", "mount"]  # they take a SOURCE and every option
SECOND = {"export": ["{tmp}/out"], "cat": ["config.json"], "mount": ["{tmp}/mnt"]}


def words(command, sample, tmp_path):
    """A valid command line, but for what a test adds."""
    (tmp_path / "mnt").mkdir(exist_ok=True)
    return [command, sample, *[w.format(tmp=tmp_path) for w in SECOND.get(command, [])]]


def option_keys(gatherfs):
    text = gatherfs.run("--help").ok().text
    return re.findall(r"^ +(?:-., )?--([a-z-]+)", text, re.M)


def test_version_says_which_parts_are_in(gatherfs):
    lines = gatherfs.run("--version").ok().text.splitlines()
    assert re.fullmatch(r"gatherfs \d+\.\d+\.\d+", lines[0])
    assert [line.split()[0] for line in lines[1:]] == ["fuse", "mpi", "cuda", "zstd", "kernels"]


def test_overview_names_every_command(gatherfs):
    text = gatherfs.run("--help").ok().text
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", text, re.M), command


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(gatherfs, command):
    result = gatherfs.run(command, "--help").ok()
    assert result.text.startswith(f"usage: gatherfs {command}")
    assert result.err == ""
    assert gatherfs.run("help", command).ok().text == result.text


@pytest.mark.parametrize("command", READERS)
def test_every_reader_shows_every_option(gatherfs, command):
    text = gatherfs.run(command, "--help").ok().text
    keys = option_keys(gatherfs)
    assert {"config-from", "dtype", "max-shard-size", "view", "tag"} <= set(keys)
    for key in keys:
        assert f"--{key}" in text, key


def test_the_documents_name_every_option_and_command(gatherfs):
    top = Path(__file__).parent.parent.parent
    for path in (top / "tools/man/gatherfs.1", top / "README.md"):
        text = path.read_text().replace("\\-", "-")
        for word in [f"--{key}" for key in option_keys(gatherfs)] + COMMANDS:
            if word != "--verbose":  # known as -v
                assert word in text, f"{path.name} does not mention {word}"


@pytest.mark.parametrize(
    "args, text",
    [
        ([], "no command"),
        (["insepct"], "did you mean 'inspect'"),
        (["frobnicate"], "unknown command 'frobnicate'"),
        (["/"], "MOUNTPOINT is missing"),
        (["live:run7"], "MOUNTPOINT is missing"),
        (["live:"], "no job name behind 'live:'"),
        (["live:", "/mnt"], "no job name behind 'live:'"),
        (["status", "live:"], "no job name behind 'live:'"),
        (["snapshot", "live:", "x"], "no job name behind 'live:'"),
        (["inspect"], "usage: gatherfs inspect SOURCE"),
        (["cat", "a", "b", "c"], "one word too many: 'c'"),
        (["inspect", "--tensor", "x"], "did you mean '--tensors'"),
        (["inspect", "--xyzzy", "x"], "unknown option '--xyzzy'"),
        (["inspect", "-q", "x"], "unknown option '-q'"),
        (["inspect", "--json=1", "x"], "'--json' takes no value"),
        (["inspect", "x", "--view"], "'--view' needs a value"),
        (["inspect", "x", "-o"], "'-o' needs a value"),
        (["inspect", "x", "-o", "frobnicate=1"], "frobnicate"),
        (["inspect", "x", "--dtype", "int8"], "int8"),
        (["inspect", "x", "--max-shard-size", "big"], "big"),
        (["export", "x", "y", "--jobs", "0"], "--jobs: '0'"),
        (["export", "x", "y", "--jobs", "4x"], "--jobs: '4x'"),
        (["umount", "--dtype", "fp32", "x"], "unknown option '--dtype'"),
        (["help", "frobnicate"], "unknown command 'frobnicate'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(gatherfs, args, text):
    assert text in gatherfs.run(*args).failed(2)


@pytest.mark.parametrize("command", ["inspect", "export", "cat", "verify"])
@pytest.mark.parametrize(
    "options",
    [
        ["--dtype", "fp32"],
        ["--dtype=fp32"],
        ["-o", "dtype=fp32"],
        ["-odtype=fp32"],
        ["-o", "rw,nofail,x-systemd.automount,dtype=fp32,allow_other"],
        ["--max-shard-size", "5GB", "-o", "max_shard_size=1GB,threads=2"],
        ["--max_shard_size", "5GB"],
        ["-v"],
    ],
)
def test_options_are_the_same_for_every_command(gatherfs, sample, tmp_path, command, options):
    gatherfs.run(*words(command, sample, tmp_path), *options).ok()


@pytest.mark.parametrize("command", READERS)
def test_a_missing_source_is_exit_2(gatherfs, tmp_path, command):
    line = gatherfs.run(*words(command, tmp_path / "gone", tmp_path)).failed(2)
    assert "gone" in line


@pytest.mark.parametrize("command", ["inspect", "export", "cat", "verify"])
def test_a_missing_rank_file_is_exit_1(gatherfs, sample_copy, tmp_path, command):
    gone = next(sample_copy.glob("global_step2/*_rank_2_*optim_states.pt"))
    gone.unlink()
    line = gatherfs.run(*words(command, sample_copy, tmp_path)).failed(1)
    assert "optim_states.pt" in line
    assert not (tmp_path / "out").exists()


def test_inspect_json_is_json(gatherfs, sample):
    plain = json.loads(gatherfs.run("inspect", "--json", sample).ok().out)
    full = json.loads(gatherfs.run("inspect", "--json", "--tensors", sample).ok().out)
    assert set(plain) <= set(full)
    assert "lm_head.weight" in json.dumps(full)


def test_json_of_a_name_that_is_no_text_is_json(gatherfs, sample, tmp_path):
    source = os.fsencode(tmp_path) + b"/run\xff"
    shutil.copytree(os.fsencode(sample), source + b"/checkpoint\xe9")
    result = gatherfs.run("inspect", "--json", os.fsdecode(source)).ok()
    shown = json.loads(result.out.decode("utf-8", "strict"))
    assert shown["source"].endswith("/run\ufffd")
    assert [c["name"] for c in shown["checkpoints"]] == ["checkpoint\ufffd"]


def test_inspect_tells_step_and_completeness(gatherfs, sample):
    text = gatherfs.run("inspect", sample).ok().text
    assert "ZeRO" in text and "global_step2" in text and "complete" in text


def test_status_lists_mounts_as_json(gatherfs):
    assert isinstance(json.loads(gatherfs.run("status", "--json").ok().out), list)


def test_status_of_what_is_no_mount(gatherfs, tmp_path):
    assert "is not a gatherfs mount" in gatherfs.run("status", tmp_path).failed(2)


def test_umount_of_what_is_no_mount(gatherfs, tmp_path):
    gatherfs.run("umount", tmp_path).failed(2)


def test_doctor_prints_one_state_a_line(gatherfs):
    result = gatherfs.run("doctor")
    assert result.code in (0, 2)
    assert {line.split()[0] for line in result.text.splitlines()} <= {"ok", "warn", "fail"}
    assert (result.code == 2) == ("\nfail" in "\n" + result.text)


def test_output_that_cannot_be_written_is_an_error(gatherfs, sample):
    for args in (["--help"], ["inspect", sample], ["cat", sample, "config.json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [gatherfs.binary, *map(str, args)], stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1 and "cannot write the output" in done.stderr
