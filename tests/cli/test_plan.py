# SPDX-License-Identifier: Apache-2.0
"""gatherfs plan: its optimum against a simulation, what it measures, what it refuses."""

import json
import os
import random
import shutil
import statistics
from pathlib import Path

import pytest

FAILURES = 60_000


def plan(gatherfs, *args):
    return json.loads(gatherfs.run("plan", "--json", *args).ok().out)


# ---- the model, simulated failure by failure ----


class Failures:
    """The same failures for every interval, so that intervals can be compared: times from a
    restart to the next failure, and the times of the restarts with those that fail themselves."""

    def __init__(self, mtbf, restart, seed=7):
        rng = random.Random(seed)
        self.gaps = [rng.expovariate(1 / mtbf) for _ in range(FAILURES)]
        self.restarts = 0.0
        for _ in range(FAILURES):
            while (failed := rng.expovariate(1 / mtbf)) < restart:
                self.restarts += failed
            self.restarts += restart

    def cost(self, compute, save, write=0.0):
        """(lost time / useful time, lost work per failure, error of both) of saving after
        `compute` seconds"""
        saved = lost = 0.0
        for gap in self.gaps:
            whole = int(gap / (compute + save))
            rest = gap - whole * (compute + save)
            if rest < write and whole:  # the newest snapshot was not yet written
                whole -= 1
                rest += compute + save
            saved += whole
            lost += rest
        useful = saved * compute
        cost = (sum(self.gaps) + self.restarts - useful) / useful
        return cost, lost / FAILURES, 0.02 + 4 / saved**0.5


@pytest.mark.parametrize(
    "step, save, write, mtbf, restart",
    [
        (1, 90, 0, 43200, 300),
        (1, 90, 0, 43200, 0),
        (0.5, 2, 60, 43200, 300),  # live snapshots
        (10, 600, 0, 3600, 300),  # C is not small against M
        (10, 3600, 0, 3600, 60),
    ],
)
def test_no_interval_is_better_in_a_simulation(gatherfs, step, save, write, mtbf, restart):
    options = ["--step-time", step, "--mtbf", mtbf, "--restart-time", restart]
    if write:
        options += ["--snapshot-time", save, "--save-time", write]
    else:
        options += ["--save-time", save]
    result = plan(gatherfs, *options)
    failures = Failures(mtbf, restart)
    best = result["best"]
    cost = failures.cost(best["seconds"], save, write)[0]
    for factor in (0.4, 0.6, 0.8, 0.9, 1.1, 1.25, 1.5, 2.5):
        other = failures.cost(best["seconds"] * factor, save, write)[0]
        assert cost <= other * 1.01, f"saving at {factor} of the interval costs less"
    for row in result["compare"]:
        cost, lost, error = failures.cost(row["seconds"], save, write)
        assert row["overhead"] == pytest.approx(cost, rel=error), row
        assert row["lost_per_failure_s"] == pytest.approx(lost, rel=error), row


