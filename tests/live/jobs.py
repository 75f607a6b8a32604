# SPDX-License-Identifier: Apache-2.0
"""Jobs of trainer.c: after step S every element that is trained is S."""

import array
import json
import os
import signal
import struct
import subprocess
import time

from cases import from_environment

TRAINER = os.path.join(os.path.dirname(from_environment("GATHERFS")), "tests/live/live_trainer")
LIMIT = 60  # seconds: no trainer lives longer, whatever becomes of the test


class Job:
    def __init__(self, name, world, **options):
        self.name = name
        self.source = f"live:{name}"
        words = [f"{key}={value}" for key, value in options.items()]
        self.ranks = [
            subprocess.Popen(
                ["timeout", "-s", "KILL", str(LIMIT), TRAINER, name, str(rank), str(world), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for rank in range(world)
        ]
        for rank in self.ranks:
            assert rank.stdout.readline() == b"ready\n"

    def pids(self):
        """Of the trainers themselves, below timeout(1)."""
        found = []
        for rank in self.ranks:
            with open(f"/proc/{rank.pid}/task/{rank.pid}/children") as f:
                found += [int(pid) for pid in f.read().split()]
        return found

    def signal(self, number, *ranks):
        pids = self.pids()
        for rank in ranks or range(len(pids)):
            os.kill(pids[rank], number)

    def kill(self):
        self.signal(signal.SIGKILL)
        for rank in self.ranks:
            rank.wait()

    def wait(self):
        return [rank.wait(LIMIT) for rank in self.ranks]

    def end(self):
        for rank in self.ranks:
            if rank.poll() is None:
                rank.send_signal(signal.SIGCONT)
        for pid in [pid for rank in self.ranks if rank.poll() is None for pid in self.children(rank)]:
            os.kill(pid, signal.SIGKILL)
        for rank in self.ranks:
            rank.kill()
            rank.wait()
            rank.stdin.close()
            rank.stdout.close()

    @staticmethod
    def children(rank):
        try:
            with open(f"/proc/{rank.pid}/task/{rank.pid}/children") as f:
                return [int(pid) for pid in f.read().split()]
        except FileNotFoundError:
            return []


def values(data):
    """The different elements of a safetensors file, by tensor."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            elements = array.array("f")
            elements.frombytes(data[begin:end])
            found[name] = set(elements)
    return found


def steps(data):
    """Of what is trained."""
    return set().union(*(v for name, v in values(data).items() if "frozen" not in name))


def steps_in(folder):
    """Of all weight files of a directory; and how many of them there are."""
    names = [name for name in os.listdir(folder) if name.endswith(".safetensors")]
    found = set()
    for name in names:
        with open(os.path.join(folder, name), "rb") as f:
            found |= steps(f.read())
    return found, len(names)


def eventually(what, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = what()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")
