# SPDX-License-Identifier: Apache-2.0
"""The Python module in one process: options, failures that training survives, tensors that move,
and what the hooks cost."""

import gc
import json
import os
import sys
import timeit

import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../src/live"))
import gatherfs as module  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 6, bias=False)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x):
        self.seen += 1
        return self.second(torch.relu(self.first(x)))


def train(net, optimizer, steps=1):
    for _ in range(steps):
        net(torch.ones(2, 6, dtype=net.first.weight.dtype)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def optimizer(net):
    return torch.optim.AdamW(net.parameters(), lr=0.1)


@pytest.fixture
def publish(tmp_path, monkeypatch, net, optimizer):
    """publish(**options) of `net`, closed with the test"""
    rundir = tmp_path / "jobs"
    rundir.mkdir(mode=0o700)
    monkeypatch.setenv("GATHERFS_RUNDIR", str(rundir))
    monkeypatch.delenv("GATHERFS_RUN", raising=False)
    opened = []

    def do(model=net, optimizer=optimizer, name="job", strict=True, **options):
        opened.append(module.publish(model, optimizer, name=name, strict=strict, **options))
        return opened[-1]

    yield do
    for publisher in opened:
        publisher.close()


@pytest.fixture
def read(gatherfs, tmp_path, publish):
    """read(job) -> (step, tensors). The publisher must be idle at a step, or finished."""
    count = iter(range(100))

    def do(job="job", *options):
        out = tmp_path / f"out{next(count)}"
        done = gatherfs.export(f"live:{job}", out, "--view", "raw", "--json", *options).ok()
        return json.loads(done.text)["step"], load_file(out / "model.safetensors")

    return do


@pytest.fixture
def without_buffer(net):
    # Buffers change in forward, so that only a commit can take them.
    del net.seen
    net.register_buffer("seen", torch.zeros(3), persistent=False)
    return net


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "gatherfs"]


def same(got, want):
    assert set(got) == set(want)
    for name in want:
        assert torch.equal(got[name], want[name]), name


# ---------------------------------------------------------------- options


def test_what_is_published_is_the_state_dict(publish, read, without_buffer):
    publish(step=7)
    step, got = read()
    assert step == 7
    same(got, without_buffer.state_dict())


def test_buffers_that_forward_changes_are_of_the_step(publish, gatherfs, net, optimizer, tmp_path, monkeypatch):
    import threading

    publish()
    done = []

    def export():
        done.append(gatherfs.export("live:job", tmp_path / "out", "--view", "raw", "--json"))

    reader = threading.Thread(target=export)
    reader.start()
    states = {0: {k: v.clone() for k, v in net.state_dict().items()}}
    for step in range(1, 5000):
        train(net, optimizer)
        states[step] = {k: v.clone() for k, v in net.state_dict().items()}
        if not reader.is_alive():
            break
    reader.join()
    step = json.loads(done[0].ok().text)["step"]
    same(load_file(tmp_path / "out" / "model.safetensors"), states[step])


def test_include_and_exclude_choose_by_name(publish, read, without_buffer):
    publish(name="one", include="first")
    assert set(read("one")[1]) == {"first.weight", "first.bias"}
    publish(name="two", exclude=["bias$", "second"])
    assert set(read("two")[1]) == {"first.weight"}
    with pytest.raises(ValueError, match="no tensor of the model is included"):
        publish(name="three", include="nothing")


def test_the_environment_names_the_job_and_turns_it_off(publish, without_buffer, read, monkeypatch, tmp_path):
    monkeypatch.setenv("GATHERFS_RUN", "named")
    publish(name=None)
    read("named")
    monkeypatch.setenv("GATHERFS_PUBLISH", "0")
    publisher = publish(name="off")
    publisher.begin()
    publisher.commit()
    publisher.metric("loss", 1)
    publisher.refresh()
    publisher.final()
    assert publisher.stats() == {}
    assert not os.path.exists(tmp_path / "jobs" / "off")


