# SPDX-License-Identifier: Apache-2.0
"""A few steps of LLaMA-Factory, with a checkpoint at each. Runs in the environment that has it.

    train_llamafactory.py CONFIG.json KEPT

KEPT/<checkpoint>.safetensors gets what was in memory: the probe's logits (""), and of a reward
model also the values.
"""

import json
import os
import sys

import torch
from llamafactory.train.tuner import run_exp
from probe import PROBE
from safetensors.torch import save_file
from transformers import TrainerCallback


class Probe(TrainerCallback):
    def __init__(self, kept):
        self.kept = kept

    def on_save(self, args, state, control, model=None, **kwargs):
        training = model.training
        model.eval()
        with torch.no_grad():
            out = model(input_ids=PROBE)
        model.train(training)
        found = {"": out.logits} if hasattr(out, "logits") else {"": out[0], "value": out[2]}
        found = {name: tensor.float().contiguous() for name, tensor in found.items()}
        save_file(found, os.path.join(self.kept, f"checkpoint-{state.global_step}.safetensors"))


if __name__ == "__main__":
    with open(sys.argv[1]) as f:
        run_exp(json.load(f), callbacks=[Probe(sys.argv[2])])
