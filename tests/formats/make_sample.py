#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make the checkpoint that ships in tests/samples: a real ZeRO-3 run of a tiny Llama on four ranks.

    make_sample.py [--out tests/samples]

Writes zero3/ (what training left behind) and zero3.sha256, in the form that `sha256sum -c` reads:
the sums of the files that transformers' save_pretrained wrote for the live model, which DeepSpeed
had gathered in the training process. With the same versions of the libraries (ds_version and
transformers_version are in the files) every run writes the same bytes.
"""

import argparse
import functools
import hashlib
import os
import shutil
import tempfile

import make_deepspeed  # first: sets up the environment and the import path
import ds_models
import ds_train
from ds_cases import Case

# Nothing here divides evenly by four, and the whole checkpoint stays below 1.2 MB.
MODEL = functools.partial(ds_models.llama, vocab=331, hidden=50, inter=91, layers=2, heads=5)
CASE = Case(stage=3, world=4, dtype="bf16", model=MODEL, hf=True)
SUMMED = ["model.safetensors", "config.json", "generation_config.json"]


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def make_sample(out):
    with tempfile.TemporaryDirectory() as work:
        expected = os.path.join(work, "expected")
        os.mkdir(expected)
        make_deepspeed.run_ranks(ds_train.run_rank, CASE.world, work, CASE, work)
        make_deepspeed.check_oracles(expected)
        ckpt = os.path.join(work, CASE.source)
        make_deepspeed.drop_scripts(ckpt)
        sample = os.path.join(out, "zero3")
        shutil.rmtree(sample, ignore_errors=True)
        shutil.copytree(ckpt, sample)
        sums = [f"{sha256(os.path.join(expected, 'hf', name))}  {name}\n" for name in SUMMED]
    with open(os.path.join(out, "zero3.sha256"), "w") as f:
        f.writelines(sums)


def main():
    samples = os.path.join(os.path.dirname(make_deepspeed.HERE), "samples")
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--out", default=samples)
    args = ap.parse_args()
    make_deepspeed.import_once()
    make_sample(args.out)
    print(f"{make_deepspeed.size_of(args.out) / 1e6:.2f} MB in {args.out}")


if __name__ == "__main__":
    main()
