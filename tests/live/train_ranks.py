# SPDX-License-Identifier: Apache-2.0
"""One rank of training jobs that publish, one job after the other, and leave what their
framework gathered at each step: OUT/MODE/full-STEP.pt. A job is named as its MODE; it runs until
OUT/MODE/stop exists, 400 steps at most. Modes are those of collect_ranks.py, and

    compiled            torch.compile around DDP
    two_optimizers      of which one steps twice as often
    trainer_lora        transformers' Trainer, DDP, LoRA, through gatherfs.TrainerCallback
    trainer_fsdp1, trainer_fsdp2, trainer_zero3    likewise, all weights
    accelerate_zero2    Accelerate with DeepSpeed, two micro batches a step
"""

import logging
import os
import sys
import time

import torch
import torch.distributed as dist

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../src/live"))
sys.path.insert(0, os.path.dirname(__file__))
import gatherfs  # noqa: E402
from collect_ranks import Net, fsdp1_state, full_tensors, sharded, step  # noqa: E402

MAX_STEPS = 400
PAUSE = 0.02


def save(state, out, number):
    """Under its name only when whole."""
    if dist.get_rank() == 0:
        torch.save({k: v.detach().clone() for k, v in state.items()}, f"{out}/part-{number}")
        os.rename(f"{out}/part-{number}", f"{out}/full-{number}.pt")


def stopped(out):
    """The same answer on all ranks."""
    answer = [os.path.exists(f"{out}/stop")]
    dist.broadcast_object_list(answer)
    time.sleep(PAUSE)
    return answer[0]


def until_stopped(publisher, out, one_step, gathered):
    for number in range(1, MAX_STEPS + 1):
        one_step()
        save(gathered(), out, number)
        if stopped(out):
            break
    publisher.final()
    publisher.close()


def train(mode, out):
    rank = dist.get_rank()
    model, optimizer, gathered = sharded(mode, rank, dist.get_world_size())
    engine = model is optimizer
    publisher = gatherfs.publish(model, None if engine else optimizer, name=mode, strict=True)
    until_stopped(publisher, out, lambda: step(model, optimizer, rank, mode), gathered)


def train_compiled(mode, out):
    torch.manual_seed(0)
    net = Net()
    model = torch.compile(torch.nn.parallel.DistributedDataParallel(net), backend="eager")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    publisher = gatherfs.publish(model, optimizer, name=mode, strict=True)
    until_stopped(publisher, out, lambda: step(model, optimizer, dist.get_rank()), net.state_dict)


def train_two_optimizers(mode, out):
    """What is published between is no step of its own: an update ends when both have stepped,
    and where one steps twice, before its second time."""
    torch.manual_seed(0)
    net = Net()
    body = torch.optim.AdamW(net.layers.parameters(), lr=0.1)
    rest = torch.optim.SGD([net.embed.weight, net.gain], lr=0.1)
    publisher = gatherfs.publish(net, [body, rest], name=mode, strict=True)
    for number in range(1, MAX_STEPS + 1, 2):
        net(torch.arange(4)).square().mean().backward()
        body.step()
        save(net.state_dict(), out, number)
        body.step()
        rest.step()
        save(net.state_dict(), out, number + 1)
        if stopped(out):
            break
    publisher.close()


def tiny_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 67, "hidden_size": 20, "intermediate_size": 33, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))


def run_trainer(mode, out, model, gathered, **options):
    """gathered(model, as callbacks are told of it) -> its state"""
    from accelerate.state import AcceleratorState
    from transformers import Trainer, TrainerCallback, TrainingArguments

    AcceleratorState._reset_state(reset_partial_state=True)

    class Gather(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            save(gathered(model), out, state.global_step)
            control.should_training_stop = stopped(out)

    ids = [torch.randint(0, 67, (8,), generator=torch.Generator().manual_seed(i)) for i in range(64)]
    arguments = TrainingArguments(
        f"{out}/run",
        max_steps=MAX_STEPS,
        per_device_train_batch_size=2,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **options,
    )
    callbacks = [gatherfs.TrainerCallback(name=mode, strict=True), Gather()]
    rows = [{"input_ids": row, "labels": row} for row in ids]
    Trainer(model, arguments, train_dataset=rows, callbacks=callbacks).train()


def train_trainer_lora(mode, out):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    run_trainer(mode, out, model, lambda _: model.state_dict(), use_cpu=True)


def train_trainer_fsdp1(mode, out):
    config = {
        "version": 1,
        "transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
        "use_orig_params": True,
        "sync_module_states": False,
        "backward_prefetch": "NO_PREFETCH",
    }
    options = {"use_cpu": True, "fsdp": True, "fsdp_config": config}
    run_trainer(mode, out, tiny_llama(), fsdp1_state, **options)


def train_trainer_fsdp2(mode, out):
    config = {"version": 2, "transformer_layer_cls_to_wrap": "LlamaDecoderLayer"}
    options = {"use_cpu": True, "fsdp": True, "fsdp_config": config}
    run_trainer(mode, out, tiny_llama(), full_tensors, **options)


def zero3_gathered(model):
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        return {k: v.detach().clone() for k, v in model.state_dict().items()}


def without_compiled_ops():
    """gloo does what DeepSpeed would build a shared-memory backend for."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.ops.__compatible_ops__["shm_comm"] = False


def train_trainer_zero3(mode, out):
    without_compiled_ops()
    config = {
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 16},
        "zero_allow_untested_optimizer": True,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
    run_trainer(mode, out, tiny_llama(), zero3_gathered, deepspeed=config, gradient_accumulation_steps=2)


def train_accelerate_zero2(mode, out):
    from accelerate import Accelerator, DeepSpeedPlugin
    from accelerate.state import AcceleratorState

    without_compiled_ops()
    AcceleratorState._reset_state(reset_partial_state=True)
    plugin = DeepSpeedPlugin(zero_stage=2, gradient_accumulation_steps=2)
    plugin.deepspeed_config["zero_allow_untested_optimizer"] = True
    plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 4
    accelerator = Accelerator(deepspeed_plugin=plugin, gradient_accumulation_steps=2)
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1)
    model, optimizer = accelerator.prepare(net, optimizer)
    publisher = gatherfs.publish(model, optimizer, name=mode, strict=True)

    def one_step():
        for _ in range(2):
            with accelerator.accumulate(model):
                accelerator.backward(model(torch.randint(0, 33, (4,))).square().mean())
                optimizer.step()
                optimizer.zero_grad()

    until_stopped(publisher, out, one_step, model.module.state_dict)


def main(modes, out):
    logging.basicConfig()
    dist.init_process_group("gloo")
    for mode in modes.split(","):
        globals().get("train_" + mode, train)(mode, f"{out}/{mode}")
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
