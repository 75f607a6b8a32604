# SPDX-License-Identifier: Apache-2.0
"""What stands in a view's directory: the files beside the weights, and never an adapter together
with a model, also where the source has them so (as an Axolotl run's output directory does)."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from test_components import causal, files, inspect, listed, tensors, with_adapter
from weights import assert_same, load_directory, sha256

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")

LOADS = """
import sys, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

def load(folder, adapter=None):
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True)
    assert not any(report.values()), report
    if adapter:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return model.eval()(torch.arange(8)[None] * 5).logits.float()

if __name__ == "__main__":
    found = [load(*folder.split("+")) for folder in sys.argv[2:]]
    save_file({str(i): t for i, t in enumerate(found)}, sys.argv[1])
"""


def pythons():
    """That of these tests, and the clients' with its transformers 4 where tools/test made one."""
    clients = os.path.join(os.environ.get("GATHERFS_CLIENTS_VENV", ""), "bin", "python")
    return [sys.executable] + ([clients] if os.path.isfile(clients) else [])


PYTHONS = pytest.mark.parametrize("python", pythons(), ids=["tests", "clients"][: len(pythons())])


def assert_equal_logits(python, tmp_path, folders, wanted):
    """Every folder computes what `wanted` does. 'A+B' is an adapter B on a model A."""
    folders = [str(wanted), *map(str, folders)]
    if python == sys.executable:
        scope = {"__name__": "loads"}
        exec(LOADS, scope)
        found = [scope["load"](*folder.split("+")) for folder in folders]
    else:
        out = tmp_path / "logits.safetensors"
        subprocess.run([python, "-c", LOADS, out, *folders], check=True)
        state = load_file(out)
        found = [state[str(i)] for i in range(len(folders))]
    for folder, result in zip(folders, found):
        assert torch.equal(result, found[0]), folder


@pytest.fixture
def run(tmp_path):
    """RUN is an output directory of axolotl with adapter: lora, as it is when training has ended:
    the config.json in it is the base model's. `base`, `adapter` and `merged` are beside it."""

    class Run:
        root, base, adapter, merged = (tmp_path / n for n in ("run", "base", "adapter", "merged"))

    model = causal()
    model.save_pretrained(Run.base)
    model.config._name_or_path = str(Run.base)
    peft_model = with_adapter(model)
    peft_model.peft_config["default"].base_model_name_or_path = str(Run.base)
    peft_model.save_pretrained(Run.adapter)
    peft_model.merge_and_unload().save_pretrained(Run.merged)
    shutil.copytree(Run.adapter, Run.root)
    shutil.copy(Run.base / "config.json", Run.root)
    (Run.root / "tokenizer.json").write_text("{}")
    shutil.copytree(Run.adapter, Run.root / "checkpoint-2")
    (Run.root / "checkpoint-2" / "trainer_state.json").write_text("{}")
    return Run


# ---- adapter and model ----


@PYTHONS
def test_an_adapters_run_is_an_adapter_though_it_has_a_config(python, run, mount, tmp_path):
    point = mount(run.root)
    names = set(os.listdir(point))
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    assert not {"config.json", "generation_config.json", "model.safetensors"} & names
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert sha256(os.path.join(point, name)) == sha256(run.adapter / name)
    assert_equal_logits(python, tmp_path, [point, os.path.join(point, "latest")], run.adapter)
    assert_equal_logits(python, tmp_path, [f"{run.base}+{point}"], f"{run.base}+{run.adapter}")


