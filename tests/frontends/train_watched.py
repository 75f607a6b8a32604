# SPDX-License-Identifier: Apache-2.0
"""A Trainer run that somebody watches: evaluation and a checkpoint at each of a few steps, of
which only the newest two and the best are kept.

    train_watched.py MODEL ROWS.jsonl OUT KEPT

Each checkpoint's weights are copied to KEPT before the rotation can take them. A checkpoint is
made slowly, so that there is time to catch it half done.
"""

import json
import os
import shutil
import sys
import time

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

STEPS = 5
HALF_DONE = 1.5  # seconds between the weights and the rest of a checkpoint


class SlowSaver(Trainer):
    def _save_optimizer_and_scheduler(self, output_dir):
        time.sleep(HALF_DONE)
        super()._save_optimizer_and_scheduler(output_dir)


class Keeper(TrainerCallback):
    def __init__(self, folder):
        self.folder = folder

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            name = f"checkpoint-{state.global_step}"
            weights = os.path.join(args.output_dir, name, "model.safetensors")
            shutil.copy(weights, os.path.join(self.folder, name + ".part"))
            os.rename(
                os.path.join(self.folder, name + ".part"),
                os.path.join(self.folder, name + ".safetensors"),
            )


def main(model, rows, out, kept):
    tokenizer = AutoTokenizer.from_pretrained(model)
    with open(rows) as f:
        texts = [json.loads(line)["text"] for line in f]
    data = []
    for text in texts:
        ids = tokenizer(text, truncation=True, padding="max_length", max_length=48)["input_ids"]
        data.append({"input_ids": ids, "labels": ids})
    config = TrainingArguments(
        output_dir=out,
        max_steps=STEPS,
        save_steps=1,
        save_total_limit=2,
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="eval_loss",
        greater_is_better=True,  # the loss falls, so the first checkpoint stays the best
        per_device_train_batch_size=2,
        learning_rate=0.01,
        logging_steps=1,
        report_to=[],
        use_cpu=os.environ.get("ACCELERATE_USE_DEEPSPEED") != "true",
    )
    trainer = SlowSaver(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=config,
        train_dataset=data,
        eval_dataset=data[:8],
        processing_class=tokenizer,
        callbacks=[Keeper(kept)],
    )
    trainer.train()
    trainer.accelerator.end_training()
    sys.stdout.flush()
    os._exit(0)  # now and then a thread of torch's aborts a rank of DDP on its way out


if __name__ == "__main__":
    main(*sys.argv[1:])
