# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "formats")]

from cases import CaseDir, from_environment  # noqa: E402
from gatherfs_cli import Gatherfs  # noqa: E402


@pytest.fixture(scope="session")
def gatherfs():
    return Gatherfs(from_environment("GATHERFS"))


@pytest.fixture(scope="session")
def case_dir():
    """case_dir(name) -> CaseDir"""
    root = from_environment("GATHERFS_CASES")
    return lambda name: CaseDir(root, name)


@pytest.fixture
def mount(gatherfs, tmp_path):
    """mount(source, *options) -> mount point, until the end of the test"""
    with gatherfs.mounts(tmp_path) as do_mount:
        yield do_mount
