# SPDX-License-Identifier: Apache-2.0
"""A model that transformers doesn't know: save_pretrained copies this file beside config.json.

Its buffers are saved too, so that its weight file has several types.
"""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class TinyConfig(PreTrainedConfig):
    model_type = "gatherfs_tiny"
    vocab_size: int = 67
    width: int = 19


class TinyForCausalLM(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.mix = nn.Linear(config.width, config.width)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, config.width))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.post_init()

    def forward(self, input_ids, labels=None, **kwargs):
        self.calls += 1
        hidden = torch.tanh(self.mix(self.embed(input_ids))) * self.scale.to(self.mix.weight.dtype)
        logits = self.head(hidden)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        return CausalLMOutput(loss=loss, logits=logits)
