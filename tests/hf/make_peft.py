#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make small real PEFT states, and beside each what PEFT itself makes of it.

    make_peft.py --list
    make_peft.py --out DIR [--case NAME ...]

Without --case all of them, in about half a minute. Each case is a directory:

    base/        the model under the adapter, by save_pretrained
    adapter/     PEFT's save_pretrained of the trained model
    full/        merge_and_unload() of that adapter on that base, by save_pretrained
    bin/ dcp/    the state as in training: pytorch_model.bin, and a distributed checkpoint, with
                 the config files that a trainer puts beside it

Needs torch (CPU), transformers and peft.
"""

import argparse
import os
import shutil
import sys
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(os.path.dirname(HERE), "formats")]
import offline  # noqa: E402, F401
import torch  # noqa: E402

VOCAB = 67
TARGETS = ["q_proj", "v_proj", "down_proj"]


# ---- models ----


def llama(tied=False, bias=False):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            attention_bias=bias,
            tie_word_embeddings=tied,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def llama_tied():
    return llama(tied=True)


def llama_bias():
    return llama(bias=True)


def llama_classifier():
    from transformers import LlamaForSequenceClassification

    config = llama().config
    config.num_labels = 3
    return LlamaForSequenceClassification(config)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB,
            n_positions=32,
            n_embd=24,
            n_layer=2,
            n_head=2,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def neox():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCAB,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=32,
        )
    )


def mixture(config, model, **options):
    import transformers

    shape = {
        "vocab_size": VOCAB,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 32,
    }
    return getattr(transformers, model)(getattr(transformers, config)(**shape, **options))


def qwen_moe():
    return mixture(
        "Qwen2MoeConfig",
        "Qwen2MoeForCausalLM",
        num_experts=4,
        moe_intermediate_size=12,  # gate_up_proj is square
        shared_expert_intermediate_size=16,
    )


def mixtral():
    return mixture("MixtralConfig", "MixtralForCausalLM", num_local_experts=4)


def gpt_oss():
    """Its experts are stored as [in, out], in a square here."""
    from transformers import GptOssConfig, GptOssForCausalLM

    return GptOssForCausalLM(
        GptOssConfig(
            vocab_size=VOCAB,
            hidden_size=24,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_local_experts=3,
            num_experts_per_tok=2,
            max_position_embeddings=32,
        )
    )


# ---- cases ----


@dataclass
class Case:
    """One adapter on one model."""

    model: callable
    tuner: str = "LoraConfig"
    config: dict = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    merges: bool = True  # into what merge_and_unload() gives, bit for bit
    rows: int = VOCAB  # of the embeddings in training
    save: dict = field(default_factory=dict)  # options of save_pretrained
    others: tuple = ()  # more adapters
    dcp: bool = True


def lora(model=llama, dtype=torch.float32, **config):
    """LoRA of rank 4; `config` changes it."""
    own = {k: config.pop(k) for k in ("rows", "save", "others", "merges") if k in config}
    settings = {"r": 4, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": TARGETS}
    return Case(model, "LoraConfig", settings | config, dtype, **own)


def tuner(name, model=llama, dtype=torch.float32, merges=True, **config):
    return Case(model, name, {"target_modules": TARGETS} | config, dtype, merges)


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
BF16, FP16 = torch.bfloat16, torch.float16

CASES = {
    "lora": lora(),
    "lora_bf16": lora(dtype=BF16),
    "lora_fp16": lora(dtype=FP16),
    "lora_rank_64": lora(r=64),
    "lora_odd_rank": lora(r=5, lora_alpha=7),
    "rslora": lora(r=3, use_rslora=True),
    "patterns": lora(
        rank_pattern={"q_proj": 8, "layers.1.mlp.down_proj": 2},
        alpha_pattern={"v_proj": 4, r"layers\.0\.self_attn\.q_proj": 3},
    ),
    "all_linear": lora(target_modules="all-linear"),
    "some_layers": lora(layers_to_transform=[1], layers_pattern="layers"),
    "dora": lora(use_dora=True),
    "dora_bf16": lora(use_dora=True, dtype=BF16),
    "dora_embedding": lora(use_dora=True, target_modules=["q_proj", "embed_tokens"], dtype=BF16),
    "modules_to_save": lora(modules_to_save=["lm_head", "embed_tokens"]),
    "modules_to_save_tied": lora(llama_tied, modules_to_save=["lm_head"]),
    "classifier": lora(llama_classifier, task_type="SEQ_CLS"),
    "embedding": lora(target_modules=["q_proj", "embed_tokens"]),
    "embedding_bf16": lora(target_modules=["q_proj", "embed_tokens"], dtype=BF16),
    "embedding_by_pattern": lora(target_modules=r".*\.(q_proj|embed_tokens)"),
    "embedding_tied": lora(llama_tied, target_modules=["q_proj", "embed_tokens"]),
    "lm_head": lora(target_modules=["q_proj", "lm_head"]),
    "lm_head_tied": lora(llama_tied, target_modules=["q_proj", "lm_head"], dtype=BF16),
    "both_tied": lora(llama_tied, target_modules=["embed_tokens", "lm_head"], dtype=BF16),
    "conv1d": lora(gpt2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True),
    "conv1d_dora": lora(gpt2, target_modules=["c_attn"], fan_in_fan_out=True, use_dora=True),
    "conv1d_and_head": lora(gpt2, target_modules=["c_attn", "c_proj", "lm_head"]),
    "neox": lora(neox, target_modules=["query_key_value", "embed_out"]),
    "bias_all": lora(llama_bias, bias="all"),
    "bias_lora_only": lora(llama_bias, bias="lora_only"),
    "lora_bias": lora(llama_bias, target_modules=["q_proj", "v_proj"], lora_bias=True),
    "lora_bias_bf16": lora(llama_bias, BF16, target_modules=["q_proj"], lora_bias=True),
    "tokens": lora(trainable_token_indices=[1, 5]),
    "tokens_bf16": lora(trainable_token_indices={"embed_tokens": [9, 2, 4]}, dtype=BF16),
    "tokens_tied": lora(llama_tied, trainable_token_indices=[1, 5]),
    "tokens_of_both": lora(
        trainable_token_indices={"embed_tokens": [3], "lm_head": [4, 5]},
    ),
    "resized": lora(rows=VOCAB + 5),
    "resized_tokens": lora(rows=VOCAB + 5, trainable_token_indices=[67, 70]),
    "experts": lora(qwen_moe, target_modules=["q_proj"], target_parameters=EXPERTS),
    "experts_bf16": lora(qwen_moe, BF16, target_modules=[], target_parameters=EXPERTS),
    "experts_patterns": lora(
        qwen_moe,
        target_modules=[],
        target_parameters=EXPERTS,
        rank_pattern={"experts.down_proj": 2},
    ),
    "experts_mixtral": lora(mixtral, target_modules=["gate"], target_parameters=EXPERTS),
    "experts_in_out": lora(gpt_oss, target_modules=["q_proj"], target_parameters=EXPERTS),
    "parameter": lora(target_modules=["v_proj"], target_parameters=["q_proj.weight"], dtype=BF16),
    "several": lora(others=("one", "two")),
    "ia3": tuner("IA3Config", feedforward_modules=["down_proj"]),
    "ia3_bf16": tuner("IA3Config", feedforward_modules=["down_proj"], dtype=BF16),
    "ia3_bias": tuner("IA3Config", llama_bias, feedforward_modules=["down_proj"]),
    "ia3_conv1d": tuner(
        "IA3Config",
        gpt2,
        target_modules=["c_attn", "mlp.c_proj"],
        feedforward_modules=["mlp.c_proj"],
        fan_in_fan_out=True,
    ),
    "loha": tuner("LoHaConfig", r=4, alpha=8),
    "loha_bf16": tuner("LoHaConfig", r=4, alpha=3, rank_pattern={"q_proj": 2}, dtype=BF16),
    "lokr": tuner("LoKrConfig", r=4, alpha=8),
    "lokr_both": tuner("LoKrConfig", r=1, alpha=3, decompose_both=True, dtype=BF16),
    "lokr_whole": tuner("LoKrConfig", r=16, alpha=8, decompose_factor=4),
    "vera": tuner("VeraConfig", r=8, target_modules=["q_proj", "v_proj"]),
    "vera_bf16": tuner("VeraConfig", r=8, target_modules=["q_proj"], dtype=BF16),
    "vera_conv1d": tuner(
        "VeraConfig", gpt2, r=8, target_modules=["c_attn"], fan_in_fan_out=True
    ),
    "vera_alone": tuner("VeraConfig", r=8, save_projection=False, merges=False),
    "token_tuner": Case(llama, "TrainableTokensConfig", {"token_indices": [3, 8]}),
    "oft": tuner("OFTConfig", r=0, oft_block_size=8, merges=False),
    "boft": tuner("BOFTConfig", boft_block_size=4, merges=False),
    "hra": tuner("HRAConfig", r=4, merges=False),
    "adalora": tuner("AdaLoraConfig", init_r=4, target_r=2, total_step=100, merges=False),
}


# ---- making them ----


def randomize(named_parameters, seed, scale=0.05):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in sorted(named_parameters):
            p.copy_((torch.randn(p.shape, generator=g) * scale).to(p.dtype))


def is_trained(name, parameter, adapters):
    """The adapter's own: what trains, and the adapters that are not active."""
    parts = name.split(".")
    return parameter.requires_grad or any(a in parts[-2:] for a in adapters)