@PYTHONS
@pytest.mark.parametrize("stale", ["config", "config and weights"])
@pytest.mark.parametrize("form", ["safetensors", "several", "bin"])
def test_weights_of_a_model_decide_and_are_merged_once(
    form, stale, python, run, mount, gatherfs, tmp_path
):
    """A merge written beside the adapter: on the directory itself transformers 5 adds the adapter
    once more, and 4 loads the base model."""
    if form == "bin":
        torch.save(load_directory(run.merged), run.root / "pytorch_model.bin")
    elif form == "several":
        from transformers import AutoModelForCausalLM

        merged = AutoModelForCausalLM.from_pretrained(run.merged, dtype="auto")
        merged.save_pretrained(tmp_path / "several", max_shard_size="20KB")
        for path in (tmp_path / "several").glob("model*"):
            shutil.copy(path, run.root)
    else:
        shutil.copy(run.merged / "model.safetensors", run.root)
    if stale == "config":
        (run.root / "adapter_model.safetensors").unlink()
    report = inspect(gatherfs, run.root)
    assert report["default_view"] == "full"
    assert bool(report["warnings"]) == (stale != "config")
    point = mount(run.root)
    assert "adapter_config.json" not in os.listdir(point)
    assert_equal_logits(python, tmp_path, [point], run.merged)
    assert_same(load_directory(point), load_directory(run.merged))
    latest = os.path.join(point, "latest")
    assert "adapter_config.json" in os.listdir(latest) and "config.json" not in os.listdir(latest)


def test_the_adapter_beside_a_model_is_a_source_of_its_own(run, gatherfs, tmp_path):
    shutil.copy(run.merged / "model.safetensors", run.root)
    gatherfs.export(run.root / "adapter_model.safetensors", tmp_path / "out").ok()
    names = set(os.listdir(tmp_path / "out"))
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert not {"config.json", "model.safetensors"} & names
    served = tmp_path / "out" / "adapter_model.safetensors"
    assert sha256(served) == sha256(run.adapter / "adapter_model.safetensors")


@PYTHONS
def test_full_and_base_of_the_run_load_as_models(python, run, mount, tmp_path):
    point = mount(run.root, "-o", f"base={run.base}")
    for name, wanted in (("full", run.merged), ("base", run.base)):
        folder = os.path.join(point, name)
        assert "adapter_config.json" not in os.listdir(folder)
        assert_equal_logits(python, tmp_path, [folder], wanted)


def test_a_run_before_its_first_checkpoint_is_no_model(run, gatherfs, tmp_path):
    """Axolotl writes configs and tokenizer when it starts."""
    shutil.rmtree(run.root / "checkpoint-2")
    (run.root / "adapter_model.safetensors").unlink()
    gatherfs.export(run.root, tmp_path / "out").failed(2)


# ---- side files ----


@pytest.fixture
def source(tmp_path):
    causal().save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def test_two_eos_tokens_from_a_file_or_in_words(source, gatherfs, tmp_path):
    """As open-instruct writes them for OLMo's chat template."""
    from transformers import GenerationConfig

    wanted = {"eos_token_id": [2, 0], "pad_token_id": 3}
    (tmp_path / "generation.json").write_text(json.dumps(wanted))
    for i, value in enumerate([json.dumps(wanted), tmp_path / "generation.json"]):
        out = tmp_path / str(i)
        gatherfs.export(source, out, "--generation-config", value).ok()
        assert (out / "generation_config.json").read_text() == json.dumps(wanted)
        assert GenerationConfig.from_pretrained(out).eos_token_id == [2, 0]
    for bad in ("{", "[1]", "{'a': 1}"):
        if bad.startswith("{"):
            gatherfs.export(source, tmp_path / "x", "--generation-config", bad).failed(2)
    gatherfs.export(source, tmp_path / "x", "--generation-config", tmp_path / "no").failed(2)