def test_the_whole_job_takes_as_long_as_simulated(gatherfs):
    step, save, mtbf, restart, steps = 10, 60, 3600, 120, 2500
    result = plan(gatherfs, "--step-time", step, "--save-time", save, "--mtbf", mtbf,
                  "--restart-time", restart, "--steps", steps)
    every = result["best"]["steps"]
    rng = random.Random(3)
    totals = []
    for _ in range(1000):
        wall, done, failure = 0.0, 0, rng.expovariate(1 / mtbf)
        while done < steps:
            length = min(every, steps - done)
            need = length * step + save
            if wall + need <= failure:
                wall, done = wall + need, done + length
                continue
            wall = failure
            while True:
                failure = wall + rng.expovariate(1 / mtbf)
                if failure - wall >= restart:
                    wall += restart
                    break
                wall = failure
        totals.append(wall)
    assert result["best"]["total_s"] == pytest.approx(statistics.mean(totals), rel=0.02)
    assert result["best"]["failures"] == pytest.approx(statistics.mean(totals) / mtbf, rel=0.02)
    assert result["best"]["checkpoints"] == -(-steps // every)


# ---- options ----


def test_several_ways_to_say_the_same(gatherfs):
    by_time = plan(gatherfs, "--step-time", "800ms", "--save-time", "1.5m", "--mtbf", "0.5d")
    by_size = plan(gatherfs, "--step-time", "0.8", "--size", "180GB", "--bandwidth", "2GB/s",
                   "--node-mtbf", "32d", "--nodes", "64")
    assert by_time["best"] == by_size["best"]
    assert by_time["inputs"]["checkpoint_bytes"] is None
    by_steps = plan(gatherfs, "--step-time", "2s", "--save-time", "9s", "--mtbf", "1h",
                    "--steps", "900")
    by_duration = plan(gatherfs, "--step-time", "2s", "--save-time", "9s", "--mtbf", "1h",
                       "--duration", "30m")
    assert by_steps == by_duration


def test_disk_is_what_is_kept_and_one_more(gatherfs):
    common = ["--step-time", "1s", "--size", "100GB", "--bandwidth", "1GB", "--mtbf", "1d"]
    disk = plan(gatherfs, *common, "--keep", "3")["disk"]
    assert disk["full"] == {"each": 10**11, "count": 3, "total": 3 * 10**11, "peak": 4 * 10**11}
    assert disk["weights"] is None
    result = plan(gatherfs, *common, "--steps", "40000")
    all_of_them = result["best"]["checkpoints"]
    assert result["disk"]["full"]["count"] == all_of_them > 3
    assert result["disk"]["full"]["peak"] == result["disk"]["full"]["total"]
    few = plan(gatherfs, *common, "--steps", "40000", "--keep", "1000")
    assert few["disk"] == result["disk"], "a job cannot keep more than it writes"


def test_live_snapshots_are_compared_with_saves(gatherfs):
    saves = ["--step-time", "1s", "--save-time", "90s", "--mtbf", "12h"]
    alone = plan(gatherfs, *saves)
    both = plan(gatherfs, *saves, "--snapshot-time", "0.5s")
    assert both["without_snapshots"] == alone["best"]
    assert both["best"]["overhead"] < alone["best"]["overhead"] / 3
    assert alone["without_snapshots"] is None
    slow = plan(gatherfs, "--step-time", "1s", "--save-time", "20m", "--mtbf", "12h",
                "--snapshot-time", "0.5s")
    assert slow["limited_by_write"] and slow["best"]["seconds"] == 1200


def test_the_table_is_the_json(gatherfs):
    options = ["--step-time", "1s", "--save-time", "90s", "--mtbf", "12h", "--keep", "2",
               "--size", "50GB"]
    result = plan(gatherfs, *options)
    text = gatherfs.run("plan", *options).ok().text
    assert f"save every     {result['best']['steps']} steps" in text
    assert "100.0 GB for 2 of 50.0 GB each, 150.0 GB while one is written" in text
    rows = [int(line.split()[0]) for line in text.splitlines() if line.split()[:1] and
            line.split()[0].isdigit()]
    assert rows == [row["steps"] for row in result["compare"]]
    assert len(rows) == 5 and rows[2] == result["best"]["steps"]


@pytest.mark.parametrize(
    "args, text",
    [
        ([], "missing: --step-time, --save-time"),
        ([], "for example: gatherfs plan --step-time 0.8s --save-time 90s --mtbf 12h"),
        (["--step-time", "1s", "--save-time", "1s"], "missing: --mtbf (or --node-mtbf"),
        (["--step-time", "1s", "--save-time", "1s", "--node-mtbf", "1d"], "missing: --nodes;"),
        (["--step-time", "1s", "--save-time", "1s", "--nodes", "2"], "missing: --node-mtbf;"),
        (["--step-time", "1s", "--mtbf", "1d", "--bandwidth", "1GB/s"], "and --size)"),
        (["--step-time", "1s", "--mtbf", "1d", "--nodes", "2"], "--mtbf is that of the whole"),
        (["--mtbf", "1d", "--node-mtbf", "2d"], "--mtbf and --node-mtbf exclude"),
        (["--steps", "1", "--duration", "2d"], "--steps and --duration exclude"),
        (["--save-time", "1s", "--bandwidth", "1GB"], "--save-time and --bandwidth exclude"),
        (["--step-time", "fast"], "--step-time: 'fast' is not a time such as"),
        (["--mtbf", "1e9"], "--mtbf: '1e9'"),
        (["--size", "big"], "--size: 'big' is not a size such as"),
        (["--bandwidth", "2GB/h"], "--bandwidth: '2GB/h' is not a rate such as"),
        (["--keep", "0"], "--keep: '0'"),
        (["--step-time", "0s", "--save-time", "1s", "--mtbf", "1d"], "step time: 0 s"),
        (["--step-time", "1s", "--save-time", "1s", "--mtbf", "1d", "--duration", "0s"],
         "--duration: 0 s"),
        (["/nowhere", "--mtbf", "1d"], "/nowhere"),
    ],
)
def test_what_is_missing_or_wrong_is_named(gatherfs, args, text):
    assert text in gatherfs.run("plan", *args).failed(2)


@pytest.mark.parametrize("times", [("1s", "24h", "1h"), ("9h", "1s", "10s")])
def test_a_job_that_gets_nowhere_is_said_plainly(gatherfs, times):
    step, save, mtbf = times
    args = ["--step-time", step, "--save-time", save, "--mtbf", mtbf]
    for json in [], ["--json"]:
        assert "no interval makes progress" in gatherfs.run("plan", *args, *json).failed(1)


# ---- measured ----


@pytest.fixture
def run(sample, tmp_path):
    """A run of the sample's checkpoint: steps 100, 200, 300, a minute apart."""
    for i in (1, 2, 3):
        step = tmp_path / "run" / f"step_{i}00"
        shutil.copytree(sample, step)
        for path in step.rglob("*"):
            if path.is_file():
                os.utime(path, (1_700_000_000 + 60 * i,) * 2)
    return tmp_path / "run"


def size_of(path):
    return sum(p.stat().st_size for p in Path(path).rglob("*") if p.is_file())


def test_a_run_measures_itself(gatherfs, run):
    result = plan(gatherfs, run, "--save-time", "6s", "--mtbf", "12h", "--keep", "2")
    step, full, weights = (
        result["inputs"][key] for key in ("step_time_s", "checkpoint_bytes", "weights_bytes")
    )
    assert step["value"] == pytest.approx((60 - 6) / 100)
    assert step["from"] == "measured: times of 3 checkpoints, steps 100 to 300, less a save each"
    assert full["value"] == size_of(run / "step_300")
    assert full["from"].startswith("measured: ") and weights["from"].startswith("measured: ")
    served = json.loads(gatherfs.run("inspect", "--json", run / "step_300").ok().out)
    files = next(v["files"] for v in served["views"] if v["default"])
    assert weights["value"] == sum(f["size"] for f in files if "safetensors" in f["name"])
    assert result["disk"]["weights"]["peak"] == 3 * weights["value"]
    assert result["as_measured"]["steps"] == 100
    assert "as this run does" in gatherfs.run(
        "plan", run, "--save-time", "6s", "--mtbf", "12h").ok().text


def test_what_is_given_goes_before_what_is_measured(gatherfs, run):
    result = plan(gatherfs, run, "--bandwidth", "1MB/s", "--mtbf", "12h", "--size", "9MB",
                  "--step-time", "2s")
    assert result["inputs"]["save_time_s"]["value"] == 9
    assert result["inputs"]["step_time_s"] == {"value": 2, "from": "given"}


def test_one_checkpoint_knows_its_size_but_no_step_time(gatherfs, sample):
    line = gatherfs.run("plan", sample, "--bandwidth", "1GB/s", "--mtbf", "1d").failed(2)
    assert line.startswith("gatherfs: missing: --step-time (SOURCE has no two numbered")
    result = plan(gatherfs, sample, "--bandwidth", "1GB/s", "--mtbf", "1d", "--step-time", "1s")
    assert result["inputs"]["checkpoint_bytes"]["value"] == size_of(sample)
    assert result["as_measured"] is None


def test_the_other_tags_of_a_root_are_not_of_the_checkpoint(gatherfs, sample_copy):
    alone = size_of(sample_copy)
    shutil.copytree(sample_copy / "global_step2", sample_copy / "global_step1")
    options = [sample_copy, "--save-time", "1s", "--mtbf", "1d", "--step-time", "1s"]
    both = plan(gatherfs, *options)["inputs"]["checkpoint_bytes"]
    assert size_of(sample_copy / "global_step2") <= both["value"] <= alone


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="no /dev/fuse")
def test_a_mount_measures_its_reads(gatherfs, mount, run):
    point = mount(run, "--dtype", "fp32", "--direct-io")
    options = [point, "--save-time", "6s", "--mtbf", "12h"]
    before = plan(gatherfs, *options)["inputs"]
    assert before["mount_read_bandwidth"] is None
    assert before["restart_time_s"]["value"] == 0
    for _ in range(10):  # a sample this small is read often before it is worth a figure
        Path(point, "latest/model.safetensors").read_bytes()
    stats = json.loads(Path(point, ".gatherfs/stats.json").read_text())
    assert stats["bytes"] > 1 << 20 and 0 < stats["read_s"] < 20
    result = plan(gatherfs, *options)["inputs"]
    assert result["weights_bytes"]["value"] == os.path.getsize(
        os.path.join(point, "latest/model.safetensors"))
    assert result["step_time_s"]["value"] == pytest.approx(0.54)
    rate = result["mount_read_bandwidth"]
    assert rate["value"] == pytest.approx(stats["bytes"] / stats["read_s"], rel=0.01)
    assert rate["from"].startswith("measured: one reader of the mount")
    assert result["restart_time_s"]["value"] == pytest.approx(
        result["weights_bytes"]["value"] / rate["value"])
