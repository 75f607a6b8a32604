#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make small run directories as trainers leave them: real Trainer and Accelerate runs, and for the
others real files (save_pretrained, torch.save, DCP, DeepSpeed's) under the names that they use.

    make_runs.py --out DIR [--case NAME ...] [--force]

Each case is DIR/NAME, with DIR/NAME/made written last. In every checkpoint the tensors are those of
model(N), N its step, so that a wrong checkpoint shows. Half a minute for all of them, one process.
"""

import argparse
import json
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import offline  # noqa: E402, F401

SAMPLE = os.path.join(os.path.dirname(HERE), "samples", "zero3")
CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


# ---------------------------------------------------------------- what checkpoints are made of


def config():
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=96,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def model(step):
    """The weights of a step."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(step)
    return LlamaForCausalLM(config())


def tokenizer(folder):
    from tiny_tokenizer import make_tokenizer

    make_tokenizer(96).save_pretrained(folder)


def save_hf(folder, step):
    model(step).save_pretrained(folder)


def save_bin(path, state):
    import torch

    os.makedirs(os.path.dirname(path), exist_ok=True)
    torch.save(state, path)


def save_dcp(folder, state):
    import warnings

    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, no_dist=True)


def write(path, text=""):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


def trainer_state(folder, step, best=None):
    from transformers import TrainerState

    state = TrainerState(global_step=step, best_model_checkpoint=best, max_steps=100)
    state.save_to_json(os.path.join(folder, "trainer_state.json"))


def junk_of_trainer(folder):
    import torch

    junk = {"exp_avg": torch.ones(3), "state": {"weight": torch.ones(2)}}
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state.pth"):
        torch.save(junk, f"{folder}/{name}")


def deepspeed_root(folder, *tags):
    """The ZeRO-3 sample under other tags; `latest` names the last."""
    os.makedirs(folder, exist_ok=True)
    for tag in tags:
        shutil.copytree(f"{SAMPLE}/global_step2", f"{folder}/{tag}")
    write(f"{folder}/latest", tags[-1])
    write(f"{folder}/zero_to_fp32.py", "# a tool\n")


# ---------------------------------------------------------------- HF Trainer and its children


@case
def trainer():
    """A real run: four checkpoints, of which the second is the best; the last is cut off."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Scripted(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            kwargs["model"].load_state_dict(model(state.global_step).state_dict())

    class Judged(Trainer):
        def evaluate(self, *args, **kwargs):
            metrics = {"eval_loss": abs(self.state.global_step - 4) + 1.0}
            self.log(metrics)
            return metrics

    data = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(8)]
    args = TrainingArguments(
        "run",
        max_steps=8,
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        logging_strategy="no",
        metric_for_best_model="loss",
        greater_is_better=False,
        load_best_model_at_end=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        per_device_train_batch_size=1,
    )
    net = Judged(model(0), args, train_dataset=data, eval_dataset=data, callbacks=[Scripted()])
    net.train()
    os.remove("run/checkpoint-8/trainer_state.json")
    tokenizer("run")
    shutil.copytree("run", "final")
    save_hf("final", 100)


@case
def trainer_fsdp():
    for step in (1, 2):
        folder = f"run/checkpoint-{step}"
        save_dcp(f"{folder}/pytorch_model_fsdp_0", {"model": model(step).state_dict()})
        save_dcp(f"{folder}/optimizer_0", {"optimizer": {"state": model(0).state_dict()}})
        junk_of_trainer(folder)
        trainer_state(folder, step)
    save_dcp("run/checkpoint-3/pytorch_model_fsdp_0", {"model": model(3).state_dict()})
    config().save_pretrained("run")
    tokenizer("run")


@case
def trainer_deepspeed():
    """Shards beside ready weights of another step: the shards are the checkpoint."""
    from transformers import AutoConfig, AutoModelForCausalLM

    for step in (1, 2):
        folder = f"run/checkpoint-{step}"
        deepspeed_root(folder, f"global_step{step}")
        ready = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(SAMPLE))
        ready.save_pretrained(folder)
        for name in os.listdir(SAMPLE):
            if "config" in name or "token" in name:
                shutil.copy(f"{SAMPLE}/{name}", folder)
        junk_of_trainer(folder)
        trainer_state(folder, step)


@case
def axolotl():
    """config.json and tokenizer are there from step 0; the checkpoints are full."""
    config().save_pretrained("run")
    tokenizer("run")
    write("run/debug.log", "step 1\n")
    write("run/README.md", "# card\n")
    for step in (10, 20):
        save_hf(f"run/checkpoint-{step}", step)
        junk_of_trainer(f"run/checkpoint-{step}")
        write(f"run/checkpoint-{step}/tokens_state.json", "{}")
        trainer_state(f"run/checkpoint-{step}", step)


@case
def axolotl_lora():
    from peft import LoraConfig, get_peft_model

    config().save_pretrained("run")
    tokenizer("run")
    for step in (10, 20):
        peft = get_peft_model(model(step), LoraConfig(r=2, task_type="CAUSAL_LM"))
        peft.save_pretrained(f"run/checkpoint-{step}")
        junk_of_trainer(f"run/checkpoint-{step}")
        trainer_state(f"run/checkpoint-{step}", step)


@case
def llama_factory():
    import torch
    from safetensors.torch import save_file

    for step in (10, 20):
        folder = f"run/checkpoint-{step}"
        save_hf(folder, step)
        save_file({"v_head.summary.weight": torch.ones(1, 16)}, f"{folder}/value_head.safetensors")
        trainer_state(folder, step)
    save_hf("run", 100)
    for name in ("all_results.json", "train_results.json", "trainer_log.jsonl"):
        write(f"run/{name}", "{}\n")
    trainer_state("run", 20)


# ---------------------------------------------------------------- Accelerate and its children


@case
def accelerate():
    """A real run with automatic names."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    names = ProjectConfiguration("run", automatic_checkpoint_naming=True)
    acc = Accelerator(cpu=True, project_config=names)
    net = model(0)
    net, optimizer = acc.prepare(net, torch.optim.AdamW(net.parameters()))
    for step in range(3):
        acc.unwrap_model(net).load_state_dict(model(step).state_dict())
        acc.save_state()
    config().save_pretrained("run")
    acc.end_training()


