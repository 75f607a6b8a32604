# SPDX-License-Identifier: Apache-2.0
"""Publish the weights of a running training job, for `gatherfs mount live:JOB DIR`.

    import gatherfs
    publisher = gatherfs.publish(model, optimizer, name="run7")     # on all ranks

    Trainer(..., callbacks=[gatherfs.TrainerCallback(name="run7")])

Call publish() after wrapping (FSDP, DeepSpeed, accelerate.prepare) and after the optimizer
was made. It does not communicate, costs nothing while nobody reads, and never raises into
the training loop: what goes wrong is said once, by the logger 'gatherfs', and the publisher
is then off. `strict=True` raises instead. GATHERFS_PUBLISH=0 turns all of it off.
"""

import os

from ._library import LibraryError
from ._mount import MountError, mount

__all__ = ["publish", "Publisher", "TrainerCallback", "mount", "LibraryError", "MountError"]


def publish(
    model,
    optimizer=None,
    *,
    name=None,
    step=None,
    trainer=None,
    background="auto",
    slots=2,
    max_stall=2.0,
    memory_limit=0,
    include=None,
    exclude=None,
    static="auto",
    config=None,
    tokenizer=None,
    run_id=None,
    rundir=None,
    strict=False,
):
    """Publishes this rank's part of `model` and hooks into the update of its weights.

    model      a module, or one wrapped by DDP, FSDP, DeepSpeed, Accelerate, PEFT, torch.compile
    optimizer  an optimizer, Accelerate's wrapper of one, or a list of them. None: the caller
               surrounds each update with `publisher.begin()` and `publisher.commit(step)`
               (DeepSpeed needs none: the engine is hooked). Several make one update
    name       of the job; GATHERFS_RUN or "train" without it
    step       the number of updates done so far (a resumed job's global step); 0, or what a
               DeepSpeed engine says
    include, exclude   regular expressions (one or a list), searched in tensor names
    static     True: parameters without gradient never change; False: copy them every time;
               "auto": True for the frozen base of a PEFT model only
    config, tokenizer  objects or directories for the files beside the weights
    trainer    a transformers Trainer whose wrapped model is published in place of `model`
    background True: a thread copies; False: commit() does; "auto": what delays training less
    max_stall  seconds that one snapshot may delay training
    memory_limit  bytes for snapshots on this rank; 0: a safe part of what is free
    run_id     text that differs between starts of the job, the same on all ranks; None: what
               torchrun or SLURM says
    Returns a Publisher; one that does nothing if publishing is off or failed.
    """
    from ._publisher import Publisher

    publisher = Publisher(strict)
    if os.environ.get("GATHERFS_PUBLISH") == "0":
        return publisher
    options = {
        "name": name or os.environ.get("GATHERFS_RUN") or "train",
        "step": step,
        "background": background,
        "slots": slots,
        "max_stall": max_stall,
        "memory_limit": memory_limit,
        "run_id": run_id,
        "rundir": rundir or os.environ.get("GATHERFS_RUNDIR"),
    }
    publisher._guarded(
        publisher._start, model, optimizer, trainer, options, include, exclude, static, config, tokenizer
    )
    return publisher


def __getattr__(name):
    # mount() needs no torch, and only users of its Trainer need transformers.
    if name == "Publisher":
        from ._publisher import Publisher

        return Publisher
    if name == "TrainerCallback":
        from ._trainer import TrainerCallback

        return TrainerCallback
    raise AttributeError(name)
