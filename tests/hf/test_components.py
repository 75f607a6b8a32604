# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that hold several models, or a model and a trainer's heads: each part is a view.

The states are put together as the trainers do it (policy. of open-instruct and TRL, base_model. of
trlx, pretrained_model. of LLaMA-Factory), from real models, and what the policy's view must hold is
what save_pretrained() of the policy alone writes.
"""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file
from weights import assert_same, file_sums, load_directory

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")

VOCAB, HIDDEN = 96, 32


def causal(seed=0, tie=False, family="Llama", **changes):
    """A tiny model with weights of its own for each seed."""
    import transformers

    config = getattr(transformers, family + "Config")(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tie,
        **changes,
    )
    torch.manual_seed(seed)
    return getattr(transformers, family + "ForCausalLM")(config).to(torch.bfloat16)


def tensors(model, front=""):
    return {front + name: t.clone() for name, t in model.state_dict().items()}


def heads(front="v_head."):
    """trlx's value head: two layers."""
    torch.manual_seed(7)
    head = torch.nn.Sequential(
        torch.nn.Linear(HIDDEN, 2 * HIDDEN), torch.nn.ReLU(), torch.nn.Linear(2 * HIDDEN, 1)
    )
    return tensors(head, front)


def summary(front="v_head."):
    """TRL's and LLaMA-Factory's value head."""
    torch.manual_seed(8)
    return {
        front + "summary.weight": torch.randn(1, HIDDEN),
        front + "summary.bias": torch.randn(1),
    }


class Parts:
    """DIR/SOURCE, to be served, and what save_pretrained() of the policy wrote in DIR/alone."""

    def __init__(self, folder, policy):
        self.source = folder / "source"
        self.alone = folder / "alone"
        policy.save_pretrained(self.alone)
        self.source.mkdir()
        for name in ("config.json", "generation_config.json"):
            shutil.copy(self.alone / name, self.source / name)

    def save(self, state, name="pytorch_model.bin"):
        torch.save(state, self.source / name)
        return self


@pytest.fixture
def parts(tmp_path):
    """parts(policy) -> a new Parts"""
    return lambda policy: Parts(tmp_path, policy)


def inspect(gatherfs, source, *options):
    return json.loads(gatherfs.run("inspect", source, "--json", *options).ok().text)


def view(report, name):
    return next(v for v in report["views"] if v["name"] == name)


def files(report, name):
    return {f["name"] for f in view(report, name)["files"]}


def listed(report):
    return {v["name"] for v in report["views"] if v["listed"]}


def assert_loads_as(point, alone):
    """AutoModel and AutoModelForCausalLM load all of it, and compute the same."""
    from transformers import AutoModel, AutoModelForCausalLM

    ids = torch.arange(8)[None] * 5 % VOCAB
    for auto in (AutoModelForCausalLM, AutoModel):
        found, report = auto.from_pretrained(point, dtype="auto", output_loading_info=True)
        assert not report["missing_keys"] and not report["mismatched_keys"], report
        wanted = auto.from_pretrained(alone, dtype="auto")
        with torch.no_grad():
            assert torch.equal(found(ids)[0], wanted(ids)[0])


# ---- the systems ----


def open_instruct(policy):
    """And TRL's PPO: the value model is a model of its own under a scoring head."""
    value = causal(1)
    return {
        **tensors(policy, "policy."),
        **tensors(value.model, "value_model."),
        "value_model.score.weight": torch.randn(1, HIDDEN, dtype=torch.bfloat16),
    }


def trlx_ppo(policy):
    frozen = {k.replace("model.", "frozen_head.", 1): v for k, v in tensors(policy).items()}
    frozen = {k: v for k, v in frozen.items() if "layers.1." in k or "lm_head" in k}
    frozen = {k if k.startswith("frozen") else "frozen_head." + k: v for k, v in frozen.items()}
    return {**tensors(policy, "base_model."), **heads(), **frozen}


def trlx_ilql(policy):
    return {
        **tensors(policy, "base_model."),
        **heads("ilql_heads.v_head."),
        **heads("ilql_heads.q_heads.0."),
        **heads("ilql_heads.target_q_heads.0."),
    }


def llama_factory(policy):
    return {**tensors(policy, "pretrained_model."), **summary()}


def actor_critic(policy):
    critic = {**tensors(causal(2).model, "critic.model."), "critic.score.weight": torch.ones(1, 32)}
    return {**tensors(policy, "actor."), **critic}


def a_students(policy):
    """No word that is known: that the names fit once 'student.' is gone tells."""
    return {**tensors(policy, "student."), "temperature.log": torch.zeros(1)}