BAD = {
    "background": ({"background": "sometimes"}, "wanted 'auto', True or False"),
    "name": ({"name": "a b"}, "letters, digits"),
    "slots": ({"slots": "two"}, "str"),
    "pattern": ({"include": "("}, "unterminated"),
    "optimizer": ({"optimizer": object()}, "neither a torch optimizer nor a wrapper of one"),
    "model": ({"model": object()}, "wanted a torch module"),
}


@pytest.mark.parametrize("options,text", BAD.values(), ids=BAD)
def test_a_bad_option_is_one_warning_or_an_exception(publish, caplog, net, optimizer, options, text):
    with pytest.raises(Exception, match=text):
        publish(**options)
    assert not warnings_of(caplog)
    publisher = publish(strict=False, **options)
    train(net, optimizer, 2)
    publisher.commit()
    assert len(warnings_of(caplog)) == 1
    assert text in warnings_of(caplog)[0]


def test_a_missing_library_does_not_stop_training(publish, caplog, net, optimizer, monkeypatch):
    monkeypatch.setenv("GATHERFS_LIBRARY", "/nowhere/libgatherfs.so.0")
    publish(strict=False)
    train(net, optimizer, 2)
    assert len(warnings_of(caplog)) == 1
    assert "GATHERFS_LIBRARY names it" in warnings_of(caplog)[0]


def test_files_beside_the_weights_come_from_all_givers(publish, net, tmp_path, caplog):
    given = tmp_path / "given"
    given.mkdir()
    (given / "tokenizer.json").write_text("{}")
    (given / "model.safetensors").write_text("weights")
    publish(config={"model_type": "llama"}, tokenizer=given)
    files = tmp_path / "jobs" / "job" / "model"
    assert sorted(os.listdir(files)) == ["config.json", "tokenizer.json"]
    assert json.loads((files / "config.json").read_text()) == {"model_type": "llama"}
    publish(name="two", strict=False, config=tmp_path / "nowhere").commit()
    assert ["a file beside the weights is missing" in w for w in warnings_of(caplog)] == [True]


# ---------------------------------------------------------------- steps


def test_steps_are_counted_or_given(publish, net, optimizer):
    publisher = publish(step=10)
    train(net, optimizer, 2)
    assert publisher.stats()["step"] == 12
    publisher.set_step(20)
    train(net, optimizer)
    assert publisher.stats()["step"] == 21
    publisher.begin()
    publisher.commit(torch.tensor(30))
    assert publisher.stats()["step"] == 30
    with publisher.mutating():
        net.first.weight.data.zero_()
    assert publisher.stats()["step"] == 30
    publisher.close()
    train(net, optimizer)
    assert publisher.stats() == {}


def test_an_impossible_step_turns_publishing_off_not_training(publish, caplog, net, optimizer):
    for step in ("nonsense", -1):
        publisher = publish(strict=False)
        publisher.commit(step)
        train(net, optimizer)
        assert publisher.stats() == {}
    assert len(warnings_of(caplog)) == 2
    with pytest.raises(ValueError):
        publish().commit("nonsense")


def test_an_update_by_several_optimizers_ends_with_the_last(publish, net):
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (net.first, net.second)]
    publisher = publish(optimizer=optimizers)
    net(torch.ones(2, 6)).sum().backward()
    counts = []
    for which in (1, 0, 0, 1, 0, 0, 0, 1):  # in any order; and where one steps more often
        optimizers[which].step()
        counts.append(publisher.stats()["step"])
    assert counts == [0, 1, 1, 2, 2, 3, 4, 5]


def test_a_wrapper_of_an_optimizer_will_do(publish, net, optimizer):
    accelerate = pytest.importorskip("accelerate")
    wrapped = accelerate.Accelerator(cpu=True).prepare(optimizer)
    publisher = publish(optimizer=wrapped)
    net(torch.ones(2, 6)).sum().backward()
    wrapped.step()
    assert publisher.stats()["step"] == 1


def test_metrics_that_do_not_fit_are_left_out(publish, caplog, gatherfs):
    publisher = publish(strict=False)
    publisher.metric("eval_loss", torch.tensor(0.5))
    publisher.metric("x" * 100, 1)
    publisher.metric("x" * 100, 2)
    publisher.metric("text", "nonsense")
    assert len(warnings_of(caplog)) == 2
    status = json.loads(gatherfs.run("status", "--json", "live:job").ok().text)
    assert "eval_loss" in json.dumps(status)
    assert publisher.stats()