@case
def accelerate_fsdp():
    """Two models in one state; and all of FSDP's other ways to save."""
    for step in (0, 1):
        folder = f"run/checkpoints/checkpoint_{step}"
        for i in range(2):
            state = {"model": model(step + 10 * i).state_dict()}
            save_dcp(f"{folder}/pytorch_model_fsdp_{i}", state)
            save_dcp(f"{folder}/optimizer_{i}", {"optimizer": {"state": model(0).state_dict()}})
        save_bin(f"{folder}/random_states_0.pkl", {"step": step})
    save_bin("full/checkpoint_1/pytorch_model_fsdp.bin", model(1).state_dict())
    save_bin("full/checkpoint_1/optimizer.bin", {"state": model(2).state_dict()})
    save_bin("full/checkpoint_1/random_states_0.pkl", {})
    deepspeed_root("zero/checkpoint_1", "pytorch_model")
    save_bin("zero/checkpoint_1/random_states_0.pkl", {})


@case
def trlx():
    for name, step in (("checkpoint_02", 2), ("checkpoint_10", 10), ("best_checkpoint", 2)):
        save_bin(f"run/{name}/pytorch_model.bin", model(step).state_dict())
        save_bin(f"run/{name}/optimizer.bin", {"state": {}})
        save_bin(f"run/{name}/scheduler.bin", {})
        save_bin(f"run/{name}/random_states_0.pkl", {})
        config().save_pretrained(f"run/{name}/hf_model")
        save_bin(f"run/{name}/hf_model/pytorch_model.bin", model(99).state_dict())
        tokenizer(f"run/{name}/hf_model")
    # accelerate is at its optimizer
    save_bin("run/checkpoint_12/pytorch_model.bin", model(12).state_dict())
    save_bin("run/checkpoint_12/optimizer.bin", {})


@case
def open_instruct():
    for step in (5, 10, 15):
        save_bin(f"run/step_{step}/pytorch_model.bin", model(step).state_dict())
        if step < 15:
            write(f"run/step_{step}/COMPLETED", "COMPLETED")
    config().save_pretrained("run")
    deepspeed_root("states", "global_step5", "global_step10")
    save_bin("states/ref_policy/pytorch_model.bin", model(1).state_dict())
    for step in (1, 2):
        save_hf(f"out_checkpoints/step_{step}", step)
    write("out_checkpoints/step_1/.checkpoint_complete")


# ---------------------------------------------------------------- others


@case
def torchtitan():
    for step in (5, 10):
        save_dcp(f"dump/checkpoint/step-{step}", model(step).state_dict())
    os.makedirs("dump/checkpoint/step-15")
    write("dump/tb/events", "x")
    write("dump/checkpoint/step-15/__0_0.distcp", "x")


@case
def lightning():
    folder = "run/lightning_logs/version_0"
    for step in (10, 20):
        state = {f"model.{name}": tensor for name, tensor in model(step).state_dict().items()}
        save_bin(
            f"{folder}/checkpoints/epoch=0-step={step}.ckpt",
            {
                "epoch": 0,
                "global_step": step,
                "pytorch-lightning_version": "2.5.0",
                "state_dict": state,
                "loops": {},
                "callbacks": {},
                "optimizer_states": [],
                "lr_schedulers": [],
            },
        )
    write(f"{folder}/hparams.yaml", "{}\n")


@case
def verl():
    for step in (4, 8):
        for part, offset in (("actor", 0), ("critic", 1)):
            folder = f"run/global_step_{step}/{part}"
            state = model(step + offset).state_dict()
            save_bin(f"{folder}/model_world_size_1_rank_0.pt", state)
            save_bin(f"{folder}/optim_world_size_1_rank_0.pt", {"state": {}})
            save_bin(f"{folder}/extra_state_world_size_1_rank_0.pt", {"rng": {}})
            write(f"{folder}/fsdp_config.json", '{"FSDP_version": 2, "world_size": 1}')
            config().save_pretrained(f"{folder}/huggingface")
            tokenizer(f"{folder}/huggingface")
        save_bin(f"run/global_step_{step}/data.pt", {"pos": 1})
    write("run/latest_checkpointed_iteration.txt", "8")


@case
def openrlhf():
    for part in ("_actor", "_critic"):
        deepspeed_root(f"ckpt/{part}", "global_step5", "global_step10")


# ----------------------------------------------------------------


def make(name, root):
    folder = os.path.join(root, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    os.chdir(folder)
    CASES[name]()
    os.chdir(root)
    write(os.path.join(folder, "made"), stamp())


def stamp():
    import hashlib

    with open(os.path.abspath(__file__), "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()[:16]


def is_made(name, root):
    try:
        with open(os.path.join(root, name, "made")) as f:
            return f.read() == stamp()
    except FileNotFoundError:
        return False


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--out", required=True)
    ap.add_argument("--case", action="append", choices=sorted(CASES))
    ap.add_argument("--force", action="store_true")
    args = ap.parse_args()
    root = os.path.abspath(args.out)
    os.makedirs(root, exist_ok=True)
    for name in args.case or CASES:
        if args.force or not is_made(name, root):
            print(json.dumps({"made": name}), flush=True)
            make(name, root)


if __name__ == "__main__":
    main()