SYSTEMS = {
    open_instruct: ("policy", {"policy", "value_model"}),
    trlx_ppo: ("base_model", {"base_model", "v_head", "frozen_head"}),
    trlx_ilql: ("base_model", {"base_model", "ilql_heads"}),
    llama_factory: ("pretrained_model", {"pretrained_model", "v_head"}),
    actor_critic: ("actor", {"actor", "critic"}),
    a_students: ("student", {"student", "temperature"}),
}


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda f: f.__name__)
def test_the_policy_is_the_default_and_its_bytes_are_save_pretraineds(
    system, tie, parts, gatherfs, mount
):
    policy = causal(tie=tie)
    made = parts(policy).save(system(policy))
    default, views = SYSTEMS[system]
    report = inspect(gatherfs, made.source)
    assert report["default_view"] == default
    assert listed(report) == views
    assert report["warnings"] == []
    point = mount(made.source)
    assert {e for e in os.listdir(point) if os.path.isdir(os.path.join(point, e))} == views
    names = {e for e in os.listdir(point) if os.path.isfile(os.path.join(point, e))}
    wanted = file_sums(made.alone)
    assert names == set(wanted)
    assert file_sums(os.path.join(point, default)) == wanted
    assert_loads_as(point, made.alone)


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda f: f.__name__)
def test_each_other_view_holds_its_part_alone(system, tie, parts, gatherfs, tmp_path):
    policy = causal(tie=tie)
    state = system(policy)
    made = parts(policy).save(state)
    default, views = SYSTEMS[system]
    for name in views - {default}:
        out = tmp_path / name
        gatherfs.export(made.source, out, "--view", name).ok()
        found = load_directory(out)
        assert_same(
            found, {k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(name + ".")}
        )
        if "embed_tokens.weight" not in "".join(found):
            assert not (out / "config.json").exists()
            assert not (out / "generation_config.json").exists()
    gatherfs.export(made.source, tmp_path / "raw", "--view", "raw").ok()
    assert load_directory(tmp_path / "raw").keys() == state.keys()
    assert not (tmp_path / "raw" / "config.json").exists()


# ---- which one is the default ----


def test_several_that_fit_leave_the_root_without_weights(parts, gatherfs, mount, tmp_path):
    policy = causal()
    state = {**tensors(policy, "policy."), **tensors(causal(1), "ref_policy.")}
    made = parts(policy).save(state)
    report = inspect(gatherfs, made.source)
    assert report["default_view"] is None
    assert "several of the models in it fit" in report["default_view_why"]
    assert sorted(os.listdir(mount(made.source))) == ["policy", "ref_policy"]
    line = gatherfs.export(made.source, tmp_path / "out").failed(2)
    assert "--view: policy, ref_policy, raw" in line
    gatherfs.export(made.source, tmp_path / "out", "--view", "ref_policy").ok()
    assert_same(load_directory(tmp_path / "out"), tensors(causal(1)))


def test_no_config_leaves_the_root_without_weights(parts, gatherfs, tmp_path):
    made = parts(causal()).save(open_instruct(causal()))
    (made.source / "config.json").unlink()
    assert inspect(gatherfs, made.source)["default_view"] is None
    line = gatherfs.export(made.source, tmp_path / "out").failed(2)
    assert "no config.json" in line and "policy, value_model, raw" in line
    gatherfs.export(made.source, tmp_path / "out", "--config-from", made.alone).ok()
    assert file_sums(tmp_path / "out") == file_sums(made.alone)


def test_a_config_of_the_value_model_chooses_that(parts, gatherfs, tmp_path):
    from transformers import AutoModelForSequenceClassification, LlamaForSequenceClassification

    value = causal(1)
    model = LlamaForSequenceClassification(value.config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "value")
    state = {**tensors(causal(), "policy."), **tensors(model, "value_model.")}
    made = parts(causal()).save(state)
    report = inspect(gatherfs, made.source, "--config-from", tmp_path / "value")
    assert report["default_view"] == "value_model"
    gatherfs.export(made.source, tmp_path / "out", "--config-from", tmp_path / "value").ok()
    found, loaded = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not loaded["missing_keys"]
    assert_same(dict(found.state_dict()), tensors(model))


def test_a_model_of_another_size_is_not_what_config_json_describes(parts, gatherfs):
    policy = causal()
    small = causal(1)
    small.resize_token_embeddings(64)
    state = {**tensors(policy, "policy."), **tensors(small, "ref_policy.")}
    made = parts(policy).save(state)
    assert inspect(gatherfs, made.source)["default_view"] == "policy"


