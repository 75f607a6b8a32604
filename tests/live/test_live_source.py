# SPDX-License-Identifier: Apache-2.0
"""live:JOB from outside: exports, mounts, schedules, and what becomes of them when trainers are
killed, stopped, or started again."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from jobs import Job, eventually, steps, steps_in, values

fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no /dev/fuse")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """job(world, **options) -> Job, until the end of the test"""
    rundir = tmp_path / "run"
    rundir.mkdir(mode=0o700)
    monkeypatch.setenv("GATHERFS_RUNDIR", str(rundir))
    jobs = []

    def start(world=2, name="job", **options):
        jobs.append(Job(name, world, **options))
        return jobs[-1]

    yield start
    for each in jobs:
        each.end()


def read(path):
    with open(path, "rb") as f:
        return f.read()


# ---------------------------------------------------------------- one step, whole


LAYOUTS = [
    dict(layout="rows"),
    dict(layout="columns", tied=1),
    dict(layout="flat", rows=37, columns=13, buffer=1),
    dict(layout="replica", frozen=1),
    dict(layout="rows", rows=3, frozen=1, tied=1, buffer=1),
]


@pytest.mark.parametrize("options", LAYOUTS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("world", [1, 3])
def test_an_export_is_one_step(gatherfs, job, tmp_path, world, options):
    source = job(world, step_ms=1, **options).source
    seen = []
    for i in range(3):
        result = gatherfs.export(source, tmp_path / f"out{i}", "--json").ok()
        step = json.loads(result.text)["step"]
        tensors = values(read(tmp_path / f"out{i}" / "model.safetensors"))
        frozen = tensors.pop("model.frozen.weight", {7.0})
        assert frozen == {7.0}
        assert set.union(*tensors.values()) == {float(step)}
        assert ("lm_head.weight" in tensors) == ("tied" in options)
        assert ("model.running.mean" in tensors) == ("buffer" in options)
        seen.append(step)
    assert seen == sorted(seen) and seen[0] < seen[2]


def test_all_commands_read_a_job(gatherfs, job):
    source = job(2, config='{"model_type": "gpt2"}').source
    assert "job 'job', 2 ranks" in gatherfs.run("inspect", source).ok().text
    assert json.loads(gatherfs.run("inspect", "--json", source).ok().text)["format"] == "live"
    assert json.loads(gatherfs.cat(source, "config.json").ok().text)["model_type"] == "gpt2"
    assert len(steps(gatherfs.cat(source, "model.safetensors").ok().out)) == 1
    assert gatherfs.run("verify", source).code == 0
    for options in (["--dtype", "bf16"], ["--bin"], ["--max-shard-size", "10kB"]):
        gatherfs.run("verify", source, *options).ok()


def test_an_exact_step(gatherfs, job, tmp_path):
    source = job(2, step_ms=20).source
    gatherfs.export(source, tmp_path / "out", "--step", 150).ok()
    assert steps_in(tmp_path / "out") == ({150.0}, 1)
    time.sleep(0.1)
    line = gatherfs.export(source, tmp_path / "again", "--step", 150).failed(2)
    assert "step 150 is over" in line


# ---------------------------------------------------------------- mounts


def copy(source, dest):
    subprocess.run(["cp", "-r", source, dest], check=True, timeout=30)


@fuse
def test_a_copy_is_one_step_and_later_ones_are_newer(job, mount, tmp_path):
    point = mount(job(2, layers=30, step_ms=1).source, "-o", "max_shard_size=20kB")
    for i in range(2):
        copy(point, tmp_path / f"copy{i}")
    first, count = steps_in(tmp_path / "copy0")
    assert len(first) == 1 and count > 10
    # Within the lease everybody is given the same.
    assert steps_in(tmp_path / "copy1")[0] == first
    time.sleep(10.5)
    copy(point, tmp_path / "later")
    later = steps_in(tmp_path / "later")[0]
    assert len(later) == 1 and later > first or max(later) > max(first)


@fuse
def test_looking_around_costs_the_job_nothing(gatherfs, job, mount):
    source = job(2).source
    point = mount(source)
    for _ in range(3):
        subprocess.run(["ls", "-laR", point], check=True, stdout=subprocess.DEVNULL)
    status = json.loads(read(os.path.join(point, ".gatherfs/status.json")))
    assert [rank["snapshots"] for rank in status["live"]["ranks"]] == [0, 0]
    assert [rank["memory_bytes"] for rank in status["live"]["ranks"]] == [0, 0]
    # Whoever asks for the step gets one, and then that one.
    step = os.getxattr(point, "user.gatherfs.step").decode()
    assert steps(read(os.path.join(point, "model.safetensors"))) == {float(step)}


@fuse
def test_an_open_file_keeps_its_step(job, mount):
    point = mount(job(2, step_ms=1).source)
    with open(os.path.join(point, "model.safetensors"), "rb") as f:
        head = f.read(100)
        step = os.getxattr(point, "user.gatherfs.step")
        time.sleep(1)
        assert os.getxattr(point, "user.gatherfs.step") == step
        assert steps(head + f.read()) == {float(step)}


@fuse
def test_views_and_steps_are_directories(job, mount):
    point = mount(job(2, step_ms=1).source)
    first = steps(read(os.path.join(point, "full", "model.safetensors")))
    held = os.listdir(os.path.join(point, "steps"))
    assert [float(step) for step in held] == list(first)
    assert steps(read(os.path.join(point, "steps", held[0], "model.safetensors"))) == first
    assert not os.path.exists(os.path.join(point, "steps", "0"))
    assert "steps" not in os.listdir(point)


@fuse
def test_the_last_step_survives_the_trainer(gatherfs, job, mount, tmp_path):
    trainer = job(2, config='{"model_type": "gpt2"}')
    point = mount(trainer.source)
    step = steps(read(os.path.join(point, "model.safetensors")))
    trainer.kill()
    copy(point, tmp_path / "after")
    assert steps_in(tmp_path / "after")[0] == step
    assert json.loads(read(tmp_path / "after" / "config.json"))["model_type"] == "gpt2"
    # The mount has it for others, too.
    gatherfs.run("snapshot", trainer.source, tmp_path / "out").ok()
    assert steps_in(tmp_path / "out")[0] == step
    assert "has ended" in gatherfs.run("status", trainer.source).ok().text
    gatherfs.unmount(point)
    assert gatherfs.export(trainer.source, tmp_path / "late", "-o", "timeout=1").failed(1, 2)


@fuse
def test_without_any_step_a_killed_trainer_is_an_error(job, mount):
    trainer = job(2)
    point = mount(trainer.source)
    trainer.kill()
    time.sleep(0.2)
    with pytest.raises(OSError):
        read(os.path.join(point, "model.safetensors"))
    assert "model.safetensors" in os.listdir(point)


@fuse
def test_the_state_at_the_end_is_kept(job, mount):
    trainer = job(2, step_ms=5, steps=200, final_ms=8000)
    point = mount(trainer.source)
    start = time.monotonic()
    trainer.wait()
    assert time.monotonic() - start < 6
    assert steps(read(os.path.join(point, "model.safetensors"))) == {200.0}


@fuse
def test_all_of_the_last_step_is_kept_for_everybody(gatherfs, job, mount, tmp_path):
    trainer = job(2, step_ms=5, steps=200, final_ms=8000, frozen=1, config='{"model_type": "gpt2"}')
    point = mount(trainer.source)
    folder = tmp_path / "run" / "job"
    trainer.wait()
    result = gatherfs.run("snapshot", trainer.source, tmp_path / "out").ok()
    assert "no config.json" not in result.err
    assert json.loads(read(tmp_path / "out" / "config.json"))["model_type"] == "gpt2"
    for top in (point, tmp_path / "out"):  # nobody had read what is not trained
        tensors = values(read(os.path.join(top, "model.safetensors")))
        assert tensors.pop("model.frozen.weight") == {7.0}
        assert set.union(*tensors.values()) == {200.0}
    # Files that are not the mount's own stay.
    (folder / "model" / "mine.txt").write_text("mine")
    gatherfs.unmount(point)
    eventually(lambda: sorted(os.listdir(folder)) == ["model"])
    assert os.listdir(folder / "model") == ["mine.txt"]


@fuse
def test_a_job_that_starts_again_has_its_own_side_files(gatherfs, job, mount, tmp_path):
    folder = tmp_path / "run" / "job" / "model"
    first = job(1, steps=50, final_ms=8000, config='{"model_type": "gpt2"}')
    point = mount(first.source)
    first.wait()
    assert os.listdir(folder) == ["config.json"]
    job(1, config='{"model_type": "llama"}')
    eventually(lambda: json.loads(read(os.path.join(point, "config.json")))["model_type"] == "llama")
    gatherfs.unmount(point)
    assert json.loads(read(folder / "config.json"))["model_type"] == "llama"


@fuse
def test_side_files_that_are_missing_are_a_warning(gatherfs, job, mount, tmp_path):
    trainer = job(1, steps=50, final_ms=8000, config='{"model_type": "gpt2"}')
    mount(trainer.source)
    trainer.wait()
    shutil.rmtree(tmp_path / "run" / "job" / "model")
    result = gatherfs.export(trainer.source, tmp_path / "out").ok()
    assert "there is no config.json" in result.err


@fuse
def test_the_end_waits_until_its_last_step_has_a_slot(job, mount):
    trainer = job(2, step_ms=5, steps=200, slots=1, final_ms=20000)
    point = mount(trainer.source)
    path = os.path.join(point, "model.safetensors")
    with open(path, "rb") as f:
        old = f.read(64)
        time.sleep(3)
        assert all(rank.poll() is None for rank in trainer.ranks)
        assert steps(old + f.read()) != {200.0}
    trainer.wait()
    assert steps(subprocess.check_output(["cat", path])) == {200.0}


@fuse
def test_a_restarted_job_takes_over(job, mount):
    first = job(2, step_ms=1)
    point = mount(first.source)
    path = os.path.join(point, "model.safetensors")
    with open(path, "rb") as f:
        old = f.read(64)
        first.kill()
        job(3, step_ms=1, run="two", first=100000, layers=5)
        eventually(lambda: len(values(subprocess.check_output(["cat", path]))) == 5)
        assert min(steps(subprocess.check_output(["cat", path]))) >= 100000
        assert max(steps(old + f.read())) < 100000


@fuse
def test_a_stopped_job_is_not_waited_for_forever(job, mount):
    trainer = job(2, step_ms=5)
    point = mount(trainer.source, "-o", "timeout=2")
    trainer.signal(signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(OSError):
        read(os.path.join(point, "model.safetensors"))
    assert time.monotonic() - start < 10
    trainer.signal(signal.SIGCONT)
    assert len(steps(read(os.path.join(point, "model.safetensors")))) == 1


@fuse
def test_a_reader_that_is_killed_frees_its_step(gatherfs, job, mount, tmp_path):
    source = job(2, step_ms=1).source
    point = mount(source)
    with open(os.path.join(point, ".gatherfs/status.json")) as f:
        pid = json.load(f)["mount"]["pid"]
    read(os.path.join(point, "model.safetensors"))
    os.kill(pid, signal.SIGKILL)
    subprocess.run(["umount", "-l", point], check=False)
    gatherfs.export(source, tmp_path / "out").ok()
    assert len(steps_in(tmp_path / "out")[0]) == 1


# ---------------------------------------------------------------- several at a time


@fuse
def test_further_processes_ask_the_first(gatherfs, job, mount, tmp_path):
    source = job(2, step_ms=2, frozen=1, layers=8).source
    points = [mount(source) for _ in range(3)]
    for point in points:
        tensors = values(read(os.path.join(point, "model.safetensors")))
        assert tensors.pop("model.frozen.weight") == {7.0}
        assert len(set.union(*tensors.values())) == 1
    gatherfs.export(source, tmp_path / "out").ok()
    assert len(steps_in(tmp_path / "out")[0]) == 1
    assert "ranks       2 of 2" in gatherfs.run("status", source).ok().text


@fuse
def test_when_the_first_is_killed_another_takes_over(job, mount):
    source = job(2, step_ms=2).source
    first, second = mount(source), mount(source)
    path = os.path.join(second, "model.safetensors")
    with open(os.path.join(first, ".gatherfs/status.json")) as f:
        pid = json.load(f)["mount"]["pid"]
    with open(path, "rb") as f:
        head = f.read(64)
        os.kill(pid, signal.SIGKILL)
        subprocess.run(["umount", "-l", first], check=False)
        assert len(steps(head + f.read())) == 1
    time.sleep(11)
    assert len(steps(subprocess.check_output(["cat", path]))) == 1
    third = mount(source)
    assert len(steps(read(os.path.join(third, "model.safetensors")))) == 1


@fuse
def test_a_schedule_runs_beside_a_mount(gatherfs, job, mount, tmp_path):
    source = job(2, step_ms=10, steps=250, final_ms=8000).source
    point = mount(source)
    assert len(steps(read(os.path.join(point, "model.safetensors")))) == 1
    gatherfs.run("snapshot", source, tmp_path / "c", "--every", 50, "--keep", 2, timeout=40).ok()
    for name in os.listdir(tmp_path / "c"):
        if name.startswith("checkpoint-"):
            assert steps_in(tmp_path / "c" / name)[0] == {float(name.split("-")[1])}
    assert os.readlink(tmp_path / "c" / "latest") in os.listdir(tmp_path / "c")


def schedule(gatherfs, source, dest, *options):
    return subprocess.Popen(
        [gatherfs.binary, "snapshot", source, str(dest), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(process):
    out, errors = process.communicate(timeout=40)
    return [int(line.split(":")[0].rsplit("-", 1)[1]) for line in out.splitlines()], errors


@fuse
@pytest.mark.parametrize("idle", [0, 10.5])
def test_a_schedule_goes_on_beside_a_mount_that_was_read(gatherfs, job, mount, tmp_path, idle):
    source = job(2, step_ms=20, final_ms=8000).source
    path = os.path.join(mount(source), "model.safetensors")
    subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)
    time.sleep(idle)
    processes = [
        schedule(gatherfs, source, tmp_path / str(i), "--every", "25", "--keep", "2")
        for i in range(2 if idle else 1)
    ]
    time.sleep(5)
    for process in processes:
        process.terminate()
    for i, process in enumerate(processes):
        written, errors = printed(process)
        assert len(written) >= (4 if idle else 6), errors
        assert written == sorted(set(written))
        # A step that has passed is replaced by the newest: of two schedules one is late.
        if len(processes) == 1:
            assert sum(step % 25 == 0 for step in written) >= len(written) // 2
            assert "warning" not in errors
        for step in written[-2:]:
            assert steps_in(tmp_path / str(i) / f"checkpoint-{step}")[0] == {float(step)}


@fuse
def test_a_schedule_without_a_slot_waits(gatherfs, job, mount, tmp_path):
    source = job(1, step_ms=20, slots=1).source
    path = os.path.join(mount(source), "model.safetensors")
    with open(path, "rb") as f:
        f.read(64)
        process = schedule(gatherfs, source, tmp_path / "c", "--every", "25")
        time.sleep(2.5)
    time.sleep(12)
    process.terminate()
    written, errors = printed(process)
    assert errors.count("warning") == 1 and "all its slots are being read" in errors
    assert len(written) >= 2 and written == sorted(set(written))


def test_two_schedules_do_not_share_a_directory(gatherfs, job, tmp_path):
    source = job(1, step_ms=20).source
    first = schedule(gatherfs, source, tmp_path / "c", "--every", "25")
    eventually(lambda: os.path.exists(tmp_path / "c" / "latest"))
    line = gatherfs.run("snapshot", source, tmp_path / "c", "--every", 10).failed(2)
    assert "another 'gatherfs snapshot --every' writes there" in line
    first.terminate()
    assert first.wait(10) == 0
    first.communicate()


# ---------------------------------------------------------------- errors


def test_a_missing_job_is_one_line(gatherfs, job, tmp_path):
    job(1, name="other")
    for command in (["inspect"], ["export"], ["verify"], ["status"]):
        dest = [tmp_path / "out"] if command == ["export"] else []
        assert "no job 'nothing'" in gatherfs.run(*command, "live:nothing", *dest).failed(2)
    assert not os.path.exists(tmp_path / "out")
    assert "letters, digits" in gatherfs.run("inspect", "live:a b").failed(2)


def test_missing_ranks_are_named(gatherfs, job, tmp_path):
    trainer = job(3)
    trainer.signal(signal.SIGKILL, 1)
    line = gatherfs.export(trainer.source, tmp_path / "out", "-o", "timeout=1").failed(1)
    assert "2 of 3 ranks are here; missing on this node: rank 1" in line


# ---------------------------------------------------------------- status, snapshot


def test_status_tells_how_the_job_is_doing(gatherfs, job):
    source = job(2, metric=1, step_ms=5).source
    text = gatherfs.run("status", source).ok().text
    assert "ranks       2 of 2" in text
    status = json.loads(gatherfs.run("status", "--json", source).ok().text)
    assert status["world"] == 2 and len(status["ranks"]) == 2
    assert {"step", "stall_ms", "memory_bytes", "snapshots"} <= set(status["ranks"][0])


def test_a_snapshot_is_a_model_directory(gatherfs, job, tmp_path):
    source = job(2, step_ms=1).source
    gatherfs.run("snapshot", source, tmp_path / "out").ok()
    assert len(steps_in(tmp_path / "out")[0]) == 1
    assert "is no live job" in gatherfs.run("snapshot", tmp_path, tmp_path / "x").failed(2)
    assert "--keep needs --every" in gatherfs.run(
        "snapshot", source, tmp_path / "x", "--keep", 2
    ).failed(2)


def test_a_schedule_keeps_the_newest_and_the_best(gatherfs, job, tmp_path):
    dest = tmp_path / "ckpt"
    (dest / "checkpoint-7").mkdir(parents=True)  # the trainer's own
    (dest / "checkpoint-7" / "model.safetensors").write_bytes(b"")
    source = job(2, step_ms=10, steps=120, metric=1, final_ms=8000).source
    result = gatherfs.run(
        "snapshot", source, dest, "--every", 20, "--keep", 2, "--best", "loss:max", timeout=40
    ).ok()
    written = [int(line.split(":")[0].rsplit("-", 1)[1]) for line in result.text.splitlines()]
    assert written == sorted(written) and written[-1] == 120
    # A trainer that is late by a step is given the step it is at.
    assert sum(step % 20 == 0 for step in written) >= len(written) - 1
    left = sorted(name for name in os.listdir(dest) if not name.startswith("."))
    best = os.readlink(dest / "best")
    assert best == f"checkpoint-{written[0]}"
    assert os.readlink(dest / "latest") == "checkpoint-120"
    wanted = {f"checkpoint-{step}" for step in written[-2:]} | {best, "checkpoint-7"}
    assert left == sorted(wanted | {"best", "latest"})
    for name in wanted - {"checkpoint-7"}:
        assert steps_in(dest / name)[0] == {float(name.split("-")[1])}


def snapshots(result):
    return [json.loads(line) for line in result.text.splitlines()]


def test_a_schedule_deletes_only_what_it_wrote(gatherfs, job, tmp_path):
    dest, archive = tmp_path / "ckpt", tmp_path / "archive"
    source = job(1, step_ms=10, steps=300, metric=1, final_ms=8000).source
    command = ["snapshot", source, dest, "--every", 20, "--best", "loss", "--json"]
    written = snapshots(gatherfs.run(*command, timeout=40).ok())
    for before, one in zip([None] + written, written):
        if "metric" in one:
            assert 1000 - one["metric"] <= one["step"]
            assert not before or 1000 - one["metric"] > before["step"]
    linked, replaced, added, half, gone, part = [
        dest / f"checkpoint-{one['step']}" for one in written[:6]
    ]
    linked.rename(archive)
    linked.symlink_to(archive)
    shutil.rmtree(replaced)
    replaced.mkdir()
    (replaced / "model.safetensors").write_bytes(b"the trainer's")
    (added / "optimizer.pt").write_bytes(b"the trainer's")
    half.rename(dest / f".{half.name}.gatherfs-old")
    part.rename(dest / f"{part.name}.gatherfs-part")
    shutil.rmtree(gone)
    (dest / "best").unlink()
    (dest / "best").symlink_to(replaced.name)
    job(1, name="two", first=1000, step_ms=10, steps=1050, metric=1, final_ms=8000)
    command[1] = "live:two"
    gatherfs.run(*command, "--keep", 1, timeout=40).ok()
    assert linked.is_symlink() and len(os.listdir(archive)) > 0
    assert steps_in(archive)[0] == {float(written[0]["step"])}
    assert read(replaced / "model.safetensors") == b"the trainer's"
    assert {"model.safetensors", "optimizer.pt"} <= set(os.listdir(added))
    assert os.readlink(dest / "best") == replaced.name
    assert set(os.listdir(dest)) == {
        linked.name, replaced.name, added.name, "checkpoint-1050",
        "best", "latest", ".gatherfs-snapshots.json",
    }  # fmt: skip


def test_a_trainers_own_checkpoint_of_a_step_counts(gatherfs, job, tmp_path):
    dest = tmp_path / "ckpt"
    (dest / "checkpoint-60").mkdir(parents=True)
    (dest / "checkpoint-60" / "model.safetensors").write_bytes(b"the trainer's")
    (dest / "latest").symlink_to("checkpoint-60")
    source = job(1, step_ms=10, steps=60, final_ms=8000).source
    result = gatherfs.run("snapshot", source, dest, "--every", 20, timeout=40).ok()
    assert "checkpoint-60" not in result.text
    assert "warning" in result.err and "checkpoint-60' is there already" in result.err
    assert os.listdir(dest / "checkpoint-60") == ["model.safetensors"]
    assert os.readlink(dest / "latest") == "checkpoint-60"
    assert not [name for name in os.listdir(dest) if "part" in name]


@fuse
def test_a_full_disk_ends_no_schedule(gatherfs, job, tmp_path):
    dest = tmp_path / "small"
    dest.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80k", "none", dest])
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs")
    try:
        (dest / "filler").write_bytes(b"")
        source = job(1, step_ms=10, rows=32, steps=200, final_ms=8000).source
        process = subprocess.Popen(
            [gatherfs.binary, "snapshot", source, str(dest), "--every", "20"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert b"warning" in process.stderr.readline()
        for name in os.listdir(dest):
            if name.startswith("checkpoint-") and "part" not in name:
                shutil.rmtree(dest / name)
        out, errors = process.communicate(timeout=30)
        assert len(out.splitlines()) >= 2
        # The last step is what it is for.
        assert process.returncode == (0 if b"checkpoint-200:" in out else 2)
    finally:
        subprocess.run(["umount", dest], check=True)


def test_an_automatic_schedule_plans_with_the_jobs_own_times(gatherfs, job, tmp_path):
    source = job(2, step_ms=10, steps=150, final_ms=8000).source
    result = gatherfs.run("snapshot", source, tmp_path / "c", "--every", "auto", timeout=40).ok()
    assert len(result.text.splitlines()) >= 2
    assert os.readlink(tmp_path / "c" / "latest") == "checkpoint-150"


def test_a_signal_ends_a_schedule(gatherfs, job, tmp_path):
    source = job(2, step_ms=5).source
    process = subprocess.Popen(
        [gatherfs.binary, "snapshot", source, str(tmp_path / "c"), "--every", "200ms"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() and process.stdout.readline()
    process.terminate()
    assert process.wait(10) == 0
    process.stdout.close()
    for name in os.listdir(tmp_path / "c"):
        assert "part" not in name
        if name.startswith("checkpoint-"):
            assert len(steps_in(tmp_path / "c" / name)[0]) == 1
    shutil.rmtree(tmp_path / "c")
