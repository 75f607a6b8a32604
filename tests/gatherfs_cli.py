# SPDX-License-Identifier: Apache-2.0
"""Running the gatherfs binary, in bounded time and memory."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass

import offline  # noqa: F401

# Private memory that a command may use, thread stacks included: past it an allocation fails,
# which shows as the wrong message. (Peak RSS says nothing here: a child's starts with ours.)
MAX_MEMORY_MB = int(os.environ.get("GATHERFS_MAX_MEMORY_MB", 512))
TIMEOUT = 20  # seconds; nothing that gatherfs does with a tiny checkpoint may come near it


@dataclass
class Result:
    args: tuple
    code: int  # negative: killed by that signal
    out: bytes
    err: str

    def __str__(self):
        return f"gatherfs {' '.join(self.args)}\nexit {self.code}\nstderr:\n{self.err}"

    @property
    def text(self):
        return self.out.decode()

    def ok(self):
        assert self.code == 0, self
        return self

    def failed(self, *codes):
        """It refused, and said why in exactly one line."""
        assert self.code in codes, f"wanted exit {' or '.join(map(str, codes))}: {self}"
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].strip(), f"wanted one line on stderr: {self}"
        return lines[0]


class Gatherfs:
    def __init__(self, binary):
        self.binary = os.path.abspath(binary)

    def run(self, *args, timeout=TIMEOUT):
        """Runs a command to its end. A run past the timeout is killed, and code is -SIGKILL."""
        args = tuple(map(str, args))
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                ["prlimit", f"--data={MAX_MEMORY_MB << 20}", self.binary, *args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            alarm = threading.Timer(timeout, os.kill, (process.pid, signal.SIGKILL))
            alarm.start()
            process.wait()
            alarm.cancel()
            out.seek(0)
            err.seek(0)
            return Result(
                args,
                process.returncode,
                out.read(),
                err.read().decode(errors="replace"),
            )

    def export(self, source, dest, *options):
        return self.run("export", source, dest, *options)

    def cat(self, source, path, *options):
        return self.run("cat", source, path, *options)

    def mount(self, source, mountpoint, *options):
        return self.run("mount", source, mountpoint, *options)

    def unmount(self, mountpoint):
        """Politely, and if that fails by force: no test may leave a mount behind."""
        if not os.path.ismount(mountpoint):
            return
        result = self.run("umount", mountpoint)
        if os.path.ismount(mountpoint):
            subprocess.run(["fusermount3", "-uz", mountpoint], check=False)
        assert result.code == 0, result

    @contextlib.contextmanager
    def mounts(self, folder):
        """mount(source, *options) -> a new mount point in `folder`. Whatever happens meanwhile,
        they all go again."""
        points = []

        def do_mount(source, *options):
            point = os.path.join(folder, f"mnt{len(points)}")
            os.mkdir(point)
            points.append(point)
            self.mount(source, point, *options).ok()
            assert os.path.ismount(point)
            return point

        try:
            yield do_mount
        finally:
            for point in points:
                self.unmount(point)