def test_a_component_that_lacks_a_layer_is_not_served(parts, gatherfs, tmp_path):
    policy = causal()
    state = {k: v for k, v in open_instruct(policy).items() if "policy.model.layers.1." not in k}
    made = parts(policy).save(state)
    line = gatherfs.export(made.source, tmp_path / "out", "--view", "policy").failed(1)
    assert "layer 1 of 2 is in no file" in line
    assert inspect(gatherfs, made.source)["default_view"] != "policy"


# ---- heads beside a model ----


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
def test_a_value_head_in_the_models_own_file_is_a_view_of_its_own(tie, parts, gatherfs, mount):
    """TRL's AutoModelForCausalLMWithValueHead and trlx's save_pretrained."""
    policy = causal(tie=tie)
    made = parts(policy).save({**tensors(policy), **summary()})
    report = inspect(gatherfs, made.source)
    assert report["default_view"] == "full" and listed(report) == {"v_head"}
    point = mount(made.source)
    assert file_sums(os.path.join(point, "full")) == file_sums(made.alone)
    assert_same(load_directory(os.path.join(point, "v_head")), summary(""))
    assert files(report, "v_head") == {"model.safetensors"}
    raw = load_directory(os.path.join(point, "raw"))
    assert set(summary()) <= set(raw)


def test_a_head_of_the_architectures_own_stays(parts, gatherfs, tmp_path):
    """A reward model with code of its own: v_head is a part of it."""
    policy = causal()
    made = parts(policy).save({**tensors(policy), **summary()})
    config = json.loads((made.source / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "modeling.Reward"}}
    (made.source / "config.json").write_text(json.dumps(config))
    assert listed(inspect(gatherfs, made.source)) == set()
    gatherfs.export(made.source, tmp_path / "out").ok()
    assert_same(load_directory(tmp_path / "out"), {**tensors(policy), **summary()})


@pytest.mark.parametrize("name", ["value_head.safetensors", "value_head.bin"])
def test_a_value_head_in_a_file_beside_the_model(name, parts, gatherfs, mount):
    """As LLaMA-Factory leaves it. The model's directory is the model's alone."""
    from safetensors.torch import save_file

    policy = causal()
    made = parts(policy)
    shutil.copy(made.alone / "model.safetensors", made.source)
    if name.endswith(".bin"):
        torch.save(summary(), made.source / name)
    else:
        save_file(summary(), made.source / name, metadata={"format": "pt"})
    point = mount(made.source)
    assert file_sums(os.path.join(point, "full")) == file_sums(made.alone)
    assert sorted(os.listdir(point)) == sorted([*os.listdir(made.alone), "v_head"])
    assert_same(load_directory(os.path.join(point, "v_head")), summary(""))


def test_a_broken_value_head_beside_the_model_is_named_and_left_out(parts, gatherfs):
    made = parts(causal())
    shutil.copy(made.alone / "model.safetensors", made.source)
    (made.source / "value_head.bin").write_bytes(b"PK\3\4 is no archive")
    report = inspect(gatherfs, made.source)
    assert report["default_view"] == "full" and listed(report) == set()
    assert "value_head.bin" in report["warnings"][0]


def test_a_value_head_alone_gets_no_config(parts, gatherfs, tmp_path):
    made = parts(causal()).save(summary())
    gatherfs.export(made.source, tmp_path / "out").ok()
    assert set(os.listdir(tmp_path / "out")) == {"model.safetensors"}


def test_a_critic_beside_the_config_of_the_model_it_was_made_of(parts, gatherfs, tmp_path):
    """OpenRLHF's: model.* and score.*, and config_from= is the base model's directory."""
    from transformers import AutoModelForSequenceClassification

    policy = causal()
    state = {k: v for k, v in tensors(policy).items() if k != "lm_head.weight"}
    state["score.weight"] = torch.ones(1, HIDDEN, dtype=torch.bfloat16)
    made = parts(policy).save(state)
    (line,) = inspect(gatherfs, made.source)["warnings"]
    assert "no output head" in line
    gatherfs.export(made.source, tmp_path / "out").ok()
    assert_same(load_directory(tmp_path / "out"), state)
    model, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", num_labels=1, dtype="auto", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert_same(dict(model.state_dict()), state)


# ---- names that are reachable ----