def test_a_tokenizer_comes_whole_from_one_directory(source, gatherfs, tmp_path):
    other = tmp_path / "tokenizer"
    other.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"):
        (other / name).write_text('"theirs"')
    for name in ("tokenizer.json", "special_tokens_map.json", "chat_template.jinja"):
        (source / name).write_text('"ours"')
    gatherfs.export(source, tmp_path / "a").ok()
    gatherfs.export(source, tmp_path / "b", "--tokenizer", other).ok()
    gatherfs.export(source, tmp_path / "c", "--base", other).failed(2)
    plain = {"config.json", "generation_config.json", "model.safetensors"}
    assert set(os.listdir(tmp_path / "a")) - plain == {
        "tokenizer.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    }
    assert set(os.listdir(tmp_path / "b")) - plain == set(os.listdir(other))
    assert (tmp_path / "b" / "tokenizer.json").read_text() == '"theirs"'


def test_a_chat_template_of_the_checkpoint_goes_with_its_runs_tokenizer(gatherfs, tmp_path):
    step = tmp_path / "run" / "checkpoint-1"
    causal().save_pretrained(step)
    (step / "trainer_state.json").write_text("{}")
    (step / "chat_template.jinja").write_text("step")
    (tmp_path / "run" / "chat_template.jinja").write_text("run")
    (tmp_path / "run" / "tokenizer.json").write_text("{}")
    assert gatherfs.cat(tmp_path / "run", "latest/chat_template.jinja").ok().text == "step"
    assert gatherfs.cat(tmp_path / "run", "latest/tokenizer.json").ok().text == "{}"


def test_further_chat_templates_stand_in_their_directory(mount, gatherfs, tmp_path):
    """As save_pretrained of a tokenizer with several leaves them."""
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    source = tmp_path / "run" / "checkpoint-1"
    causal().save_pretrained(source)
    (source / "trainer_state.json").write_text("{}")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={}, merges=[])))
    tokenizer.chat_template = {"default": "a {{ messages }}", "tool_use": "b", "rag": "c"}
    tokenizer.save_pretrained(source)
    name = "additional_chat_templates"
    wanted = sorted(os.listdir(source / name))
    assert wanted == ["rag.jinja", "tool_use.jinja"]
    (source / name / "notes.txt").write_text("no template")
    point = mount(tmp_path / "run")
    for folder in ("latest", "latest/full"):
        folder = os.path.join(point, folder)
        assert sorted(os.listdir(os.path.join(folder, name))) == wanted
        assert AutoTokenizer.from_pretrained(folder).chat_template == tokenizer.chat_template
        assert not os.path.exists(os.path.join(folder, name, "notes.txt"))
        assert not os.path.exists(os.path.join(folder, name, name))
    subprocess.run(["cp", "-r", os.path.join(point, "latest", ""), tmp_path / "copy"], check=True)
    assert sorted(os.listdir(tmp_path / "copy" / name)) == wanted
    for options in ((), ("--force",)):
        gatherfs.export(source, tmp_path / "out", *options).ok()
        assert sorted(os.listdir(tmp_path / "out" / name)) == wanted
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer.chat_template
    for path in (f"latest/{name}/rag.jinja", f"latest/full/{name}/rag.jinja"):
        assert gatherfs.cat(tmp_path / "run", path).ok().text == "c"
    assert gatherfs.cat(source, f"{name}/rag.jinja").ok().text == "c"
    gatherfs.run("verify", source).ok()
    files = gatherfs.run("inspect", source).ok().text
    assert f"{name}/rag.jinja" in files
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_text("{}")
    gatherfs.export(source, tmp_path / "plain", "--tokenizer", other).ok()
    assert not (tmp_path / "plain" / name).exists()


@pytest.mark.parametrize(
    "model_type, found, wanted",
    [
        ("phi", "FSDPPhiForCausalLM", "PhiForCausalLM"),
        ("phi", "hiForCausalLM", "PhiForCausalLM"),
        ("deepseek_v3", "eepseekV3ForCausalLM", "DeepseekV3ForCausalLM"),
        ("falcon", "alconForCausalLM", "FalconForCausalLM"),
        ("fsmt", "MTForConditionalGeneration", "FSMTForConditionalGeneration"),
        ("llama", "LlamaForCausalLM", "LlamaForCausalLM"),
        ("llama", "hiForCausalLM", "hiForCausalLM"),
        ("house_brand", "eepForCausalLM", "eepForCausalLM"),
        ("phi", "PhilosopherForCausalLM", "PhilosopherForCausalLM"),
    ],
)
def test_architectures_are_whole_again(model_type, found, wanted, source, gatherfs):
    config = json.loads((source / "config.json").read_text())
    config |= {"model_type": model_type, "architectures": [found]}
    (source / "config.json").write_text(json.dumps(config))
    served = json.loads(gatherfs.cat(source, "config.json").ok().text)
    assert served == config | {"architectures": [wanted]}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_config_says_the_dtype_that_is_served(dtype, source, gatherfs, tmp_path):
    gatherfs.export(source, tmp_path / "out", "--dtype", dtype).ok()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == dtype
    found = load_directory(tmp_path / "out")
    assert {t.dtype for t in found.values()} == {getattr(torch, dtype)}