def test_an_idle_job_can_be_read(publish, read, net, optimizer, without_buffer):
    publisher = publish()
    train(net, optimizer, 3)
    publisher.idle()
    step, got = read()
    assert step == 3
    same(got, net.state_dict())
    train(net, optimizer)
    publisher.final()
    step, got = read()
    assert step == 4
    same(got, net.state_dict())


# ---------------------------------------------------------------- one name, one publisher


def test_a_second_publisher_of_a_name_is_refused(publish, net, optimizer, caplog, read, without_buffer):
    first = publish(step=3)
    with pytest.raises(ValueError, match="close\\(\\) that publisher first"):
        publish()
    publish(strict=False)
    assert len(warnings_of(caplog)) == 1
    train(net, optimizer)
    first.final()
    assert read()[0] == 4
    first.close()
    publish(step=5)
    assert read()[0] == 5


def test_a_forgotten_publisher_is_closed_with_its_model(publish, tmp_path):
    net = Net()
    publisher = module.publish(net, torch.optim.SGD(net.parameters(), lr=0.1), name="gone", strict=True)
    assert os.path.exists(tmp_path / "jobs" / "gone")
    del net, publisher
    gc.collect()
    assert not os.path.exists(tmp_path / "jobs" / "gone")


# ---------------------------------------------------------------- tensors that move


def moved_by_assignment(net):
    net.load_state_dict({k: v.clone() + 1 for k, v in net.state_dict().items()}, assign=True)


MOVES = {
    "assign": moved_by_assignment,
    "dtype": lambda net: net.to(torch.bfloat16),
    "data": lambda net: setattr(net.second.weight, "data", net.second.weight.data.clone() * 2),
    "transposed": lambda net: setattr(net.second.weight, "data", torch.rand(5, 6).t()),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_moved_tensors_are_followed(publish, read, without_buffer, mount, move):
    publisher = publish()
    # A mount stays connected, so that the next commit looks.
    point = mount("live:job", "--view", "raw")
    before = {k: v.clone() for k, v in without_buffer.state_dict().items()}
    with open(os.path.join(point, "model.safetensors"), "rb"):
        with publisher.mutating(1):
            move(without_buffer)
        gc.collect()
        publisher.final(0)
    step, got = read()
    assert step == 1
    same(got, without_buffer.state_dict())
    assert any(not torch.equal(got[k].float(), before[k].float()) for k in got) or got["first.bias"].dtype != (
        before["first.bias"].dtype
    )


def test_what_a_model_moved_away_from_is_freed_where_nobody_reads(publish, without_buffer):
    import weakref

    publisher = publish()
    old = weakref.ref(without_buffer.first.weight.data.untyped_storage())
    with publisher.mutating():
        without_buffer.to(torch.float64)
    gc.collect()
    assert old() is None


def test_added_parameters_need_a_refresh(publish, read, without_buffer):
    publisher = publish()
    without_buffer.third = nn.Linear(2, 2)
    publisher.refresh()
    assert "third.weight" in read()[1]


# ---------------------------------------------------------------- transformers, PEFT


def tiny_llama():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 67, "hidden_size": 20, "intermediate_size": 33, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)
    return transformers.LlamaForCausalLM(config)


