# SPDX-License-Identifier: Apache-2.0
"""The save calls of open-instruct in their order, on three steps of training.

    train_open_instruct.py sft|lora|lora-tokens|ppo|grpo MODEL OUT KEPT

open-instruct itself wants vllm and CUDA kernels to be imported, so it cannot run here. What it does
to save was copied, as a sequence of calls, from its commit e6c3044aa:

    sft, lora   finetune.py main(): accelerator.save_state(step_N), COMPLETED, and at the end
                save_with_accelerate()
    ppo         the same with PolicyAndValueWrapper (ppo_vllm_thread.py before 47374996) and
                model_attribute_to_save="policy"
    grpo        grpo_fast.py PolicyTrainerRayProcess.save_checkpoint_state() and save_model()

All but lora have two more tokens than MODEL, for which the embeddings have grown.

Everything under them is real: accelerate, DeepSpeed ZeRO-3 on two processes, transformers, peft.
KEPT/<step>.safetensors gets what accelerate gathers, and the logits ("") of the policy in memory.
"""

import os
import sys
from collections import OrderedDict
from pathlib import Path

import deepspeed
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from probe import PROBE
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

STEPS = 3
CHAT_TEMPLATE = "olmo"
EOS = ["<|im_end|>", "<|endoftext|>"]


class PolicyAndValueWrapper(torch.nn.Module):
    def __init__(self, policy, value_model):
        super().__init__()
        self.policy = policy
        self.value_model = value_model
        self.critic_backbone = getattr(value_model, value_model.base_model_prefix)

    def forward(self, **kwargs):
        output = self.critic_backbone(**kwargs, output_hidden_states=True)
        return self.policy(**kwargs), self.value_model.score(output.hidden_states[-1])


def olmo3_generation_config(tokenizer):
    ids = [tokenizer.convert_tokens_to_ids(word) for word in EOS]
    return GenerationConfig(temperature=None, top_p=None, eos_token_id=ids)


def save_with_accelerate(accelerator, model, tokenizer, out, use_lora=False, attribute=None):
    model.generation_config = olmo3_generation_config(tokenizer)
    unwrapped = accelerator.unwrap_model(model)
    if attribute is not None:
        unwrapped = getattr(unwrapped, attribute)
    state = accelerator.get_state_dict(model)
    if attribute is not None and accelerator.is_main_process:
        start = attribute + "."
        state = OrderedDict({k[len(start) :]: v for k, v in state.items() if k.startswith(start)})
    if use_lora:
        if accelerator.is_main_process:
            unwrapped.save_pretrained(out, state_dict=state)
    else:
        unwrapped.save_pretrained(
            out,
            is_main_process=accelerator.is_main_process,
            save_function=accelerator.save,
            state_dict=state,
            safe_serialization=False,
        )
    if accelerator.is_main_process:
        tokenizer.save_pretrained(out)


def save_model(engine, tokenizer, out, rank):
    """Of grpo_fast.py, for a model without an adapter and without tied weights."""
    path = Path(out)
    if rank == 0:
        path.mkdir(parents=True, exist_ok=True)
    model = engine.module
    model.generation_config = olmo3_generation_config(tokenizer)
    gathered = {}
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            value = parameter.data.cpu()
            if rank == 0:
                gathered[name] = value
    if rank == 0:
        state = model.state_dict()
        for name, buffer in model.named_buffers():
            if name in state:
                gathered[name] = buffer.data.cpu()
        assert set(state) <= set(gathered)
        model.save_pretrained(out, state_dict=gathered)
        tokenizer.save_pretrained(out)
        (path / ".checkpoint_complete").touch()


def save_checkpoint_state(engine, reference, folder, step, rank):
    """Of grpo_fast.py."""
    state = {"training_step": step, "rank": rank}
    reference_folder = os.path.join(folder, "ref_policy")
    os.makedirs(reference_folder, exist_ok=True)
    if rank == 0:
        torch.save(reference.state_dict(), os.path.join(reference_folder, "pytorch_model.bin"))
    engine.save_checkpoint(folder, client_state=state)


def keep(accelerator, model, folder, name):
    state = accelerator.get_state_dict(model)
    with torch.no_grad():
        out = model(input_ids=PROBE)
    if accelerator.is_main_process:
        policy = out[0] if isinstance(out, tuple) else out
        tensors = dict(state) | {"": policy.logits}
        tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
        save_file(tensors, os.path.join(folder, name + ".safetensors"))


def make_model(kind, path, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(path)
    model.resize_token_embeddings(len(tokenizer))
    if kind.startswith("lora"):
        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        return get_peft_model(model, lora)
    if kind == "ppo":
        value = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1)
        return PolicyAndValueWrapper(model, value)
    return model


def loss_of(model, batch):
    out = model(input_ids=batch, labels=batch) if model_is_plain(model) else model(input_ids=batch)
    if isinstance(out, tuple):
        policy, values = out
        return policy.logits.logsumexp(-1).mean() + values.square().mean()
    return out.loss


def model_is_plain(model):
    return not isinstance(model.module, PolicyAndValueWrapper)


def main(kind, path, out, kept):
    torch.manual_seed(0)
    accelerator = Accelerator()
    tokenizer = AutoTokenizer.from_pretrained(path)
    if kind != "lora":
        tokenizer.add_special_tokens({"additional_special_tokens": EOS})
    model = make_model(kind, path, tokenizer)
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = torch.randint(4, 300, (2 * 2 * STEPS, 12))
    loader = torch.utils.data.DataLoader(rows, batch_size=2)
    reference = make_model("sft", path, tokenizer)
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.AdamW(trained, lr=0.01), loader
    )
    for step, batch in enumerate(loader, 1):
        accelerator.backward(loss_of(model, batch))
        optimizer.step()
        optimizer.zero_grad()
        keep(accelerator, model, kept, f"step_{step}")
        if kind == "grpo":
            save_checkpoint_state(model, reference, out, step, accelerator.process_index)
            save_model(
                model, tokenizer, f"{out}_checkpoints/step_{step}", accelerator.process_index
            )
        else:
            folder = os.path.join(out, f"step_{step}")
            accelerator.save_state(folder)
            with open(os.path.join(folder, "COMPLETED"), "w") as f:
                f.write("COMPLETED")
            accelerator.wait_for_everyone()
    if kind != "grpo":
        attribute = "policy" if kind == "ppo" else None
        save_with_accelerate(accelerator, model, tokenizer, out, kind.startswith("lora"), attribute)
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
