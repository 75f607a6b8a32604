# SPDX-License-Identifier: Apache-2.0
"""One rank of a published job: opens libgatherfs, gives it this rank's tensors, follows them
where they move, and turns failures into one line of the log."""

import atexit
import contextlib
import ctypes
import logging
import os
import re
import weakref

import torch.distributed as dist

from . import _collect, _files, _hooks, _library

log = logging.getLogger("gatherfs")
_open = weakref.WeakSet()  # publishers of this process


def _patterns(given):
    if given is None:
        return []
    return [re.compile(p) for p in ([given] if isinstance(given, str) else given)]


def _encoded(text):
    return None if text is None else str(text).encode()


def _optimizers(given):
    listed = given if isinstance(given, (list, tuple)) else [given]
    found = [_hooks.torch_optimizer(o) for o in listed if o is not None]
    if any(o is None for o in found):
        raise ValueError("optimizer: neither a torch optimizer nor a wrapper of one")
    return found


class _Held:
    """A tensor whose address the library has, for one or several pieces of it."""

    __slots__ = ("hold", "storage", "address", "shape", "stride", "dtype", "static", "pieces")

    def __init__(self, hold, tensor):
        self.hold = hold
        self.storage = None  # keeps the memory while the library may read it
        self.pieces = []  # (id in the library, bytes behind the address)
        self.static = False
        self.shape, self.stride, self.dtype = tensor.shape, tensor.stride(), tensor.dtype
        self.keep(tensor)

    def keep(self, tensor):
        self.address, self.storage = tensor.data_ptr(), tensor.untyped_storage()


