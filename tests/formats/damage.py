#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Damaged copies of good checkpoints, each with what gatherfs must say about it.

    damage.py --list
    damage.py --cases DIR --out DIR [NAME ...]

DIR is what make_deepspeed.py has filled; each damage becomes OUT/<name>/. The tests make them one
by one. A damage is a function that breaks a copy of a case's checkpoint in place.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import offline  # noqa: E402, F401

import break_files as files  # noqa: E402
import break_pickles as pickles  # noqa: E402
import break_state as state  # noqa: E402
import break_zips as zips  # noqa: E402

BAD = (1,)  # exit code: the checkpoint has problems
CANNOT = (2,)  # exit code: gatherfs can't do it
BAD_OR_CANNOT = (1, 2)
BAD_OR_SERVED = (0, 1)  # harmless where it is: refusing and serving the right bytes are both fine
SERVED = (0,)

ZERO3 = "z3_hf_bf16_w4"
ZERO2 = "z2_hf_bf16_w2"
FROZEN3 = "z3_hf_frozen_w3"
PLAIN2 = "z2_groups_w3"  # no config.json that could have an opinion on names
LEGACY2 = "z2_legacy_w2"
LEGACY3 = "z3_legacy_w2"
TAGS3 = "z3_hf_tags_w2"
TP = "z1_autotp_w2"

MODEL2 = "mp_rank_00_model_states.pt"


def model3(rank):
    return f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"


def optim(rank):
    return f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"


@dataclass(frozen=True)
class Damage:
    case: str
    apply: Callable  # gets the checkpoint's root, and the tag directory in it
    codes: tuple = BAD
    words: tuple = ()  # the error line must hold each; a tuple in it means any one of these
    options: tuple = ()  # of the command
    renamed: str = None  # the name that state.WEIGHT has where the checkpoint is served


def on(file, function, *args):
    """A damage of one file of the tag directory."""
    return lambda root, tag: function(os.path.join(tag, file), *args)


def in_file(case, file, function, *args, codes=BAD, words=(), options=()):
    return Damage(case, on(file, function, *args), codes, (file, *words), options)


STORED = ("--dtype", "stored")
ABSENT = ("missing", "not found", "not there")
ANY_FILE = ("model_states", "optim_states")


def wrong_set_of_files():
    return {
        "missing_optim": in_file(ZERO3, optim(2), os.unlink, words=[ABSENT]),
        "missing_optim_last": in_file(ZERO3, optim(3), os.unlink, words=[ABSENT]),
        "missing_optim_first": in_file(ZERO3, optim(0), os.unlink, words=[ABSENT]),
        "missing_model": in_file(ZERO3, model3(0), os.unlink, words=[ABSENT]),
        "missing_model_last": in_file(ZERO3, model3(3), os.unlink, words=[ABSENT]),
        "missing_fragments": in_file(FROZEN3, model3(1), os.unlink, words=[ABSENT]),
        "missing_optim_2": in_file(ZERO2, optim(1), os.unlink, options=STORED),
        "missing_two": Damage(ZERO3, files.remove_ranks(1, 2), words=("rank",)),
        "missing_all_optim": Damage(ZERO3, files.remove_matching("optim_states"), words=("optim",)),
        "surplus_rank": Damage(ZERO3, files.copy_rank(3, 4), words=("rank_4", "4")),
        "surplus_world": Damage(ZERO3, files.copy_rank(3, 4, 5, 6, 7), words=("rank_", "4")),
        "surplus_rank_2": Damage(ZERO2, files.copy_rank(1, 2), words=("rank_2",), options=STORED),
        "swapped_ranks": Damage(ZERO3, files.swap_ranks(1, 2), words=("rank_1", "rank_2")),
        "swapped_ranks_2": Damage(ZERO2, files.swap_ranks(0, 1), words=("rank_",), options=STORED),
        "rank_of_other_step": Damage(TAGS3, files.mix_tags("best", rank=1), words=("rank_1",)),
        "optim_of_other_step": Damage(
            TAGS3, files.mix_tags("best", 1, "optim_states"), words=("rank_1", "rank_0")
        ),
        "model_of_other_step": Damage(
            TAGS3, files.mix_tags("best", 1, "model_states"), words=("rank_1", "rank_0")
        ),
        "missing_model_2": in_file(ZERO2, MODEL2, os.unlink, words=["missing 'global_step2/"]),
        "rank_outside": in_file(ZERO3, optim(1), files.move_outside),
        "tag_missing": Damage(ZERO3, files.rename_tag("x"), BAD_OR_CANNOT, ("global_step2",)),
        "latest_garbage": broken_latest(files.write_latest(b"\xff\0\xfe" * 99)),
        "latest_empty": broken_latest(files.write_latest(b"")),
        "latest_huge": broken_latest(files.write_latest(b"a" * 2**24)),
        "latest_escapes": broken_latest(files.latest_escapes),
    }


def broken_latest(function):
    return Damage(ZERO3, function, BAD_OR_CANNOT, ("latest",))


def broken_files():
    result = {}
    for name, case, file, options in (
        ("optim", ZERO3, optim(1), ()),
        ("model", ZERO3, model3(0), ()),
        ("fragments", FROZEN3, model3(2), ()),
        ("whole", ZERO2, MODEL2, ()),
        ("optim_2", ZERO2, optim(1), STORED),
        ("legacy_model", LEGACY2, MODEL2, ()),
        ("legacy_optim", LEGACY3, optim(1), ()),
    ):
        for way, function in files.WAYS.items():
            if way != "zeros_at_the_end" or "legacy" not in name:  # those have nothing at the end
                result[f"{name}_{way}"] = in_file(case, file, function, options=options)
    return result


