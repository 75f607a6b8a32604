# SPDX-License-Identifier: Apache-2.0
"""What a process costs: time, memory, bytes. Figures for people, never a pass or a fail.

Contestants run by turns, so that a busy machine is unfair to all alike. Only what they wrote is
judged: if it differs, the benchmark ends with an error.
"""

import contextlib
import hashlib
import os
import shutil
import statistics
import subprocess
import threading
import time
from dataclasses import astuple, dataclass

MB = 1e6
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    wall: float
    cpu: float  # user + system
    rss: float  # peak, bytes; counts pages of mapped files too
    anon: float  # peak of RssAnon, sampled: memory that belongs to the process alone
    written: float  # bytes, to files

    def __str__(self):
        return (
            f"{self.wall:8.2f} {self.cpu:8.2f} {self.rss / MB:9.0f} {self.anon / MB:9.1f} "
            f"{self.written / MB:9.0f}"
        )


HEAD = f"{'wall s':>8} {'CPU s':>8} {'RSS MB':>9} {'anon MB':>9} {'wrote MB':>9}"


def machine():
    """The machine in one line, without its name."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kernel = ".".join(os.uname().release.split("-")[0].split(".")[:2])
    cpus = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"{cpus} CPUs, {memory / 2**30:.0f} GiB, {os.uname().sysname} {kernel}, load {load:.1f}"


def memory(pid):
    """Fields of /proc/PID/status, in bytes; none if the process is gone."""
    try:
        with open(f"/proc/{pid}/status") as f:
            lines = [line.split() for line in f if line.startswith(("Rss", "Vm"))]
    except OSError:
        return {}
    return {name.rstrip(":"): int(kb) * 1024 for name, kb, _ in lines}


@contextlib.contextmanager
def peaks_of(pid):
    """Samples a process; the peaks of RSS and RssAnon are in the list that it gives."""
    # getrusage's peak won't do: a child's starts with that of the process that forked it
    peaks = [0, 0]
    done = threading.Event()

    def sample():
        while not done.wait(0.003):
            found = memory(pid)
            peaks[0] = max(peaks[0], found.get("VmHWM", 0))
            peaks[1] = max(peaks[1], found.get("RssAnon", 0))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peaks
    finally:
        done.set()
        sampler.join()


def run(command):
    """Runs it to its end and returns the Cost. Its output is shown only if it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with peaks_of(process.pid) as peaks:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{output.decode(errors='replace')}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, *peaks, usage.ru_oublock * 512)


# ---------------------------------------------------------------- a mount


def process_of(mountpoint):
    """The process that serves a mount: the one that was started with its path."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if mountpoint.encode() in words and b"gatherfs" in os.path.basename(words[0]):
            return int(pid)
    raise SystemExit(f"nothing serves {mountpoint}")


class Mount:
    """with Mount(binary, source, point) as m: m.seconds is how long the mount command took."""

    def __init__(self, binary, source, point, *options):
        self.command = [binary, "mount", source, point, *options]
        self.binary, self.point = binary, point

    def __enter__(self):
        os.makedirs(self.point, exist_ok=True)
        begin = time.perf_counter()
        subprocess.run(self.command, check=True)
        self.seconds = time.perf_counter() - begin
        self.pid = process_of(self.point)
        return self

    def __exit__(self, *exc):
        if subprocess.run([self.binary, "umount", self.point], check=False).returncode:
            subprocess.run(["fusermount3", "-uz", self.point], check=False)

    def cpu(self):
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self):
        """In words."""
        now = {field: size / MB for field, size in memory(self.pid).items()}
        return "{RssAnon:.1f} MB RssAnon, {VmRSS:.1f} MB RSS, at most {VmHWM:.1f} MB".format(**now)


def copy_from_mount(binary, source, point, out, *options):
    """Mount and cp, as one Cost: the time of both, the memory of the process that serves."""
    with Mount(binary, source, point, *options) as mount, peaks_of(mount.pid) as peaks:
        cost = run(["cp", "-r", point, out])
        cpu = mount.cpu()
    return Cost(mount.seconds + cost.wall, cost.cpu + cpu, *peaks, cost.written)


# ---------------------------------------------------------------- a race


def drop_caches():
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")


def race(work, contestants, rounds, content, cold=False):
    """contestants: name -> function(out) that fills the path `out` and returns its Cost.
    content(out) must be the same for all, and is only looked at in the first round. The table
    compares each with those whose names begin with 'gatherfs'."""
    out = os.path.join(work, "out")
    costs = {name: [] for name in contestants}
    contents = {}
    for number in range(rounds):
        for name, contestant in contestants.items():
            remove(out)
            os.sync()
            if cold:
                drop_caches()
            costs[name].append(contestant(out))
            print(f"  round {number + 1}  {name:28} {costs[name][-1]}", flush=True)
            if number == 0:
                contents[name] = content(out)
    remove(out)
    print_medians(costs)
    first, *others = contents
    for name in others:
        if contents[name] != contents[first]:
            raise SystemExit(f"'{name}' and '{first}' wrote different weights")
    print(f"  all wrote the same {len(contents[first])} things, bit for bit")


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


def print_medians(costs):
    medians = {
        name: Cost(*map(statistics.median, zip(*map(astuple, results), strict=True)))
        for name, results in costs.items()
    }
    ours = [name for name in medians if name.startswith("gatherfs")]
    rounds = len(costs[ours[0]])
    print(f"\n  {f'median of {rounds}':28} {HEAD}", *(f"{n:>15}" for n in ours))
    for name, cost in medians.items():
        ratios = (f"{cost.wall / medians[n].wall:14.1f}x" for n in ours)
        print(f"  {name:28} {cost}", *ratios)


# ---------------------------------------------------------------- what was written


def files_of(out):
    """Weight files of a directory: name -> sha256."""
    result = {}
    for name in sorted(n for n in os.listdir(out) if n.endswith(".safetensors")):
        with open(os.path.join(out, name), "rb") as f:
            result[name] = hashlib.file_digest(f, "sha256").hexdigest()
    return result


def tensors_of(out):
    """Tensors of a directory of safetensors or a torch.save file: name -> type, shape, sha256."""
    import torch
    from safetensors import safe_open

    if os.path.isfile(out):
        state = torch.load(out, mmap=True, weights_only=True)["model"]
        return {name: digest_of(t) for name, t in state.items()}
    result = {}
    for name in sorted(n for n in os.listdir(out) if n.endswith(".safetensors")):
        with safe_open(os.path.join(out, name), "pt") as f:
            result |= {key: digest_of(f.get_tensor(key)) for key in f.keys()}  # noqa: SIM118
    return result


def digest_of(t):
    import torch

    raw = t.contiguous().reshape(-1).view(torch.uint8).numpy()
    return t.dtype, t.shape, hashlib.sha256(raw).hexdigest()
