# SPDX-License-Identifier: Apache-2.0
"""Where a training loop changes its weights: begin() just before, commit() just after.

    torch optimizers           the optimizer's own pre and post hooks of step()
    DeepSpeed                  the engine's _take_model_step(): the inner optimizer's hooks are
                               too early (16-bit parameters are gathered behind them), and
                               step() of a micro batch changes nothing
    Accelerate with DeepSpeed  the same engine: its optimizer's step() does nothing

A hook is undone by the function that install() returns.
"""


def torch_optimizer(optimizer):
    """The torch optimizer inside Accelerate's wrapper and its like, or None. A wrapper may be a
    torch optimizer by name only: the hooks are made by a constructor that it never called."""
    seen = set()
    while optimizer is not None and id(optimizer) not in seen:
        seen.add(id(optimizer))
        if "_optimizer_step_pre_hooks" in getattr(optimizer, "__dict__", {}):
            return optimizer
        optimizer = getattr(optimizer, "optimizer", None)
    return None


def install(publisher, engine, optimizers):
    """Hooks the publisher's begin and commit into the loop; returns the function that undoes
    it. Without engine and optimizers the caller calls them itself."""
    if engine is not None:
        return _install_engine(publisher, engine)
    return _install_optimizers(publisher, optimizers)


def _install_engine(publisher, engine):
    """One hook in the engine for all its publishers: they may come and go in any order."""
    publishers = vars(engine).get("_gatherfs_publishers")
    if publishers is None:
        publishers = engine._gatherfs_publishers = []
        inner = engine._take_model_step

        def take_model_step(*args, **kwargs):
            for each in publishers:
                each.begin()
            result = inner(*args, **kwargs)
            for each in publishers:
                each.commit()
            return result

        engine._take_model_step = take_model_step
    publishers.append(publisher)
    return lambda: publishers.remove(publisher)


def _install_optimizers(publisher, optimizers):
    """Several optimizers make one update: from the first step() of any to the end of the last
    one's. Where one steps again before all have (a critic's inner loop), that begins another."""
    begin, commit = publisher.begin, publisher.commit
    if len(optimizers) == 1:
        handles = [
            optimizers[0].register_step_pre_hook(lambda *_: begin()),
            optimizers[0].register_step_post_hook(lambda *_: commit()),
        ]
        return lambda: [handle.remove() for handle in handles]

    stepped = set()

    def before(optimizer, *_):
        if id(optimizer) in stepped:
            stepped.clear()
            commit()
        begin()

    def after(optimizer, *_):
        stepped.add(id(optimizer))
        if len(stepped) == len(optimizers):
            stepped.clear()
            commit()

    handles = [o.register_step_pre_hook(before) for o in optimizers]
    handles += [o.register_step_post_hook(after) for o in optimizers]
    return lambda: [handle.remove() for handle in handles]