class Publisher:
    """One rank of a published job. Not thread-safe: belongs to the training thread."""

    def __init__(self, strict=False):
        self._strict = strict
        self._key = None
        self._step = 0
        self._undo = None
        self._said = set()
        self._forget()

    def _forget(self):
        # The calls of every step, bound once: None is a publisher that is off.
        self._handle = self._native_begin = self._native_commit = self._native_wanted = None
        self._model = None
        self._held = []
        self._keeping = False

    def _guarded(self, function, *args):
        """Calls it; what it raises is said once, and the publisher is off."""
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001 - training goes on whatever happens here
            self._give_up(error)
        return None

    def _give_up(self, error):
        with contextlib.suppress(Exception):
            self._close()
        if self._strict:
            raise error
        log.warning("gatherfs: publishing is off: %s", error)

    def _mention(self, what, error):
        """A failure that publishing survives. Each kind once."""
        if self._strict:
            raise error
        if what not in self._said:
            self._said.add(what)
            log.warning("gatherfs: %s: %s", what, error)

    # ---- opening

    def _start(self, model, optimizer, trainer, options, include, exclude, static, config, tokenizer):
        self._library = _library.load()
        model = getattr(trainer, "model_wrapped", None) or model
        if not hasattr(model, "named_modules"):
            raise TypeError(f"model: a {type(model).__name__}, wanted a torch module")
        model = _collect.outermost(model)
        module, wrappers = _collect.unwrap(model)
        engine = next((w for w in wrappers if _collect.is_engine(w)), None)
        if engine is not None and engine.optimizer is None:
            raise ValueError("the DeepSpeed engine has no optimizer")
        optimizers = _optimizers(optimizer) if engine is None else []
        self._model = model
        self._include, self._exclude = _patterns(include), _patterns(exclude)
        inner = _collect.inner_model(module)
        self._static = bool(getattr(inner, "peft_config", None)) if static == "auto" else bool(static)
        distributed = dist.is_available() and dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        step = options["step"]
        self._step = getattr(engine, "global_steps", 0) if step is None else int(step)
        self._open_native(options, rank, world, _collect.framework_of(model))
        self._add_all()
        if int(os.environ.get("LOCAL_RANK", rank)) == 0:
            self._add_files(inner, config, tokenizer)
        self._check(self._library.gatherfs_pub_start(self._handle))
        self._undo = _hooks.install(self, engine, optimizers)
        self._native_begin = self._library.gatherfs_pub_begin
        self._native_commit = self._library.gatherfs_pub_commit
        self._native_wanted = self._library.gatherfs_pub_wanted

    def _open_native(self, options, rank, world, framework):
        key = (options["name"], options["rundir"])
        if any(other._key == key for other in _open):
            raise ValueError(
                f"job '{key[0]}' is published by this process already: close() that publisher first, "
                "or give another name"
            )
        if options["background"] not in _library.BACKGROUND:
            raise ValueError(f"background={options['background']!r}: wanted 'auto', True or False")
        native = _library.Options(
            struct_size=ctypes.sizeof(_library.Options),
            job=_encoded(options["name"]),
            rank=rank,
            world=world,
            run_id=_encoded(options["run_id"]),
            rundir=_encoded(options["rundir"]),
            framework=_encoded(framework),
            step=self._step,
            memory_limit=options["memory_limit"],
            max_stall=options["max_stall"],
            slots=options["slots"],
            background=_library.BACKGROUND[options["background"]],
            verify=1,
        )
        handle = ctypes.c_void_p()
        self._check(self._library.gatherfs_pub_open(ctypes.byref(native), ctypes.byref(handle)))
        self._handle, self._key = handle, key
        _open.add(self)

    def _add_files(self, module, config, tokenizer):
        """Weights are worth publishing without them, too."""
        for source in _files.sources(module, config, tokenizer):
            try:
                for name, data in _files.read(source):
                    self._check(self._library.gatherfs_pub_file(self._handle, name.encode(), data, len(data)))
            except Exception as error:  # noqa: BLE001
                self._mention("a file beside the weights is missing", error)

    def _check(self, result):
        return _library.check(self._library, result)

    def _is_wanted(self, name):
        if self._include and not any(p.search(name) for p in self._include):
            return False
        return not any(p.search(name) for p in self._exclude)

    def _add_all(self):
        ids, holders, self._held = {}, {}, []
        for piece in _collect.collect(self._model):
            if not self._is_wanted(piece.name):
                continue
            if piece.alias is None:
                ids[piece.name] = self._add(piece, holders)
            elif piece.alias in ids:  # what it shares could be excluded
                name = piece.name.encode()
                self._check(self._library.gatherfs_pub_alias(self._handle, name, ids[piece.alias]))
        if not ids:
            raise ValueError("no tensor of the model is included")
        self._held = list(holders.values())
        self._keeping = True

    def _add(self, piece, holders):
        tensor = piece.hold()
        numbers = _library.numbers
        if tensor.device.type != "cpu":
            raise ValueError(f"'{piece.name}' is on {tensor.device}: only host memory can be published yet")
        flags = _library.FLAT if piece.flat is not None else 0
        flags |= _library.BUFFER if piece.buffer else 0
        static = self._static and not piece.trainable and not piece.buffer
        flags |= _library.STATIC if static else 0
        flags |= _library.FROZEN if not piece.trainable and not piece.buffer else 0
        strides = None if piece.part is not None or tensor.is_contiguous() else list(tensor.stride())
        behind = piece.part[0] * tensor.element_size() if piece.part is not None else 0
        held = holders.setdefault(piece.hold, None) or _Held(piece.hold, tensor)
        holders[piece.hold] = held
        description = _library.TensorDesc(
            struct_size=ctypes.sizeof(_library.TensorDesc),
            name=piece.name.encode(),
            dtype=str(tensor.dtype).split(".")[-1].encode(),
            data=held.address + behind,
            shape=numbers(piece.shape),
            local=numbers(piece.local),
            first=numbers(piece.first),
            stride=numbers(strides, ctypes.c_int64),
            ndim=len(piece.shape),
            flags=flags,
            replica=piece.replica,
            replicas=piece.replicas,
        )
        if piece.flat is not None:
            description.flat_off, description.flat_count = piece.flat
        index = self._check(self._library.gatherfs_pub_add(self._handle, ctypes.byref(description)))
        held.pieces.append((index, behind))
        held.static |= static
        return index

    # ---- the training loop

    def begin(self):
        """Just before the first byte of the weights changes."""
        native = self._native_begin
        if native is not None and native(self._handle) < 0:
            self._guarded(self._check, -1)

    def commit(self, step=None):
        """Just after the last one did; `step` is the number of updates done, one more than
        at the last commit without it."""
        native = self._native_commit
        if native is None:
            return
        try:
            self._step = step = self._step + 1 if step is None else int(step)
            if self._native_wanted(self._handle):
                self._follow()
            elif self._keeping:
                self._let_go()
            if native(self._handle, step) < 0:
                self._check(-1)
        except Exception as error:  # noqa: BLE001 - training goes on whatever happens here
            self._give_up(error)

    @contextlib.contextmanager
    def mutating(self, step=None):
        """Around changes of the weights by hand: EMA swaps, merged adapters, loaded states."""
        self.begin()
        try:
            yield
        finally:
            self.commit(self._step if step is None else step)

    def set_step(self, step):
        """Corrects the number that the next commit counts on from (skipped updates)."""
        self._step = step

    def metric(self, name, value):
        """A number that describes the present step, for `gatherfs snapshot --best`."""
        if self._handle is None:
            return
        try:
            self._check(self._library.gatherfs_pub_metric(self._handle, str(name).encode(), float(value)))
        except Exception as error:  # noqa: BLE001
            self._mention(f"metric '{name}' is left out", error)

    def _follow(self):
        """Somebody reads: are all tensors where they were? Their memory is kept until the next
        commit, as a copy may begin at any time before the next update."""
        for held in self._held:
            tensor = held.hold()
            if tensor.dtype is not held.dtype or tensor.shape != held.shape or tensor.stride() != held.stride:
                return self._reset()
            if tensor.data_ptr() != held.address:
                for index, behind in held.pieces:
                    address = tensor.data_ptr() + behind
                    self._check(self._library.gatherfs_pub_set_ptr(self._handle, index, address))
                held.keep(tensor)
            elif held.storage is None:
                held.keep(tensor)
        self._keeping = True
        return None

    def _let_go(self):
        """Nobody reads: what the model moved away from may be freed. Not so what is static: it
        is copied whenever a reader comes."""
        for held in self._held:
            if not held.static:
                held.storage = None
        self._keeping = False

    def refresh(self):
        """Collects the tensors anew, after the model itself changed (added adapters)."""
        if self._handle is not None:
            self._guarded(self._reset)

    def _reset(self):
        self._check(self._library.gatherfs_pub_reset_table(self._handle))
        self._add_all()
        self._check(self._library.gatherfs_pub_start(self._handle))

    # ---- the rest

    def stats(self):
        """What it cost so far: a dict of gatherfs_pub_stats, {} when off."""
        stats = _library.Stats(struct_size=ctypes.sizeof(_library.Stats))
        if self._handle is None or self._library.gatherfs_pub_stats(self._handle, ctypes.byref(stats)) < 0:
            return {}
        return {name: getattr(stats, name) for name, _ in stats._fields_ if name != "struct_size"}

    def idle(self):
        """A long time without updates begins (an evaluation, a save): readers that come
        meanwhile get this step. Without this they wait for the next update, unless somebody
        read at the last one: commits that nobody looks at do not check addresses."""
        if self._handle is not None and not self._keeping:
            self._guarded(self._reset)

    def final(self, timeout=5.0):
        """Training is over: lets a connected reader take the last state."""
        self.idle()
        if self._handle is None:
            return
        self._native_wanted(self._handle)  # says that the addresses are being checked
        self._guarded(self._follow)
        if self._handle is not None:
            self._library.gatherfs_pub_final(self._handle, int(timeout * 1000))

    def close(self):
        """Takes the job's rank away. Readers keep the snapshots they hold."""
        self._guarded(self._close)

    def _close(self):
        undo, handle, self._undo = self._undo, self._handle, None
        if undo is not None:
            undo()
        self._native_begin = self._native_commit = None
        if handle is not None:
            self._handle = None
            self._library.gatherfs_pub_close(handle)
        self._key = None
        self._forget()

    def __del__(self):
        # The library must not read the memory of a model that is gone. Nothing is left to
        # report to when the interpreter ends.
        try:
            self._close()
        except Exception:  # noqa: BLE001
            pass

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.final()
        self.close()


@atexit.register
def _close_all():
    for publisher in list(_open):
        publisher.close()
