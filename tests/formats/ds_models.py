# SPDX-License-Identifier: Apache-2.0
"""The tiny models that the DeepSpeed cases train. Sizes are odd on purpose, so that parameters
straddle ranks and partitions end in padding."""

import torch
from torch import nn

VOCAB = 67


class Block(nn.Module):
    """Buffers of several dtypes, one of them not saved."""

    def __init__(self, n_in, n_out, gain_shape):
        super().__init__()
        self.lin = nn.Linear(n_in, n_out)
        self.gain = nn.Parameter(torch.full(gain_shape, 1.5))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("scale", torch.linspace(0.1, 1.0, 5))
        self.register_buffer("scratch", torch.zeros(4), persistent=False)

    def forward(self, x):
        self.calls += 1
        return torch.tanh(self.lin(x)) * self.gain


class Mlp(nn.Module):
    takes_vectors = True

    def __init__(self, gain_shape=(1,)):
        super().__init__()
        self.inp = nn.Linear(7, 11)
        self.blocks = nn.ModuleList([Block(11, 13, gain_shape), Block(13, 11, gain_shape)])
        self.one = nn.Parameter(torch.tensor([0.25]))  # fewer elements than ranks
        self.out = nn.Linear(11, 7, bias=False)

    def forward(self, x):
        y = self.inp(x)
        for block in self.blocks:
            y = block(y)
        return self.out(y) * self.one


class Strided(nn.Module):
    """Parameters that aren't contiguous: a transposed matrix and a channels_last kernel."""

    takes_vectors = True

    def __init__(self, frozen=False):
        super().__init__()
        self.inp = nn.Linear(7, 18)
        self.turned = nn.Parameter(torch.randn(9, 18).t() * 0.1)
        self.conv = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
        self.out = nn.Linear(4 + 9, 7)
        if frozen:
            for p in (self.turned, self.conv.weight):
                p.requires_grad_(False)

    def forward(self, x):
        y = self.inp(x)
        image = y[:, :12].reshape(-1, 3, 2, 2)
        return self.out(torch.cat([self.conv(image).flatten(1), y @ self.turned], 1))


class PolicyAndValue(nn.Module):
    """policy.* (a causal LM) and value.* (a scalar head), as RLHF trainers wrap them."""

    def __init__(self):
        super().__init__()
        self.policy = llama()
        self.config = self.policy.config
        self.value = nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 1))

    def forward(self, input_ids, labels):
        out = self.policy(input_ids=input_ids, labels=labels, output_hidden_states=True)
        return out.loss + self.value(out.hidden_states[-1]).float().pow(2).mean()


class Wrapped(nn.Module):
    """What DDP-like wrappers do to the names: everything gets a `module.` in front."""

    def __init__(self, inner):
        super().__init__()
        self.module = inner
        self.config = inner.config

    def forward(self, **batch):
        return self.module(**batch)


def mlp():
    return Mlp()


def mlp_scalar():
    return Mlp(gain_shape=())  # 0-dim parameters


def strided():
    return Strided()


def strided_frozen():
    return Strided(frozen=True)


def llama(tie=False, vocab=VOCAB, hidden=20, inter=33, layers=2, heads=2):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=inter,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=1,
            max_position_embeddings=64,
            tie_word_embeddings=tie,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def llama_tied():
    return llama(tie=True)


def llama_frozen():
    model = llama()
    for name, p in model.named_parameters():
        if "layers.0." in name or "embed_tokens" in name:
            p.requires_grad_(False)
    return model


def llama_wrapped():
    return Wrapped(llama())


def llama_compiled():
    # the eager backend wraps the model like any other but needs no C++ compiler
    return torch.compile(llama(), backend="eager")


def llama_lora():
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        llama(),
        LoraConfig(
            r=3,
            lora_alpha=6,
            lora_dropout=0.0,
            target_modules=["q_proj", "v_proj"],
            modules_to_save=["lm_head"],
            task_type="CAUSAL_LM",
        ),
    )


def gpt2():
    """Tied by default, Conv1D weights, attention masks as buffers that are not saved."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB,
            n_positions=32,
            n_embd=22,
            n_layer=2,
            n_head=2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def custom():
    """A model whose code travels with it: `auto_map` in config.json and a *.py file beside."""
    from tiny_remote_code import TinyConfig, TinyForCausalLM

    TinyConfig.register_for_auto_class()
    TinyForCausalLM.register_for_auto_class("AutoModelForCausalLM")
    return TinyForCausalLM(TinyConfig(vocab_size=VOCAB))


def moe(world):
    from deepspeed.moe.layer import MoE

    class Net(nn.Module):
        takes_vectors = True

        def __init__(self):
            super().__init__()
            expert = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 12))
            self.inp = nn.Linear(7, 12)
            # min_capacity 0: the batches are too small for the default
            self.moe = MoE(12, expert, num_experts=4, ep_size=world, k=1, min_capacity=0)
            self.out = nn.Linear(12, 7)

        def forward(self, x):
            y, _, _ = self.moe(self.inp(x))
            return self.out(y)

    return Net()


def pipeline(world):
    from deepspeed.pipe import PipelineModule

    return PipelineModule(
        layers=[nn.Linear(7, 11), nn.Tanh(), nn.Linear(11, 5), nn.Linear(5, 7)],
        num_stages=world,
        loss_fn=lambda out, target: (out.float() - target.float()).pow(2).mean(),
        partition_method="uniform",
    )
