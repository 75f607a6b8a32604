# SPDX-License-Identifier: Apache-2.0
"""A model, a tokenizer and a text, small enough to train for a few steps in a second."""

import json
import os
import sys

from tiny_tokenizer import TEXT, make_tokenizer

VOCAB = 331  # odd sizes: two ranks never get the same share


def make_base(folder):
    """A directory as a user would download it, all weights in fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=50,
        intermediate_size=91,
        num_hidden_layers=2,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(VOCAB).save_pretrained(folder)
    return folder


def make_text(path):
    """64 rows of {"text": ...}."""
    words = TEXT.split()
    with open(path, "w") as f:
        for i in range(64):
            f.write(json.dumps({"text": " ".join(words[i : i + 24])}) + "\n")
    return path


def make_instructions(path):
    """64 rows of {"instruction": ..., "output": ...}."""
    words = TEXT.split()
    with open(path, "w") as f:
        for i in range(64):
            row = {
                "instruction": " ".join(words[i : i + 6]),
                "output": " ".join(words[i + 6 : i + 18]),
            }
            f.write(json.dumps(row) + "\n")
    return path


def save_pretrained(base, state, folder):
    """What transformers writes for the model of `base` with these weights, and its tokenizer."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model.load_state_dict(state)
    model.save_pretrained(folder)
    make_tokenizer(VOCAB).save_pretrained(folder)
    return os.fspath(folder)


if __name__ == "__main__":
    make_base(sys.argv[1])
