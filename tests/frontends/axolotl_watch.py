# SPDX-License-Identifier: Apache-2.0
"""A plugin for axolotl (plugins: [axolotl_watch.Watch]) that watches: at each checkpoint, and when
training is over, $GATHERFS_TEST_KEPT/<name>.safetensors gets the logits that the model in memory
computes for the probe."""

import os

import torch
from axolotl.integrations.base import BasePlugin
from probe import PROBE
from safetensors.torch import save_file
from transformers import TrainerCallback


class Probe(TrainerCallback):
    def keep(self, name, model):
        training = model.training
        model.eval()
        with torch.no_grad():
            logits = model(input_ids=PROBE).logits
        model.train(training)
        if os.environ.get("RANK", "0") == "0":
            kept = os.environ["GATHERFS_TEST_KEPT"]
            save_file({"": logits.contiguous()}, os.path.join(kept, name + ".safetensors"))

    def on_save(self, args, state, control, model=None, **kwargs):
        self.keep(f"checkpoint-{state.global_step}", model)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self.keep("final", model)


class Watch(BasePlugin):
    def add_callbacks_post_trainer(self, cfg, trainer):
        return [Probe()]
