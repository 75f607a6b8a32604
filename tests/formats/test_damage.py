# SPDX-License-Identifier: Apache-2.0
"""Damaged checkpoints: one clear line and no weights, in bounded time and memory. See damage.py."""

import os

import pytest
from break_state import WEIGHT
from cases import from_environment
from damage import DAMAGES, make_damage
from weights import assert_same, load_directory


@pytest.fixture
def damaged(request, tmp_path):
    """The damage named by the test's parameter, made in tmp_path/ckpt."""
    root = tmp_path / "ckpt"
    damage = make_damage(request.param, from_environment("GATHERFS_CASES"), root)
    return damage, str(root)


each_damage = pytest.mark.parametrize("damaged", DAMAGES, indirect=True)


def check_bounds(result, root):
    """Whatever else it did: it ended by itself and ran nothing from the file."""
    assert result.code >= 0, f"killed: {result}"
    assert not os.path.exists(os.path.join(root, "executed"))


def check_words(line, words):
    for word in words:
        options = (word,) if isinstance(word, str) else word
        assert any(w in line for w in options), f"none of {options} in: {line}"


def wanted_weights(damage, case):
    wanted = load_directory(case.expected_path("hf")) if case.facts["hf"] else case.expected("live")
    if damage.renamed is not None:
        wanted[damage.renamed] = wanted.pop(WEIGHT)
    return wanted


@each_damage
def test_export(damaged, gatherfs, case_dir, tmp_path):
    damage, root = damaged
    before = set(os.listdir(tmp_path))
    result = gatherfs.export(root, tmp_path / "out", *damage.options)
    check_bounds(result, root)
    if result.code == 0 and 0 in damage.codes:
        found = load_directory(tmp_path / "out")
        wanted = wanted_weights(damage, case_dir(damage.case))
        assert_same({k: v for k, v in found.items() if k in wanted}, wanted)
        return
    line = result.failed(*damage.codes)
    check_words(line, damage.words)
    assert len(line) < 1000, line
    assert set(os.listdir(tmp_path)) == before  # nothing half-written is left


@each_damage
def test_verify(damaged, gatherfs):
    damage, root = damaged
    result = gatherfs.run("verify", root, *damage.options)
    check_bounds(result, root)
    assert result.code in ((0, 1, 2) if 0 in damage.codes else (1, 2)), result


@each_damage
def test_inspect(damaged, gatherfs):
    damage, root = damaged
    check_bounds(gatherfs.run("inspect", root, "--tensors", *damage.options), root)
