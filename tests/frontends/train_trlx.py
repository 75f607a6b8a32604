# SPDX-License-Identifier: Apache-2.0
"""A few steps of trlx, with a checkpoint at each. Runs in the environment that has it.

    train_trlx.py ppo|ppo-lora|sft MODEL OUT KEPT

trlx is not changed, but watched: whenever it has saved a model, KEPT/<checkpoint>.safetensors gets
what was in memory: the probe's logits (""), values and state dict of the wrapped model.
"""

import os
import sys

import torch
import trlx
from probe import PROBE
from safetensors.torch import save_file
from tiny_tokenizer import TEXT
from trlx.data.default_configs import TRLConfig, default_ppo_config, default_sft_config
from trlx.trainer.accelerate_ppo_trainer import AcceleratePPOTrainer
from trlx.trainer.accelerate_sft_trainer import AccelerateSFTTrainer

STEPS = 3
WORDS = TEXT.split()


def watch(trainer, kept):
    def save_pretrained(self, directory=None, **kwargs):
        original(self, directory, **kwargs)
        wrapper = self.accelerator.unwrap_model(self.model)
        head = getattr(wrapper, "v_head", None)
        lm = wrapper.base_model if head else wrapper
        assert not wrapper.training
        with torch.no_grad():
            out = lm(PROBE, output_hidden_states=True)
            found = {"": out.logits}
            if head:
                found["value"] = head(out.hidden_states[-1]).squeeze(-1)
        found |= {"lm." + k: v for k, v in lm.state_dict().items()}
        if head:
            found |= {"v_head." + k: v for k, v in head.state_dict().items()}
        name = os.path.basename(os.path.dirname(directory))
        found = {k: v.detach().clone().contiguous() for k, v in found.items()}
        save_file(found, os.path.join(kept, name + ".safetensors"))

    original = trainer.save_pretrained
    trainer.save_pretrained = save_pretrained


def config_of(kind, model, out):
    config = (default_sft_config if kind == "sft" else default_ppo_config)().to_dict()
    changes = {
        "train.checkpoint_dir": out,
        "train.total_steps": STEPS,
        "train.seq_length": 24,
        "train.batch_size": 2,
        "train.checkpoint_interval": 1,
        "train.eval_interval": 1,
        "train.tracker": None,
        "model.model_path": model,
        "tokenizer.tokenizer_path": model,
        "optimizer.kwargs.lr": 0.01,  # no two checkpoints look alike
        "method.gen_kwargs.max_new_tokens": 4,
    }
    if kind != "sft":
        changes |= {"method.num_rollouts": 4, "method.chunk_size": 2}
        changes |= {"model.num_layers_unfrozen": 1}
    config = TRLConfig.update(config, changes)
    if kind == "ppo-lora":
        lora = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8}
        config.model.peft_config = lora | {"target_modules": ["q_proj", "v_proj"]}
        config.model.num_layers_unfrozen = -1
    return config


def reward(samples, **kwargs):
    """Falls from call to call, so that the first checkpoint stays the best."""
    reward.last -= 1
    return [reward.last + 0.1 * i for i in range(len(samples))]


reward.last = 100


def main(kind, model, out, kept):
    for trainer in (AccelerateSFTTrainer, AcceleratePPOTrainer):
        watch(trainer, kept)
    config = config_of(kind, model, out)
    prompts = [" ".join(WORDS[i : i + 3]) for i in range(8)]
    if kind == "sft":
        samples = [" ".join(WORDS[i : i + 12]) for i in range(16)]
        trlx.train(samples=samples, eval_prompts=prompts[:2], config=config)
    else:
        trlx.train(reward_fn=reward, prompts=prompts, eval_prompts=prompts[:2], config=config)


if __name__ == "__main__":
    main(*sys.argv[1:])
