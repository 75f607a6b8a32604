# SPDX-License-Identifier: Apache-2.0
"""Real trainings that publish: what gatherfs shows of step S is, bit for bit, what the
framework's own gather gave at step S."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

HERE = Path(__file__).parent
SHIM = HERE.parent / "frontends" / "shim"
START = 150  # seconds until all ranks publish
EXPORTS = 3
MODES = {
    2: ["ddp", "fsdp1", "fsdp1_flat", "fsdp2", "fsdp2_kept", "tp", "compiled", "two_optimizers"]
    + ["trainer_lora", "trainer_fsdp1", "trainer_fsdp2", "zero1", "zero2", "zero3"]
    + ["accelerate_zero2", "trainer_zero3"],
    4: ["hsdp"],
}
NEEDS = {"zero": "deepspeed", "trainer": "transformers", "accelerate": "accelerate", "lora": "peft"}


def missing(mode):
    return [name for part, name in NEEDS.items() if part in mode and not importlib.util.find_spec(name)]


class Ranks:
    """The processes of one world size, which run one job after the other: starting them takes
    longer than the jobs."""

    def __init__(self, world, modes, out, rundir):
        self.out, self.modes = out, modes
        env = {
            **os.environ,
            "PYTHONPATH": str(SHIM),
            "GATHERFS_TEST_CPU_SHIM": "1",
            "GATHERFS_RUNDIR": str(rundir),
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
        }
        for mode in modes:
            shutil.rmtree(out / mode, ignore_errors=True)
            (out / mode).mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(world)]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        self.log = open(out / f"{world}.log", "w+")
        self.process = subprocess.Popen(
            [*command, str(HERE / "train_ranks.py"), ",".join(modes), str(out)],
            env=env,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def text(self):
        self.log.seek(0)
        return self.log.read()[-4000:]

    def last_step(self, mode):
        return max((int(p.stem.split("-")[1]) for p in (self.out / mode).glob("full-*.pt")), default=0)

    def wait_step(self, mode, number):
        deadline = time.monotonic() + START
        while self.last_step(mode) < number:
            assert self.process.poll() is None and time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()


@pytest.fixture(scope="module")
def rundir(tmp_path_factory):
    path = tmp_path_factory.mktemp("jobs")
    path.chmod(0o700)
    return path


@pytest.fixture(scope="module")
def worlds(request, tmp_path_factory, rundir):
    """worlds(mode) -> Ranks, at work on that mode"""
    out = tmp_path_factory.mktemp("trained")
    items = [item for item in request.session.items if item.path == Path(__file__)]
    wanted = {item.callspec.params["mode"] for item in items}
    running = {}

    def get(mode):
        world = next(w for w, modes in MODES.items() if mode in modes)
        ranks = running.get(world)
        if ranks is None or ranks.process.poll() is not None or mode not in ranks.modes:
            for other in running.values():
                other.end()
            modes = MODES[world]
            modes = [m for m in modes[modes.index(mode) :] if m in wanted and not missing(m)]
            running.clear()
            running[world] = Ranks(world, modes, out, rundir)
        return running[world]

    yield get
    for ranks in running.values():
        ranks.end()


class Job:
    def __init__(self, mode, ranks):
        self.mode, self.ranks, self.out = mode, ranks, ranks.out / mode
        self.source = f"live:{mode}"

    def expected(self, step):
        """What the framework gathered."""
        path = self.out / f"full-{step}.pt"
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline, f"step {step} was never reached"
            time.sleep(0.05)
        return torch.load(path)

    def exported(self, gatherfs, path, *options):
        """(step, report, tensors)"""
        report = json.loads(gatherfs.export(self.source, path, "--json", *options).ok().text)
        files = list(path.glob("*.safetensors"))
        assert len(files) == 1
        return report["step"], report, load_file(files[0])


@pytest.fixture
def job(request, worlds, rundir, monkeypatch):
    mode = request.node.callspec.params["mode"]
    if missing(mode):
        pytest.skip(f"there is no {missing(mode)}")
    monkeypatch.setenv("GATHERFS_RUNDIR", str(rundir))
    job = Job(mode, worlds(mode))
    job.ranks.wait_step(mode, 2)
    yield job
    (job.out / "stop").touch()


def same(got, want):
    assert set(got) == set(want)
    for name in got:
        assert got[name].dtype == want[name].dtype, name
        assert torch.equal(got[name], want[name]), name


def from_pretrained(job, mount):
    """Loads from a mount while the job goes on."""
    from transformers import AutoModelForCausalLM

    point = mount(job.source)
    model = AutoModelForCausalLM.from_pretrained(point, dtype="auto")
    step = int(os.getxattr(os.path.join(point, "config.json"), "user.gatherfs.step"))
    same(model.state_dict(), job.expected(step))
    assert model.config.architectures == ["LlamaForCausalLM"]


def adapters(job, gatherfs, tmp_path):
    step, report, got = job.exported(gatherfs, tmp_path / "adapter")
    assert report["view"] == "adapter"
    want = job.expected(step)
    same(got, {k.replace(".default", ""): v for k, v in want.items() if ".lora_" in k})
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4

    from peft import PeftModel
    from train_ranks import tiny_llama

    PeftModel.from_pretrained(tiny_llama(), tmp_path / "adapter")


@pytest.mark.parametrize("mode", [m for modes in MODES.values() for m in modes])
def test_a_step_is_what_the_framework_gathers(mode, job, gatherfs, mount, tmp_path):
    steps = []
    for i in range(EXPORTS):
        step, _, got = job.exported(gatherfs, tmp_path / f"export{i}", "--view", "raw")
        same(got, job.expected(step))
        steps.append(step)
    assert steps[0] >= 1 and steps == sorted(steps)
    if mode == "trainer_lora":
        adapters(job, gatherfs, tmp_path)
    elif mode.startswith("trainer") and os.path.exists("/dev/fuse"):
        from_pretrained(job, mount)