def train(model, adapters):
    """No longer what it was initialised to, above all not zero."""
    g = torch.Generator().manual_seed(99)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if not is_trained(name, p, adapters):
                continue
            change = torch.randn(p.shape, generator=g) * 0.05
            p.copy_((p.float() * (1 + change) + change).to(p.dtype))


def make_config(case):
    import peft

    return getattr(peft, case.tuner)(**({"task_type": "CAUSAL_LM"} | case.config))


def load_base(case, folder):
    import transformers

    kind = type(case.model())
    model = getattr(transformers, kind.__name__).from_pretrained(folder, dtype=case.dtype)
    if case.rows != VOCAB:
        torch.manual_seed(7)
        model.resize_token_embeddings(case.rows)
    return model


def write_base(case, folder):
    from tiny_tokenizer import make_tokenizer

    model = case.model().to(case.dtype)
    randomize(model.named_parameters(), 1234)
    model.tie_weights()
    model.save_pretrained(folder)
    make_tokenizer(VOCAB).save_pretrained(folder)


def write_training(state, adapter, base, folder, config, dcp):
    """What Accelerate leaves of it: the state, and the files that the trainer wrote first."""
    from torch.distributed.checkpoint import save

    for kind in ("bin", "dcp") if dcp else ("bin",):
        place = os.path.join(folder, kind)
        os.makedirs(place)
        for name in os.listdir(adapter):
            path = os.path.join(adapter, name)
            if name == "adapter_config.json":
                shutil.copy(path, place)
            elif os.path.isdir(path):
                os.mkdir(os.path.join(place, name))
                shutil.copy(os.path.join(path, "adapter_config.json"), os.path.join(place, name))
        config.save_pretrained(place)
        shutil.copy(os.path.join(base, "tokenizer.json"), place)
        shutil.copy(os.path.join(base, "tokenizer_config.json"), place)
    torch.save(state, os.path.join(folder, "bin", "pytorch_model.bin"))
    if dcp:
        save(
            {"model": state},
            checkpoint_id=os.path.join(folder, "dcp", "pytorch_model_fsdp_0"),
            no_dist=True,
        )


def make(name, folder):
    from peft import PeftModel, get_peft_model

    case = CASES[name]
    base, adapter, full = (os.path.join(folder, kind) for kind in ("base", "adapter", "full"))
    torch.manual_seed(0)
    write_base(case, base)
    model = get_peft_model(load_base(case, base), make_config(case))
    for other in case.others:
        model.add_adapter(other, make_config(case))
    train(model, case.others)
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
    model.save_pretrained(adapter, **case.save)
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    write_training(state, adapter, base, folder, model.get_base_model().config, case.dcp)
    if not case.merges:
        return
    merged = PeftModel.from_pretrained(load_base(case, base), adapter).merge_and_unload()
    merged.save_pretrained(full)
    for other in case.others:
        merged = PeftModel.from_pretrained(load_base(case, base), os.path.join(adapter, other))
        merged.merge_and_unload().save_pretrained(f"{full}.{other}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--out")
    parser.add_argument("--case", nargs="*", default=list(CASES))
    args = parser.parse_args()
    if args.list or not args.out:
        print("\n".join(CASES))
        return
    for name in args.case:
        folder = os.path.join(os.path.abspath(args.out), name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        make(name, folder)
        print(name, flush=True)


if __name__ == "__main__":
    main()