def test_the_frozen_base_of_peft_is_static(publish, gatherfs, tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_llama(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    publisher = publish(model=model, optimizer=None)
    static = {index for held in publisher._held if held.static for index, _ in held.pieces}
    assert len(static) == sum(not p.requires_grad for p in model.parameters())
    assert not any(held.static for held in publish(model=model, name="copied", static=False)._held)
    gatherfs.export("live:job", tmp_path / "out", "--view", "raw").ok()
    same(load_file(tmp_path / "out" / "model.safetensors"), model.state_dict())
    files = os.listdir(tmp_path / "jobs" / "job" / "model")
    assert {"config.json", "generation_config.json", "adapter_config.json"} <= set(files)


def test_transformers_own_adapters_are_published(publish, tmp_path):
    peft = pytest.importorskip("peft")
    model = tiny_llama()
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]))
    publish(model=model, optimizer=None)
    config = json.loads((tmp_path / "jobs" / "job" / "model" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["dtype"] == "float32"


def test_callbacks_survive_everything(publish, caplog):
    transformers = pytest.importorskip("transformers")
    callback = module.TrainerCallback(name="job", slots=100)
    state = transformers.TrainerState()
    control = transformers.TrainerControl(should_evaluate=True)
    arguments = transformers.TrainingArguments("x", use_cpu=True)
    callback.on_step_end(arguments, state, control)  # was added while training
    callback.on_train_end(arguments, state, None)
    callback.on_train_begin(arguments, state, None, model=tiny_llama())
    callback.on_step_end(arguments, state, control)
    callback.on_log(arguments, state, None, logs={"loss": 1.0})
    callback.on_evaluate(arguments, state, None, metrics={"eval_loss": 1.0, "text": "x"})
    callback.on_train_end(arguments, state, None)
    assert len(warnings_of(caplog)) == 1


def test_a_callback_publishes_again_after_a_training_that_failed(publish, caplog):
    transformers = pytest.importorskip("transformers")
    callback = module.TrainerCallback(name="job", strict=True)
    state = transformers.TrainerState()
    arguments = transformers.TrainingArguments("x", use_cpu=True)
    callback.on_train_begin(arguments, state, None, model=tiny_llama())
    callback.on_train_begin(arguments, state, None, model=tiny_llama())
    assert callback.publisher.stats()
    callback.publisher.close()


def test_the_best_weights_replace_the_last_within_an_update(publish, monkeypatch, tmp_path):
    transformers = pytest.importorskip("transformers")
    from gatherfs._publisher import Publisher

    events = []
    for name in ("begin", "commit", "final"):

        def spy(self, *args, name=name, original=getattr(Publisher, name)):
            events.append(name)
            return original(self, *args)

        monkeypatch.setattr(Publisher, name, spy)

    class Trainer(transformers.Trainer):
        def _load_best_model(self):
            events.append("load")
            super()._load_best_model()

    options = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "max_steps": 3, "save_only_model": True}
    options |= {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    rows = [{"input_ids": torch.tensor([1, 2, 3]), "labels": torch.tensor([1, 2, 3])}] * 8
    callback = module.TrainerCallback(name="job", strict=True)
    arguments = transformers.TrainingArguments(tmp_path / "run", **options)
    Trainer(tiny_llama(), arguments, train_dataset=rows, eval_dataset=rows, callbacks=[callback]).train()
    assert events[:7] == ["begin", "commit"] * 3 + ["begin"]
    assert set(events[7:-3]) <= {"begin"} and events[-3:] == ["load", "commit", "final"]


# ---------------------------------------------------------------- mount(), cost


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no /dev/fuse")
def test_a_mount_lasts_as_long_as_its_block(publish, without_buffer, gatherfs, monkeypatch):
    monkeypatch.setenv("GATHERFS", gatherfs.binary)
    publish()
    with module.mount("live:job", view="raw", max_shard_size="1GB", allow_other=False) as point:
        same(load_file(os.path.join(point, "model.safetensors")), without_buffer.state_dict())
    assert not os.path.exists(point)


def test_a_mount_that_fails_says_why(publish, monkeypatch, gatherfs, tmp_path):
    monkeypatch.setenv("GATHERFS", gatherfs.binary)
    with pytest.raises(module.MountError, match="nowhere"):
        with module.mount(tmp_path / "nowhere"):
            pass
    monkeypatch.setenv("GATHERFS", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(module.MountError, match="not on PATH"):
        with module.mount("live:job"):
            pass


def test_hooks_cost_little_where_nobody_reads(publish):
    publisher = publish(optimizer=None)

    def pair():
        publisher.begin()
        publisher.commit()

    seconds = min(timeit.repeat(pair, number=200, repeat=1000)) / 200
    print(f"{seconds * 1e6:.2f} us")
    assert seconds < 10e-6  # 1.2 us on an idle core