def test_any_first_name_is_reachable_and_nested_ones_by_prefix(parts, gatherfs, tmp_path):
    policy = causal()
    state = {**tensors(policy, "module.actor.inner.lm."), "critic.score.weight": torch.ones(1, 32)}
    made = parts(policy).save(state)
    gatherfs.export(made.source, tmp_path / "a", "--view", "actor").ok()
    assert_same(load_directory(tmp_path / "a"), tensors(policy, "inner.lm."))
    assert not (tmp_path / "a" / "config.json").exists()
    gatherfs.export(made.source, tmp_path / "b", "--prefix", "actor.inner.lm").ok()
    assert file_sums(tmp_path / "b") == file_sums(made.alone)
    line = gatherfs.export(made.source, tmp_path / "c", "--view", "nobody").failed(2)
    assert "no tensor's name starts with 'nobody.'" in line


def test_a_prefix_is_the_default_beside_the_other_views(parts, gatherfs, mount):
    policy = causal()
    made = parts(policy).save(open_instruct(policy))
    point = mount(made.source, "-o", "prefix=value_model")
    assert "score.weight" in load_directory(point)
    assert "score.weight" in load_directory(os.path.join(point, "value_model"))
    assert_same(load_directory(os.path.join(point, "policy")), tensors(policy))


@pytest.mark.parametrize("word", ["full", "base", "adapter", "raw", "steps"])
def test_reserved_words_need_a_prefix(word, parts, gatherfs, tmp_path):
    policy = causal()
    state = {**tensors(policy, word + "."), "critic.score.weight": torch.ones(1, HIDDEN)}
    made = parts(policy).save(state)
    report = inspect(gatherfs, made.source)
    assert word not in listed(report)
    if word == "raw":
        gatherfs.export(made.source, tmp_path / "a", "--view", word).ok()
        assert load_directory(tmp_path / "a").keys() == state.keys()
    else:
        gatherfs.export(made.source, tmp_path / "a", "--view", word).failed(2)
    gatherfs.export(made.source, tmp_path / "b", "--prefix", word).ok()
    assert file_sums(tmp_path / "b") == file_sums(made.alone)


@pytest.mark.parametrize("name", ["..", "a/b", ".gatherfs", "", "."])
def test_names_that_cannot_be_directories_are_not_listed(name, parts, gatherfs, mount):
    policy = causal()
    state = {**tensors(policy, "policy."), name + ".weight": torch.ones(2)}
    made = parts(policy).save(state)
    assert listed(inspect(gatherfs, made.source)) == {"policy"}
    point = mount(made.source)
    assert_loads_as(point, made.alone)


# ---- names that do not fit ----


def test_names_that_no_view_makes_fit_are_warned_of_everywhere(parts, gatherfs, mount, tmp_path):
    policy = causal()
    made = parts(policy).save(tensors(policy, "a.b."))
    report = inspect(gatherfs, made.source)
    (line,) = report["warnings"]
    assert report["default_view"] == "full"
    assert "no 'model.embed_tokens.weight'" in line and "random weights" in line
    assert "--prefix a.b" in line
    assert view(report, "full")["warning"] in line
    text = gatherfs.run("inspect", made.source).ok().text
    assert "random weights" in text
    result = gatherfs.export(made.source, tmp_path / "out").ok()
    assert "random weights" in result.err
    result = gatherfs.cat(made.source, "model.safetensors").ok()
    assert result.err.count("random weights") == 1
    assert gatherfs.cat(made.source, "config.json").ok().err == ""
    folder = tmp_path / "noisy"
    folder.mkdir()
    try:
        assert gatherfs.mount(made.source, folder).ok().err == f"gatherfs: warning: {line}\n"
    finally:
        gatherfs.unmount(folder)
    point = mount(made.source)
    with open(os.path.join(point, ".gatherfs", "status.json")) as f:
        assert json.load(f)["warnings"] == [line]
    assert "random weights" in gatherfs.run("status", point, "--json").ok().text
    hinted = inspect(gatherfs, made.source, "--prefix", "a.b")
    assert hinted["warnings"] == []


def test_a_vocabulary_that_grew_after_the_config_was_written_is_warned_of(parts, gatherfs):
    policy = causal()
    made = parts(policy)
    policy.resize_token_embeddings(VOCAB + 8)
    made.save(tensors(policy))
    (line,) = inspect(gatherfs, made.source)["warnings"]
    assert "is [104, 32], config.json's is [96, 32]" in line


