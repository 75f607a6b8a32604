# SPDX-License-Identifier: Apache-2.0
"""A mount for as long as a `with` block runs."""

import contextlib
import os
import shutil
import subprocess
import tempfile


class MountError(OSError):
    """gatherfs did not start; the text is its own."""


def _gatherfs():
    path = os.environ.get("GATHERFS") or shutil.which("gatherfs")
    if not path:
        raise MountError("the gatherfs command is not on PATH (GATHERFS names it)")
    return path


def _option(key, value):
    words = ["--" + key.replace("_", "-")]
    return words if value is True else [*words, str(value)]


@contextlib.contextmanager
def mount(source, mountpoint=None, **options):
    """Mounts `source` (a checkpoint, a run, 'live:JOB') and yields the directory; without
    `mountpoint` at a temporary one. Options are those of `gatherfs mount`: dtype="bf16",
    view="adapter", allow_other=True."""
    command = _gatherfs()
    own = mountpoint is None
    directory = tempfile.mkdtemp(prefix="gatherfs-") if own else os.fspath(mountpoint)
    words = [command, "mount", os.fspath(source), directory]
    for key, value in options.items():
        if value is not None and value is not False:
            words += _option(key, value)
    try:
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise MountError(done.stderr.strip() or f"gatherfs mount ended with {done.returncode}")
        try:
            yield directory
        finally:
            # A model that was loaded from it may still map its files: it keeps them.
            subprocess.run([command, "umount", "-z", directory], check=False, stdin=subprocess.DEVNULL)
    finally:
        if own:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
