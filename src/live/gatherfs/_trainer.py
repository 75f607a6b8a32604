# SPDX-License-Identifier: Apache-2.0
"""publish() for the Trainer of transformers, and for what is built on it (TRL, Axolotl)."""

from transformers import TrainerCallback as _Base


class TrainerCallback(_Base):
    """Publishes from the start of training to its end.

    Takes the keyword arguments of gatherfs.publish(). `trainer=` helps where the trainer
    wraps its model in a way that its callbacks are not told of."""

    def __init__(self, **options):
        from ._publisher import Publisher

        self._options = options
        self.publisher = Publisher()  # off until training begins

    def on_train_begin(self, args, state, control, model=None, optimizer=None, processing_class=None, **_):
        from . import publish

        self.publisher.close()  # of a training that failed
        options = {"tokenizer": processing_class, "step": state.global_step, **self._options}
        self.publisher = publish(model, optimizer, **options)

    def on_step_end(self, args, state, control, **_):
        # Updates that a gradient scaler skipped count for the Trainer.
        self.publisher.set_step(state.global_step)
        if control.should_evaluate or control.should_save:
            self.publisher.idle()

    def on_epoch_end(self, args, state, control, **_):
        # The best weights are put in place of the last between here and on_train_end.
        if args.load_best_model_at_end and control.should_training_stop:
            self.publisher.begin()

    def on_save(self, args, state, control, **_):
        self.on_epoch_end(args, state, control)

    def on_evaluate(self, args, state, control, metrics=None, **_):
        for name, value in (metrics or {}).items():
            if isinstance(value, (int, float)):
                self.publisher.metric(name, value)

    def on_log(self, args, state, control, logs=None, **_):
        for name in ("loss", "reward"):
            if isinstance((logs or {}).get(name), (int, float)):
                self.publisher.metric(name, logs[name])

    def on_train_end(self, args, state, control, **_):
        if args.load_best_model_at_end:
            self.publisher.commit(state.global_step)
        self.publisher.final()
        self.publisher.close()
