# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning with TRL: three steps, each with a checkpoint.

    train_sft.py MODEL ROWS.jsonl OUT [lora]

accelerate's environment says how the model is sharded; without one it isn't.
"""

import os
import sys

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

STEPS = 3


def main(model, rows, out, adapter=None):
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    config = SFTConfig(
        output_dir=out,
        max_steps=STEPS,
        save_steps=1,
        per_device_train_batch_size=2,
        learning_rate=0.01,  # no two checkpoints look alike
        max_length=64,
        logging_steps=1,
        report_to=[],
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not deepspeed,  # DeepSpeed finds its accelerator itself
    )
    data = load_dataset("json", data_files=rows, split="train", cache_dir=out + ".cache")
    peft = LoraConfig(r=4, target_modules=["q_proj", "v_proj"]) if adapter == "lora" else None
    trainer = SFTTrainer(model=model, args=config, train_dataset=data, peft_config=peft)
    trainer.train()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