MAIN_FILES = {
    "optim": (ZERO3, optim(1)),
    "model": (ZERO3, model3(0)),
    "whole": (ZERO2, MODEL2),
}


def broken_zips():
    result = {}
    for name, (case, file) in MAIN_FILES.items():
        for way, function in zips.WAYS.items():
            codes = zips.CODES.get(way, BAD)
            if name == "model" and way in zips.IN_STORAGE:  # ZeRO-3 model files have no weights
                codes = BAD_OR_SERVED
            result[f"zip_{name}_{way}"] = in_file(case, file, function, codes=codes)
    for way, function in zips.MOMENTS.items():
        result[f"zip_moments_{way}"] = in_file(ZERO3, optim(1), function, codes=BAD_OR_SERVED)
    return result


def broken_pickles():
    return {
        f"pickle_{name}_{way}": in_file(
            case, file, pickles.rewrite, change, codes=pickles.CODES.get(way, BAD)
        )
        for name, (case, file) in MAIN_FILES.items()
        for way, change in pickles.WAYS.items()
    }


def broken_state():
    """Files that are well-formed but say something impossible, hostile or unsupported."""
    result = {}
    for way, change in state.TENSORS.items():
        codes = state.CODES.get(way, BAD)
        result[f"flat_{way}"] = in_file(ZERO3, optim(2), state.edit_flat, change, codes=codes)
        result[f"fragment_{way}"] = in_file(
            FROZEN3, model3(1), state.edit_fragment, change, codes=codes
        )
        if way != "other_dtype":  # nothing in a ZeRO-2 file says what type a weight must have
            result[f"module_{way}"] = in_file(
                ZERO2, MODEL2, state.edit_module, change, codes=codes, words=[state.WEIGHT]
            )
    for way, change in state.SHAPES.items():
        result[f"shapes_{way}"] = Damage(ZERO3, state.edit_shapes(change), words=(ANY_FILE,))
    for way, name in state.NAMES.items():
        result[f"name_{way}"] = Damage(
            PLAIN2, on(MODEL2, state.rename, name), state.CODES.get(way, BAD), renamed=name
        )
    return result | {
        "module_itself": in_file(
            ZERO2, MODEL2, state.edit_state, state.put_module_into_itself, words=[state.WEIGHT]
        ),
        "module_crowded": in_file(
            PLAIN2, MODEL2, state.edit_state, state.add_many_names, codes=BAD_OR_SERVED
        ),
        "world_of_all": Damage(ZERO3, state.set_world(5, range(4)), words=("4", "5")),
        "world_of_one": Damage(ZERO3, state.set_world(3, [1]), words=("rank_1", "3")),
        "world_of_all_2": Damage(
            ZERO2, state.set_world(3, range(2)), words=("2", "3"), options=STORED
        ),
        "world_negative": Damage(ZERO3, state.set_world(-1, range(4)), words=("-1",)),
        "world_huge": Damage(ZERO3, state.set_world(2**62, range(4)), words=("rank",)),
        "groups_missing": in_file(ZERO3, optim(1), state.set_flat, []),
        "groups_text": in_file(ZERO3, optim(1), state.set_flat, "none"),
        "not_a_dict": in_file(ZERO3, optim(1), state.replace_by, [1, 2]),
        "no_module": in_file(ZERO2, MODEL2, state.drop_key, "module"),
        "no_shapes": in_file(ZERO3, model3(0), state.drop_key, "param_shapes"),
        "nvme": Damage(ZERO3, state.leave_on_nvme, CANNOT, (("NVMe", "nvme", "swap"),)),
        "quantized": Damage(FROZEN3, state.quantize_fragments, CANNOT, (("quant", "int8", "I8"),)),
        "tensor_parallel": Damage(TP, as_it_is, CANNOT, (("mp_rank_01", "tensor"),)),
    }


def as_it_is(root, tag):
    """A good checkpoint of a kind that isn't supported."""


def code_that_must_not_run():
    """Each would create the file `executed` in the checkpoint's root, if anything ran it."""
    result = {
        f"hostile_unneeded_{name}": Damage(case, on(file, state.add_hostile_client_state), SERVED)
        for name, (case, file) in MAIN_FILES.items()
    }
    result["hostile_module"] = in_file(
        ZERO2, MODEL2, state.put_hostile_weight, words=[state.WEIGHT]
    )
    result["hostile_flat"] = in_file(ZERO3, optim(1), state.put_hostile_flat)
    result["hostile_shapes"] = in_file(ZERO3, model3(0), state.put_hostile_shapes)
    result["hostile_root"] = in_file(ZERO2, MODEL2, state.put_hostile_root)
    return result


DAMAGES = {
    **wrong_set_of_files(),
    **broken_files(),
    **broken_zips(),
    **broken_pickles(),
    **broken_state(),
    **code_that_must_not_run(),
}


def make_damage(name, cases, folder):
    """A damaged checkpoint in `folder`, which must not exist yet."""
    damage = DAMAGES[name]
    shutil.copytree(os.path.join(cases, damage.case, "ckpt"), folder, symlinks=True)
    with open(os.path.join(folder, "latest")) as f:
        tag = os.path.join(folder, f.read().strip())
    damage.apply(folder, tag)
    return damage


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--cases")
    ap.add_argument("--out")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("names", nargs="*")
    args = ap.parse_args()
    for name in args.names or DAMAGES:
        damage = DAMAGES[name]
        print(f"{name:32} {damage.case:16} exit {damage.codes} {' '.join(map(str, damage.words))}")
        if not args.list:
            make_damage(name, args.cases, os.path.join(args.out, name))


if __name__ == "__main__":
    main()