def test_the_template_tells_where_the_model_type_does_not(parts, gatherfs):
    policy = causal()
    made = parts(policy).save(tensors(policy, "net.inner."))
    for folder in (made.source, made.alone):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "house_brand"}))
    assert inspect(gatherfs, made.source)["warnings"] == []
    (line,) = inspect(gatherfs, made.source, "--config-from", made.alone)["warnings"]
    assert "behind 'net.inner.'" in line


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Mistral", "Gemma", "OPT", "GPT2", "GPTNeoX"])
def test_models_as_they_are_saved_are_not_warned_of(family, gatherfs, tmp_path):
    """Whole, without the head, and under a classification head."""
    import transformers

    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 4}
    if family == "OPT":
        sizes |= {"word_embed_proj_dim": 16, "ffn_dim": 64}
    elif family != "GPT2":
        sizes |= {"intermediate_size": 64}
    if family in ("Llama", "Qwen2", "Mistral", "Gemma"):
        sizes |= {"num_key_value_heads": 2, "head_dim": 8}
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1)
    config = getattr(transformers, family + "Config")(vocab_size=VOCAB, **sizes, **ids)
    for kind in ("ForCausalLM", "Model", "ForSequenceClassification"):
        name = "GPT2LMHeadModel" if (family, kind) == ("GPT2", "ForCausalLM") else family + kind
        model = getattr(transformers, name)(config)
        model.save_pretrained(tmp_path / name)
        report = inspect(gatherfs, tmp_path / name)
        assert (report["warnings"], report["default_view"]) == ([], "full"), name


# ---- adapters beside heads and other models ----


def with_adapter(policy):
    """The state of a PEFT model as it is in training, and what save_pretrained() makes of it."""
    import peft

    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(policy, config)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter)
    return model


@pytest.fixture
def adapted(tmp_path, parts):
    """Parts with the adapter's own directory and the merged model beside."""
    policy = causal()
    made = parts(policy)
    model = with_adapter(policy)
    made.state = {k: v.clone() for k, v in model.state_dict().items()}
    made.adapter = tmp_path / "adapter"
    model.save_pretrained(made.adapter)
    shutil.copy(made.adapter / "adapter_config.json", made.source)
    made.merged = tmp_path / "merged"
    model.merge_and_unload().save_pretrained(made.merged)
    return made


BESIDE = {
    "": {"v_head": heads()},
    "base_model.": {"v_head": heads()},
    "pretrained_model.": {"v_head": summary()},
    "policy.": {"value_model": {"value_model.score.weight": torch.ones(1, 4)}},
}


@pytest.mark.parametrize("front", BESIDE, ids=["plain", "trlx", "llama_factory", "trl"])
def test_an_adapter_in_a_trainers_wrapper(front, adapted, gatherfs, mount):
    """trlx's PEFT state has base_model. twice, TRL's PPO has policy. in front."""
    ((part, tensors_of_it),) = BESIDE[front].items()
    adapted.save({**{front + k: v for k, v in adapted.state.items()}, **tensors_of_it})
    report = inspect(gatherfs, adapted.source)
    assert report["default_view"] == "adapter" and report["warnings"] == []
    assert listed(report) == {"adapter", "base", "full", part}
    point = mount(adapted.source)
    wanted = load_file(adapted.adapter / "adapter_model.safetensors")
    assert_same(load_file(os.path.join(point, "adapter_model.safetensors")), wanted)
    assert not os.path.exists(os.path.join(point, "config.json"))
    base, full = (load_directory(os.path.join(point, v)) for v in ("base", "full"))
    assert_same(base, load_directory(adapted.alone))
    assert_same(full, load_directory(adapted.merged))
    beside = load_directory(os.path.join(point, part))
    assert_same(beside, {k[len(part) + 1 :]: v for k, v in tensors_of_it.items()})


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_an_adapter_file_beside_the_heads_alone(form, adapted, gatherfs, mount):
    """trlx saves an adapter so: pytorch_model.bin holds no model. LLaMA-Factory has its own."""
    state = load_file(adapted.adapter / "adapter_model.safetensors")
    if form == "bin":
        adapted.save(state, "adapter_model.bin").save(heads())
    else:
        shutil.copy(adapted.adapter / "adapter_model.safetensors", adapted.source)
        adapted.save(heads(), "value_head.bin")
    (adapted.source / "config.json").unlink()
    report = inspect(gatherfs, adapted.source)
    assert report["default_view"] == "adapter"
    point = mount(adapted.source, "-o", f"base={adapted.alone}")
    assert_same(load_file(os.path.join(point, "adapter_model.safetensors")), state)
    assert set(os.listdir(point)) >= {"adapter_model.safetensors", "v_head"}
    assert_same(load_directory(os.path.join(point, "v_head")), heads(""))
    assert_same(load_directory(os.path.join(point, "base")), load_directory(adapted.alone))
    assert_same(load_directory(os.path.join(point, "full")), load_directory(adapted.merged))
