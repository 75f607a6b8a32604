#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What it costs a training to be read while it trains, against saving the same state itself.

    GATHERFS_LIBRARY=build/src/libgatherfs.so.0 \\
        bench_live.py --gatherfs build/gatherfs [--work DIR] [--ranks 2] [--mb 128] [--rounds 5]

One FSDP2 training, whose phases take turns in every round: nobody reads; a reader takes one
snapshot after the other to DIR; each rank saves its shard with torch.save; DCP's async_save.
DIR (default: a new one in /dev/shm) holds all copies. Figures are of rank 0.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../../src/live")]

WIDTH = 1024
JOB = "bench"


def reader(args):
    """Snapshots until the file `stop` exists; prints how long each took."""
    times = []
    while not os.path.exists(args.work + "/stop"):
        start = time.monotonic()
        dest = args.work + "/snapshot"
        done = subprocess.run([args.gatherfs, "snapshot", f"live:{JOB}", dest], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        times.append(time.monotonic() - start)
        shutil.rmtree(dest)
    print(json.dumps(times))


class Reading:
    """A reader process, beside the training."""

    def __init__(self, args):
        self.stop = args.work + "/stop"
        words = [sys.executable, __file__, "--role", "reader", "--gatherfs", args.gatherfs, "--work", args.work]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def end(self):
        open(self.stop, "w").close()
        times = json.loads(self.process.communicate()[0])
        os.remove(self.stop)
        return times


def first_bytes(args):
    """Seconds from open() to the first byte of a weight, on a new mount each time."""
    found = []
    for _ in range(args.rounds):
        point = tempfile.mkdtemp(dir=args.work)
        subprocess.run([args.gatherfs, "mount", f"live:{JOB}", point], check=True)
        size = os.path.getsize(point + "/model.safetensors")
        start = time.monotonic()
        fd = os.open(point + "/model.safetensors", os.O_RDONLY)
        os.pread(fd, 1, size - 1)
        found.append(time.monotonic() - start)
        os.close(fd)
        subprocess.run([args.gatherfs, "umount", "-z", point], check=True)
        os.rmdir(point)
    return found


class Training:
    def __init__(self, args):
        import torch
        import torch.distributed as dist
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        import gatherfs

        self.args, self.torch, self.dist = args, torch, dist
        dist.init_process_group("gloo")
        self.rank = dist.get_rank()
        self.group = dist.new_group(backend="gloo")  # DCP's thread talks while training does
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        layers = [torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(max(args.mb // 4, 1))]
        self.model = torch.nn.Sequential(*layers)
        for layer in self.model:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4)
        self.publisher = gatherfs.publish(self.model, self.optimizer, name=JOB, strict=True)
        self.batch = torch.randn(args.batch, WIDTH)
        self.local = sum(p.to_local().nbytes for p in self.model.parameters())

    def steps(self, n):
        times = []
        for _ in range(n):
            start = time.monotonic()
            self.model(self.batch).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            times.append(time.monotonic() - start)
        return times

    def on_first(self, function):
        """On rank 0 while the others train on, in step with it, until it has ended."""
        import threading

        result = []
        thread = threading.Thread(target=lambda: result.append(function())) if self.rank == 0 else None
        if thread:
            thread.start()
        more = [True]
        while more[0]:
            self.steps(1)
            more = [bool(thread and thread.is_alive())]
            self.dist.broadcast_object_list(more)
        return result[0] if result else None

    def torch_save(self):
        state = {k: v.to_local() for k, v in self.model.state_dict().items()}
        path = f"{self.args.work}/saved-{self.rank}.pt"
        start = time.monotonic()
        self.torch.save(state, path)
        stall = time.monotonic() - start
        times = self.steps(self.args.steps)
        os.remove(path)
        return stall, times

    def async_save(self):
        import torch.distributed.checkpoint as dcp

        path = self.args.work + "/dcp"
        start = time.monotonic()
        state = {"model": self.model.state_dict()}
        future = dcp.async_save(state, checkpoint_id=path, process_group=self.group)
        stall = time.monotonic() - start
        times = self.steps(self.args.steps)
        future.result()
        self.dist.barrier()
        if self.rank == 0:
            shutil.rmtree(path)
        self.dist.barrier()
        return stall, times

    def reading(self):
        before = self.publisher.stats()
        process = Reading(self.args) if self.rank == 0 else None
        self.steps(2)  # the reader starts, and memory is faulted in
        times, memory = [], 0
        for _ in range(self.args.steps):
            times += self.steps(1)
            memory = max(memory, self.publisher.stats()["memory"])
        took = self.on_first(process.end if process else None)
        after = self.publisher.stats()
        snapshots = after["snapshots"] - before["snapshots"]
        stall = (after["stall_ns"] - before["stall_ns"]) / 1e9 / max(snapshots, 1)
        return stall, times, took, {**after, "memory": memory}, snapshots

    def run(self):
        found = {"quiet": [], "read": [], "torch": [], "dcp": []}
        extra = {"snapshot": [], "snapshots": 0, "longest": 0, "memory": 0}
        stalls = {"read": [], "torch": [], "dcp": []}
        self.steps(5)
        for _ in range(self.args.rounds):
            found["quiet"] += self.steps(self.args.steps)
            stall, times, took, stats, snapshots = self.reading()
            stalls["read"].append(stall)
            found["read"] += times
            extra["snapshot"] += took or []
            extra["snapshots"] += snapshots
            extra["longest"] = stats["stall_max_ns"] / 1e9
            extra["memory"] = max(extra["memory"], stats["memory"])
            for name, save in (("torch", self.torch_save), ("dcp", self.async_save)):
                stall, times = save()
                stalls[name].append(stall)
                found[name] += times
        latency = self.on_first(lambda: first_bytes(self.args))
        hooks = self.hooks()
        self.publisher.close()
        self.dist.barrier()
        if self.rank == 0:
            self.report(found, stalls, extra, latency, hooks)
        self.dist.destroy_process_group()

    def hooks(self):
        import timeit

        def pair():
            self.publisher.begin()
            self.publisher.commit()

        return min(timeit.repeat(pair, number=100, repeat=200)) / 100

    def report(self, found, stalls, extra, latency, hooks):
        from measure import machine

        middle = statistics.median
        ms = {name: middle(times) * 1e3 for name, times in found.items()}
        stall = {name: middle(times) * 1e3 for name, times in stalls.items()}
        mean = {name: statistics.mean(times) * 1e3 for name, times in stalls.items()}
        mb = self.local / 1e6
        print(machine())
        print(f"{self.args.ranks} ranks, {mb:.0f} MB each, {len(found['quiet'])} steps a row, medians")
        print(f"\n{'':22} {'stall ms':>9} {'mean ms':>9} {'step ms':>9} {'step':>7}")
        print(f"{'nobody reads':22} {'':>9} {'':>9} {ms['quiet']:9.1f}")
        for name, title in (("read", "a reader all the time"), ("torch", "torch.save"), ("dcp", "DCP async_save")):
            ratio = ms[name] / ms["quiet"]
            print(f"{title:22} {stall[name]:9.2f} {mean[name]:9.2f} {ms[name]:9.1f} {ratio:6.2f}x")
        print("(stall: that training waits for one snapshot, or is in one save)\n")
        for name, title in (("torch", "torch.save"), ("dcp", "async_save")):
            print(f"{title} stalls {mean[name] / max(mean['read'], 1e-6):.0f} times as long (means)")
        print(f"{extra['snapshots']} snapshots, longest stall {extra['longest'] * 1e3:.1f} ms")
        print(f"whole snapshot to files {middle(extra['snapshot']) * 1e3:.0f} ms")
        print(f"open to first byte {middle(latency) * 1e3:.0f} ms, longest {max(latency) * 1e3:.0f} ms")
        print(f"memory per rank {extra['memory'] / 1e6:.0f} MB while read: {extra['memory'] / self.local:.2f}x")
        print(f"begin() and commit() with nobody reading {hooks * 1e6:.2f} us")


def launch(args):
    rundir = args.work + "/jobs"
    os.mkdir(rundir, 0o700)
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(args.ranks)]
    words += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", __file__, "--role", "rank"]
    for name in ("gatherfs", "work", "ranks", "mb", "rounds", "steps", "batch"):
        words += [f"--{name}", str(getattr(args, name))]
    env = {**os.environ, "GATHERFS_RUNDIR": rundir, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=env).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gatherfs", required=True)
    parser.add_argument("--work")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--mb", type=int, default=128, help="size of the state of all ranks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="in each phase")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--role", choices=["reader", "rank"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.gatherfs = os.path.abspath(args.gatherfs)
    if args.role == "reader":
        return reader(args)
    if args.role == "rank":
        return Training(args).run()
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=args.work or shm) as work:
        args.work = work
        return launch(args)


if __name__ == "__main__":
    sys.exit(main())
