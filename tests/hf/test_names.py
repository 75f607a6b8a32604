# SPDX-License-Identifier: Apache-2.0
"""names=hub: a state under its module's names comes out as save_pretrained would write it.

GATHERFS_ALL_NAMES=1 goes through all of transformers' conversion mapping (minutes); without it, one
key of each kind of conversion."""

import json
import os
import re

import pytest
import torch
from make_names import NOT_CONVERTED, CannotMake, keys, make, make_fsdp, save_state, shard_size
from safetensors.torch import save_file
from weights import assert_same, cast, file_sums, load_directory

SOME = """aria cosmos3_edge deepseek_v3 deepseek_v4 DetrForSegmentation Dinov2Model ernie4_5_moe esm
    flex_olmo gemma3 glm4_moe GPTNeoXForCausalLM granitemoe hunyuan_v1_moe hunyuan_vl jamba
    kimi_linear lfm2_moe llava maskformer minimax_m2 mixtral nemotron_h nomic_bert olmo_hybrid olmoe
    phimoe Qwen2VLForConditionalGeneration qwen2_moe qwen3_moe qwen3_next qwen3_vl_moe
    qwen4_exp_text qwen3_5_moe_text swin timesfm2_5 video_llava ViTModel""".split()
KEYS = keys() if os.environ.get("GATHERFS_ALL_NAMES") else SOME


def made(key, folder, **config):
    try:
        return make(key, str(folder), **config)
    except CannotMake as reason:
        pytest.skip(str(reason))


FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def weights(folder):
    return {n: s for n, s in file_sums(folder).items() if n.startswith("model") and n != INDEX}


def index(folder, model):
    with open(os.path.join(folder, INDEX)) as f:
        text = f.read()
    # A state dict on its own does not tell buffers from parameters, which alone are counted.
    if any(name in model.state_dict() for name, _ in model.named_buffers()):
        text = json.loads(text)
        del text["metadata"]["total_parameters"]
    return text


def logits(folder):
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    visual = hasattr(AutoConfig.from_pretrained(folder), "vision_config")
    auto = AutoModelForImageTextToText if visual else AutoModelForCausalLM
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        return model.eval()(torch.arange(8, 40).reshape(2, 16)).logits


def test_the_tables_are_transformers_own():
    import importlib.util

    import transformers

    if not transformers.__version__.startswith("5.18."):
        pytest.skip(f"the tables are of transformers 5.18, this is {transformers.__version__}")
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    script = os.path.join(root, "tools", "hub-tables.py")
    spec = importlib.util.spec_from_file_location("hub_tables", script)
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    rows = tables.rows_of_mapping()
    for kind, about in tables.ABOUT.items():
        with open(os.path.join(root, "src", "view", f"hub_{kind}.c")) as f:
            found = re.sub(r'"\s+"', "", f.read())  # clang-format divides long strings
        assert found.split() == tables.families(kind, about, rows).split()


@pytest.mark.parametrize("key", KEYS)
def test_export_is_what_save_pretrained_writes(key, gatherfs, tmp_path):
    model = made(key, tmp_path)
    state = model.state_dict()
    module, single, shards = (tmp_path / name for name in ("module", "single", "sharded"))
    gatherfs.export(tmp_path / "state", module, "--names", "module").ok()
    gatherfs.export(tmp_path / "state", single).ok()
    gatherfs.export(tmp_path / "state", shards, "--max-shard-size", str(shard_size(state))).ok()
    assert set(load_directory(module)) <= set(state)
    if key in NOT_CONVERTED:
        assert weights(single) == weights(module)
        assert "names are the module's" in gatherfs.run("inspect", tmp_path / "state").ok().text
        return
    assert_same(load_directory(single), load_directory(tmp_path / "hf"))
    assert weights(single) == weights(tmp_path / "hf")
    assert weights(shards) == weights(tmp_path / "shards")
    assert index(shards, model) == index(tmp_path / "shards", model)
    # What has the hub's names already keeps them.
    gatherfs.export(tmp_path / "hf", tmp_path / "again").ok()
    assert weights(tmp_path / "again") == weights(tmp_path / "hf")


@pytest.mark.parametrize("key", ["mixtral", "qwen3_moe", "GPTNeoXForCausalLM", "llava"])
def test_transformers_loads_it_and_computes_the_same(key, mount, tmp_path):
    made(key, tmp_path)
    found = logits(mount(tmp_path / "state"))
    assert torch.equal(found, logits(tmp_path / "hf"))
    # The module's names load as well.
    assert torch.equal(found, logits(mount(tmp_path / "state", "-o", "names=module")))


