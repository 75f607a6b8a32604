# SPDX-License-Identifier: Apache-2.0
"""The commands are tested on the sample that ships with the repository: no torch needed."""

import shutil
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="session")
def sample():
    return SAMPLES / "zero3"


@pytest.fixture(scope="session")
def sample_sums():
    """file name -> sha256 of what save_pretrained wrote"""
    lines = (SAMPLES / "zero3.sha256").read_text().splitlines()
    return {line.split()[1]: line.split()[0] for line in lines}


@pytest.fixture
def sample_copy(sample, tmp_path):
    return Path(shutil.copytree(sample, tmp_path / "source"))
