# SPDX-License-Identifier: Apache-2.0
"""Trainings by real front-ends, each run once when the first test asks for it."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import tiny  # noqa: E402
from launch import Training  # noqa: E402


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The model that every training starts from."""
    return tiny.make_base(str(tmp_path_factory.mktemp("model") / "base"))


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    return tiny.make_text(str(tmp_path_factory.mktemp("data") / "rows.jsonl"))


@pytest.fixture(scope="session")
def sft_run(tmp_path_factory, base, rows):
    """sft_run(engine, *options) -> the run directory that TRL leaves behind"""
    pytest.importorskip("trl")
    runs = {}

    def run(engine, *options):
        key = engine, *options
        if key not in runs:
            folder = str(tmp_path_factory.mktemp("_".join(key)))
            runs[key] = os.path.join(folder, "run")
            args = (base, rows, runs[key], *options)
            with Training(engine, folder, "train_sft.py", *args) as training:
                training.finish()
        return runs[key]

    return run