def test_experts_of_ranks_are_cut(gatherfs, tmp_path):
    make_fsdp(str(tmp_path))
    gatherfs.export(tmp_path / "state", tmp_path / "out").ok()
    assert weights(tmp_path / "out") == weights(tmp_path / "hf")
    gatherfs.run("verify", tmp_path / "state", "--against", tmp_path / "hf").ok()


def test_experts_are_cast(gatherfs, tmp_path):
    made("mixtral", tmp_path)
    gatherfs.export(tmp_path / "state", tmp_path / "out", "--dtype", "bf16").ok()
    wanted = cast(load_directory(tmp_path / "hf"), torch.bfloat16)
    assert_same(load_directory(tmp_path / "out"), wanted)


def test_any_range_of_an_expert_is_the_files(gatherfs, tmp_path):
    made("qwen3_moe", tmp_path)
    with open(tmp_path / "hf" / "model.safetensors", "rb") as f:
        whole = f.read()
    for start in range(8, len(whole), len(whole) // 20):
        end = min(start + 777, len(whole))
        cat = gatherfs.cat(tmp_path / "state", "model.safetensors", "--range", f"{start}-{end - 1}")
        assert cat.ok().out == whole[start:end]


def test_the_base_models_files_decide(gatherfs, tmp_path):
    """A Llava from the hub has a prefix in its vision tower that its module has not."""
    from transformers import LlavaForConditionalGeneration

    model = made("llava", tmp_path)
    tensors = load_directory(tmp_path / "hf")
    old = {n.replace("vision_tower.", "vision_tower.vision_model."): t for n, t in tensors.items()}
    assert set(old) != set(tensors)
    base = tmp_path / "base"
    os.mkdir(base)
    model.config.save_pretrained(base)
    save_file(old, base / "model.safetensors", metadata={"format": "pt"})
    trained = LlavaForConditionalGeneration.from_pretrained(base)
    with torch.no_grad():
        trained.lm_head.weight.normal_()
    save_state(trained, tmp_path / "trained")
    trained.save_pretrained(tmp_path / "wanted")
    assert set(load_directory(tmp_path / "wanted")) == set(old)
    gatherfs.export(tmp_path / "trained", tmp_path / "out", "--config-from", base).ok()
    assert weights(tmp_path / "out") == weights(tmp_path / "wanted")


def test_a_base_of_a_renamed_family_is_no_other_model(gatherfs, tmp_path):
    """embed_out.weight of the base is lm_head.weight of the module: nothing is missing."""
    made("GPTNeoXForCausalLM", tmp_path)
    options = ["--config-from", tmp_path / "hf"]
    gatherfs.export(tmp_path / "state", tmp_path / "out", *options).ok()
    assert weights(tmp_path / "out") == weights(tmp_path / "hf")


def test_files_with_the_hubs_names_beside_shards_add_nothing(gatherfs, tmp_path):
    """A Trainer leaves both: the shards are served, and the file does not stand in for them."""
    make_fsdp(str(tmp_path))
    tensors = load_directory(tmp_path / "hf")
    save_file({n: torch.zeros_like(t) for n, t in tensors.items()}, tmp_path / "state" / FILE)
    gatherfs.export(tmp_path / "state", tmp_path / "out").ok()
    assert weights(tmp_path / "out") == weights(tmp_path / "hf")


@pytest.mark.parametrize("key", ["mixtral", "GPTNeoXForCausalLM"])
def test_a_base_from_the_hub_supplies_only_what_is_lacking(key, gatherfs, tmp_path):
    made(key, tmp_path)
    path = tmp_path / "state" / "pytorch_model.bin"
    state = torch.load(path)
    lacking = next(n for n in state if "embed" in n)
    torch.save({n: t for n, t in state.items() if n != lacking}, path)
    gatherfs.export(tmp_path / "state", tmp_path / "out", "--base", tmp_path / "hf").ok()
    assert weights(tmp_path / "out") == weights(tmp_path / "hf")
    line = gatherfs.export(tmp_path / "state", tmp_path / "no", "--config-from", tmp_path / "hf")
    assert lacking in line.failed(1)


def test_a_mixture_of_names_is_refused(gatherfs, tmp_path):
    made("qwen3_moe", tmp_path)
    path = tmp_path / "state" / "pytorch_model.bin"
    state = torch.load(path)
    fused = state.pop("model.layers.1.mlp.experts.down_proj")
    for i, expert in enumerate(fused):
        state[f"model.layers.1.mlp.experts.{i}.down_proj.weight"] = expert.clone()
    torch.save(state, path)
    line = gatherfs.export(tmp_path / "state", tmp_path / "out").failed(1)
    assert "as in a module" in line and "'model.layers.1.mlp.experts.0.down_proj.weight'" in line
    gatherfs.export(tmp_path / "state", tmp_path / "out", "--names", "module").ok()