def test_config_says_untied_where_the_two_differ(gatherfs, tmp_path):
    model = causal(tie=True)
    model.config.save_pretrained(tmp_path / "source")
    state = tensors(model)
    state["lm_head.weight"] += 1
    torch.save(state, tmp_path / "source" / "pytorch_model.bin")
    gatherfs.export(tmp_path / "source", tmp_path / "out").ok()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    assert_same(load_directory(tmp_path / "out"), state)


# ---- components of runs ----


def composite(seed):
    critic = {"critic.score.weight": torch.full((1, 32), float(seed))}
    return {**tensors(causal(seed), "policy."), **critic}


@pytest.fixture
def steps(tmp_path):
    """A run with two composite checkpoints, of which the first is the best."""
    root = tmp_path / "run"
    for step in (1, 2):
        folder = root / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        torch.save(composite(step), folder / "pytorch_model.bin")
        state = {"best_model_checkpoint": "out/checkpoint-1", "global_step": step}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    causal().config.save_pretrained(root)
    return root


def test_each_checkpoint_of_a_run_has_its_components(steps, mount, gatherfs, tmp_path):
    point = mount(steps)
    assert set(os.listdir(point)) == {"checkpoint-1", "checkpoint-2", "latest", "best"}
    for name, seed in (("best", 1), ("latest", 2), ("checkpoint-1", 1)):
        folder = os.path.join(point, name)
        assert_same(load_directory(folder), tensors(causal(seed)))
        assert {"policy", "critic", "config.json"} <= set(os.listdir(folder))
        score = load_directory(os.path.join(folder, "critic"))["score.weight"]
        assert score[0, 0] == seed
    gatherfs.export(steps, tmp_path / "out").ok()
    assert_same(load_directory(tmp_path / "out"), tensors(causal(2)))
    assert gatherfs.cat(steps, "best/policy/config.json").ok().out


@pytest.mark.parametrize("option", ["view", "prefix"])
def test_a_component_is_chosen_in_each_checkpoint(option, steps, mount, gatherfs, tmp_path):
    point = mount(steps, "-o", f"{option}=critic")
    for name, seed in (("best", 1), ("latest", 2)):
        folder = os.path.join(point, name)
        assert load_directory(folder)["score.weight"][0, 0] == seed
        assert "config.json" not in os.listdir(folder)
        views = {e for e in os.listdir(folder) if os.path.isdir(os.path.join(folder, e))}
        assert views == (set() if option == "view" else {"critic", "policy"})
    gatherfs.export(steps, tmp_path / "out", f"--{option}", "critic").ok()
    assert load_directory(tmp_path / "out")["score.weight"][0, 0] == 2
    gatherfs.export(steps, tmp_path / "one", f"--{option}", "policy", "--step", "1").ok()
    assert_same(load_directory(tmp_path / "one"), tensors(causal(1)))


def test_a_checkpoint_without_that_component_is_not_shown(steps, mount, gatherfs):
    torch.save(tensors(causal(2)), steps / "checkpoint-2" / "pytorch_model.bin")
    point = mount(steps, "-o", "view=critic")
    assert "checkpoint-2" not in os.listdir(point) and "checkpoint-1" in os.listdir(point)
    report = json.loads(gatherfs.run("inspect", steps, "--json", "--view", "critic").ok().text)
    (bad,) = (c for c in report["checkpoints"] if c["name"] == "checkpoint-2")
    assert "critic" in bad["why"]


def test_a_final_model_at_the_root_keeps_the_steps_below_it(steps, mount, gatherfs):
    causal(9).save_pretrained(steps)
    point = mount(steps)
    assert_same(load_directory(point), tensors(causal(9)))
    assert_same(load_directory(os.path.join(point, "latest")), tensors(causal(2)))
    report = inspect(gatherfs, steps)
    assert report["default_view"] == "full" and listed(report) == set()
    assert "adapter_config.json" not in files(report, "full")
