# SPDX-License-Identifier: Apache-2.0
"""PEFT states, as PEFT itself leaves and merges them: `adapter/`, `full/` and `base/` hold the same
bytes as the files that save_pretrained() writes."""

import hashlib
import json
import os
import shutil

import make_peft
import pytest
import torch
from make_peft import CASES, VOCAB
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from weights import assert_same, cast, load_directory, sha256

MODEL, ADAPTER = "model.safetensors", "adapter_model.safetensors"
STATES = ["bin", "dcp"]
MERGED = [name for name, case in CASES.items() if case.merges]
UNMERGED = [name for name, case in CASES.items() if not case.merges]
# Where the base model itself is trained or resized, the state has no other base.
UNTOUCHED = [n for n, c in CASES.items() if c.rows == VOCAB and c.config.get("bias") is None]

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT explains itself at length
has_fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")


@pytest.fixture(scope="session")
def peft_case(tmp_path_factory):
    """peft_case(name) -> its directory, made at the first call."""
    root = str(tmp_path_factory.mktemp("peft"))

    def find(name, *parts):
        folder = os.path.join(root, name)
        if not os.path.exists(folder):
            os.mkdir(folder)
            make_peft.make(name, folder)
        return os.path.join(folder, *parts)

    yield find
    shutil.rmtree(root)


def base_option(name, folder):
    """A resized vocabulary shows only beside the base model's config."""
    return [] if CASES[name].rows == VOCAB else ["--base", os.path.join(folder, "base")]


def files_of(folder):
    return {e for e in os.listdir(folder) if os.path.isfile(os.path.join(folder, e))}


def why_not(gatherfs, source, view, *options):
    """Why inspect says that a view cannot be built; None if it can."""
    report = json.loads(gatherfs.run("inspect", source, "--json", *options).ok().text)
    return next(v for v in report["views"] if v["name"] == view).get("why_not")


def edit_json(path, **changes):
    with open(path) as f:
        value = json.load(f)
    with open(path, "w") as f:
        json.dump(value | changes, f, indent=2, sort_keys=True)


# ---- the same bytes ----


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", CASES)
def test_adapter_is_the_file_that_peft_saves(name, state, gatherfs, peft_case, tmp_path):
    case = peft_case(name)
    gatherfs.export(
        f"{case}/{state}", tmp_path / "out", "--view", "adapter", *base_option(name, case)
    ).ok()
    assert sha256(tmp_path / "out" / ADAPTER) == sha256(f"{case}/adapter/{ADAPTER}")
    config = f"{case}/adapter/adapter_config.json"
    assert sha256(tmp_path / "out" / "adapter_config.json") == sha256(config)
    assert files_of(tmp_path / "out") == {
        ADAPTER,
        "adapter_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", MERGED)
def test_full_is_what_merge_and_unload_gives(name, state, gatherfs, peft_case, tmp_path):
    case = peft_case(name)
    gatherfs.export(f"{case}/{state}", tmp_path / "out", "--view", "full").ok()
    assert sha256(tmp_path / "out" / MODEL) == sha256(f"{case}/full/{MODEL}")
    assert "config.json" in files_of(tmp_path / "out")
    assert "adapter_config.json" not in files_of(tmp_path / "out")


@pytest.mark.parametrize("name", MERGED)
def test_an_adapter_directory_is_merged_into_the_base_given(name, gatherfs, peft_case, tmp_path):
    case = peft_case(name)
    base = ("--base", f"{case}/base")
    gatherfs.export(f"{case}/adapter", tmp_path / "out", "--view", "full", *base).ok()
    assert sha256(tmp_path / "out" / MODEL) == sha256(f"{case}/full/{MODEL}")
    gatherfs.export(f"{case}/adapter", tmp_path / "adapter", *base).ok()
    assert sha256(tmp_path / "adapter" / ADAPTER) == sha256(f"{case}/adapter/{ADAPTER}")
    assert "config.json" not in files_of(tmp_path / "adapter")


@pytest.mark.parametrize("name", UNTOUCHED)
def test_base_is_the_model_under_the_adapter(name, gatherfs, peft_case, tmp_path):
    case = peft_case(name)
    for source in (f"{case}/bin", f"{case}/adapter"):
        out = tmp_path / os.path.basename(source)
        gatherfs.export(source, out, "--view", "base", "--base", f"{case}/base").ok()
        assert sha256(out / MODEL) == sha256(f"{case}/base/{MODEL}")


@pytest.mark.parametrize("name", UNMERGED)
def test_what_is_not_merged_says_why_and_has_its_adapter(name, gatherfs, peft_case):
    case = peft_case(name)
    why = why_not(gatherfs, f"{case}/bin", "full")
    assert "vera_A and vera_B were not saved" in why or "is not merged" in why


# ---- ZeRO ----

ZERO = ["z2_lora_w2", "z3_lora_w3", "z2_lora_excl_w2", "z3_lora_excl_w3"]


@pytest.fixture(scope="module")
def zero_case(case_dir, tmp_path_factory):
    """zero_case(name) -> (source, folder): what PEFT makes of the live weights of a ZeRO case."""
    import ds_models
    from peft import PeftModel

    made = {}

    def base_of(states, dtype):
        base = ds_models.llama()
        names = {n.replace(".base_layer", "").replace(".original_module", ""): t
                 for n, t in states.items()}  # fmt: skip
        own = {n: names.get("base_model.model." + n, t) for n, t in base.state_dict().items()}
        base.load_state_dict(own)
        return base.to(dtype)

    def make(name):
        live = case_dir(name).expected("live")
        frozen = case_dir(name.replace("_excl", "")).expected("live")
        folder = tmp_path_factory.mktemp(name)
        dtype = next(iter(live.values())).dtype
        base_of(frozen, dtype).save_pretrained(folder / "base")
        model = ds_models.llama_lora().to(dtype)
        model.load_state_dict({**frozen, **live})
        model.save_pretrained(folder / "adapter")
        merged = PeftModel.from_pretrained(base_of(frozen, dtype), folder / "adapter")
        merged.merge_and_unload().save_pretrained(folder / "full")
        return case_dir(name).source, folder

    def find(name):
        if name not in made:
            made[name] = make(name)
        return made[name]

    return find


@pytest.mark.parametrize("name", ZERO)
def test_zero_checkpoints_hold_an_adapter_and_a_merged_model(name, gatherfs, zero_case, tmp_path):
    """The optimizer's masters are rounded to what the model had, then merged."""
    source, folder = zero_case(name)
    options = ["--config-from", folder / "adapter"]
    if "excl" in name:
        options += ["--base", folder / "base"]
    gatherfs.export(source, tmp_path / "adapter", "--view", "adapter", *options).ok()
    assert sha256(tmp_path / "adapter" / ADAPTER) == sha256(folder / "adapter" / ADAPTER)
    gatherfs.export(source, tmp_path / "full", "--view", "full", *options).ok()
    assert_same(load_file(tmp_path / "full" / MODEL), load_file(folder / "full" / MODEL))


def test_a_checkpoint_without_its_frozen_weights_says_what_supplies_them(gatherfs, zero_case):
    source, folder = zero_case("z3_lora_excl_w3")
    why = why_not(gatherfs, source, "full", "--config-from", folder / "adapter")
    assert "base=DIR" in why


# ---- any part, any type ----


@pytest.mark.parametrize("name", ["lora_bf16", "dora", "conv1d", "experts", "tokens", "lokr"])
def test_any_range_is_that_of_the_whole(name, gatherfs, peft_case):
    case = peft_case(name)
    with open(f"{case}/full/{MODEL}", "rb") as f:
        wanted = f.read()
    n = len(wanted)
    for start, end in ((0, 9), (n // 3, n // 3 + 1), (n // 2 + 1, n // 2 + 4999), (n - 7, n)):
        found = gatherfs.cat(f"{case}/bin", f"full/{MODEL}", "--range", f"{start}-{end}").ok().out
        assert found in (wanted[start:end], wanted[start : end + 1])


def test_dtype_is_applied_to_what_was_merged(gatherfs, peft_case, tmp_path):
    for name, dtype in (("lora", torch.bfloat16), ("lora_bf16", torch.float32)):
        case = peft_case(name)
        out = tmp_path / name
        gatherfs.export(f"{case}/bin", out, "--view", "full", "--dtype", str(dtype)[6:]).ok()
        assert_same(load_file(out / MODEL), cast(load_file(f"{case}/full/{MODEL}"), dtype))
        with open(out / "config.json") as f:
            assert json.load(f)["dtype"] == str(dtype)[6:]


def test_a_merged_model_in_shards(gatherfs, peft_case, tmp_path):
    case = peft_case("experts_bf16")
    options = ("--view", "full", "--max-shard-size", "9KB")
    gatherfs.export(f"{case}/bin", tmp_path / "out", *options).ok()
    assert len(files_of(tmp_path / "out")) > 6
    assert_same(load_directory(tmp_path / "out"), load_file(f"{case}/full/{MODEL}"))


def test_verify_reads_what_was_merged(gatherfs, peft_case):
    case = peft_case("lora")
    gatherfs.run("verify", f"{case}/bin", "--view", "full").ok()
    gatherfs.run(
        "verify", f"{case}/bin", "--view", "full", "--against", f"{case}/full"
    ).ok()  # fmt: skip


# ---- several adapters ----


@has_fuse
def test_each_of_several_adapters_is_a_directory(mount, peft_case):
    case = peft_case("several")
    point = mount(f"{case}/bin")
    folders = {e for e in os.listdir(point) if os.path.isdir(os.path.join(point, e))}
    named = {f"{view}.{name}" for view in ("adapter", "full") for name in ("one", "two")}
    assert folders == {"adapter", "full", "base"} | named
    for name in ("one", "two"):
        for file in (ADAPTER, "adapter_config.json"):
            found = os.path.join(point, f"adapter.{name}", file)
            assert sha256(found) == sha256(f"{case}/adapter/{name}/{file}")
        found = os.path.join(point, f"full.{name}", MODEL)
        assert sha256(found) == sha256(f"{case}/full.{name}/{MODEL}")
    assert sha256(os.path.join(point, ADAPTER)) == sha256(f"{case}/adapter/{ADAPTER}")


def test_several_adapters_of_which_none_is_the_default(gatherfs, peft_case, tmp_path):
    case = peft_case("several")
    shutil.copytree(f"{case}/bin", tmp_path / "ckpt")
    state = torch.load(tmp_path / "ckpt" / "pytorch_model.bin")
    state = {k: v for k, v in state.items() if ".default" not in k}
    torch.save(state, tmp_path / "ckpt" / "pytorch_model.bin")
    assert "one, two" in gatherfs.export(tmp_path / "ckpt", tmp_path / "out").failed(2)
    gatherfs.export(tmp_path / "ckpt", tmp_path / "out", "--view", "full.two").ok()
    assert sha256(tmp_path / "out" / MODEL) == sha256(f"{case}/full.two/{MODEL}")


# ---- transformers and peft load it ----


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 19).reshape(2, 8)).logits


@has_fuse
@pytest.mark.parametrize("name", ["lora", "dora_bf16", "experts_mixtral", "both_tied", "neox"])
def test_a_mounted_model_and_its_adapter_load(name, mount, peft_case):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    case = peft_case(name)
    point = mount(f"{case}/dcp", "-o", f"base={case}/base")
    model, report = AutoModelForCausalLM.from_pretrained(
        f"{point}/full", dtype="auto", output_loading_info=True
    )
    assert not any(report.values()), report
    wanted = AutoModelForCausalLM.from_pretrained(f"{case}/full", dtype="auto")
    assert model.dtype == wanted.dtype
    assert torch.equal(logits(model), logits(wanted))
    for adapter in (point, f"{point}/adapter"):
        base = AutoModelForCausalLM.from_pretrained(f"{point}/base", dtype="auto")
        assert_same(dict(base.state_dict()), wanted_state(f"{case}/base"))
        found = PeftModel.from_pretrained(base, adapter)
        base = AutoModelForCausalLM.from_pretrained(f"{case}/base", dtype="auto")
        assert torch.equal(logits(found), logits(PeftModel.from_pretrained(base, f"{case}/adapter")))
    assert AutoTokenizer.from_pretrained(f"{point}/full")("gather the parts")["input_ids"]


def wanted_state(folder):
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict())


@has_fuse
def test_auto_classes_find_the_base_by_the_name_that_is_served(mount, peft_case):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    case = peft_case("lora_bf16")
    renamed = mount(f"{case}/bin", "-o", f"base_name={case}/base")
    with open(os.path.join(renamed, "adapter_config.json")) as f:
        assert json.load(f)["base_model_name_or_path"] == f"{case}/base"
    wanted = logits(AutoPeftModelForCausalLM.from_pretrained(f"{case}/adapter", dtype="auto"))
    assert torch.equal(
        logits(AutoPeftModelForCausalLM.from_pretrained(renamed, dtype="auto")), wanted
    )
    wanted = AutoModelForCausalLM.from_pretrained(f"{case}/adapter", dtype="auto")
    found = AutoModelForCausalLM.from_pretrained(renamed, dtype="auto")
    assert torch.equal(logits(found), logits(wanted))


def test_only_the_name_of_the_base_changes(gatherfs, peft_case):
    case = peft_case("lora")
    with open(f"{case}/adapter/adapter_config.json") as f:
        wanted = f.read().replace(f'"{case}/base"', '"org/\\"name\\""')
    found = gatherfs.cat(f"{case}/bin", "adapter_config.json", "--base-name", 'org/"name"').ok()
    assert found.text == wanted


# ---- where the base is ----

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, peft_case, monkeypatch):
    """A cache that holds the base of `lora` as org/base, and an adapter that names it."""
    case = peft_case("lora")
    repo = tmp_path / "hub" / "models--org--base"
    snapshot = repo / "snapshots" / COMMIT
    os.makedirs(snapshot)
    os.makedirs(repo / "blobs")
    os.makedirs(repo / "refs")
    (repo / "refs" / "main").write_text(COMMIT)
    for name in os.listdir(f"{case}/base"):
        blob = hashlib.sha1(name.encode()).hexdigest()
        shutil.copy(f"{case}/base/{name}", repo / "blobs" / blob)
        os.symlink(f"../../blobs/{blob}", snapshot / name)
    shutil.copytree(f"{case}/adapter", tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path="org/base")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_the_base_comes_from_the_cache(revision, hub, gatherfs, peft_case):
    edit_json(hub / "adapter" / "adapter_config.json", revision=revision)
    gatherfs.export(hub / "adapter", hub / "out", "--view", "full").ok()
    assert sha256(hub / "out" / MODEL) == sha256(peft_case("lora", "full", MODEL))
    assert {"config.json", "tokenizer.json"} <= files_of(hub / "out")
    gatherfs.export(hub / "adapter", hub / "adapter_out").ok()
    assert "tokenizer.json" not in files_of(hub / "adapter_out")


def test_the_cache_is_where_the_environment_says(hub, gatherfs, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE")
    os.makedirs(hub / "home" / ".cache" / "huggingface")
    shutil.move(hub / "hub", hub / "home" / ".cache" / "huggingface" / "hub")
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(hub / "home"))
    assert why_not(gatherfs, hub / "adapter", "full") is None
    monkeypatch.setenv("HF_HOME", str(hub / "elsewhere"))
    assert "nor in the Hugging Face cache" in why_not(gatherfs, hub / "adapter", "full")


@pytest.mark.parametrize(
    "name", ["org/other", "../hub/models--org--base", "org/..", "org--base", "a/b/c", "org/", "-x"]
)
def test_names_that_are_not_in_the_cache(name, hub, gatherfs):
    edit_json(hub / "adapter" / "adapter_config.json", base_model_name_or_path=name)
    assert "base=DIR supplies it" in why_not(gatherfs, hub / "adapter", "full")
    assert why_not(gatherfs, hub / "adapter", "adapter") is None


@pytest.mark.parametrize("revision", ["v2", "../refs/main", "/etc/passwd", "a\nb", COMMIT[:-1]])
def test_revisions_that_are_not_in_the_cache(revision, hub, gatherfs):
    edit_json(hub / "adapter" / "adapter_config.json", revision=revision)
    assert "base=DIR supplies it" in why_not(gatherfs, hub / "adapter", "full")


def test_a_reference_that_leads_elsewhere_is_none(hub, gatherfs):
    (hub / "hub" / "models--org--base" / "refs" / "main").write_text("../../../adapter")
    assert "base=DIR supplies it" in why_not(gatherfs, hub / "adapter", "full")


def test_a_link_out_of_the_repository_is_not_followed(hub, gatherfs, peft_case):
    weights = hub / "hub" / "models--org--base" / "snapshots" / COMMIT / MODEL
    weights.unlink()
    weights.symlink_to(peft_case("lora", "base", MODEL))
    assert why_not(gatherfs, hub / "adapter", "full") is not None


def test_a_relative_path_is_below_the_source(gatherfs, peft_case, tmp_path):
    case = peft_case("lora")
    shutil.copytree(f"{case}/adapter", tmp_path / "ckpt")
    shutil.copytree(f"{case}/base", tmp_path / "ckpt" / "models" / "base")
    config = tmp_path / "ckpt" / "adapter_config.json"
    for path in ("models/base", "./models/base"):
        edit_json(config, base_model_name_or_path=path)
        out = tmp_path / path.replace("/", "_")
        gatherfs.export(tmp_path / "ckpt", out, "--view", "full").ok()
        assert sha256(out / MODEL) == sha256(f"{case}/full/{MODEL}")
    shutil.copytree(f"{case}/base", tmp_path / "outside")
    for path in ("../outside", str(tmp_path / "outside")):
        edit_json(config, base_model_name_or_path=path)
        assert "supplies it" in why_not(gatherfs, tmp_path / "ckpt", "full")


def test_an_absolute_path_is_only_named(gatherfs, peft_case):
    case = peft_case("lora")
    assert f"base={case}/base supplies it" in why_not(gatherfs, f"{case}/adapter", "full")


# ---- bad input ----


@pytest.fixture
def broken(peft_case, tmp_path):
    """broken(change, **config) -> a copy of the adapter of `lora` whose tensors were changed."""

    def make(change=None, **config):
        folder = tmp_path / "broken"
        shutil.copytree(peft_case("lora", "adapter"), folder)
        tensors = load_file(folder / ADAPTER)
        if change:
            change(tensors)
            save_file({k: t.contiguous() for k, t in tensors.items()}, folder / ADAPTER)
        edit_json(folder / "adapter_config.json", **config)
        return folder

    return make


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.mark.parametrize(
    "config, words",
    [
        ({"rank_pattern": {"nowhere": 8}}, "'rank_pattern': 'nowhere' matches no module"),
        ({"alpha_pattern": {"nowhere": 8}}, "'alpha_pattern': 'nowhere' matches no module"),
        ({"rank_pattern": {"(": 8}}, "'rank_pattern'"),
        ({"peft_type": "NOVEL"}, "peft_type 'NOVEL' is not known here"),
        ({"r": 2}, "has rank 4, adapter_config.json says 2"),
        ({"r": 0}, "r is 0"),
        ({"use_dora": True}, "without its magnitude"),
        ({"use_qalora": True}, "use_qalora is set"),
        ({"init_lora_weights": "pissa"}, "training changed the base model"),
    ],
)
def test_a_config_that_does_not_fit_stops_only_the_merge(
    config, words, broken, gatherfs, peft_case, tmp_path
):
    folder, base = broken(**config), ("--base", peft_case("lora", "base"))
    assert words in why_not(gatherfs, folder, "full", *base)
    gatherfs.export(folder, tmp_path / "out", "--view", "full", *base).failed(1, 2)
    gatherfs.export(folder, tmp_path / "out", *base).ok()
    assert sha256(tmp_path / "out" / ADAPTER) == sha256(peft_case("lora", "adapter", ADAPTER))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.update({A: torch.zeros(0)}), f"'{A}' has shape [0]"),
        (lambda t: t.update({A: t[A].flatten()}), f"'{A}' has shape [96]"),
        (lambda t: t.update({A: t[A][:2]}), f"'{A}' has shape [2, 24]"),
        (lambda t: t.update({B: t[B][:, :2]}), "shapes that don't multiply"),
        (lambda t: t.pop(B), f"'{A}' is there without '{B}'"),
        (lambda t: t.pop(A), f"'{B}' is there without '{A}'"),
        (lambda t: t.update({B: t[B][:5]}), f"'{B}' has shape [5, 4]"),
    ],
)
def test_an_adapter_that_is_not_whole_is_refused(
    change, words, broken, gatherfs, peft_case, tmp_path
):
    folder, base = broken(change), ("--base", peft_case("lora", "base"))
    assert words in gatherfs.export(folder, tmp_path / "out", *base).failed(1)
    assert not os.path.exists(tmp_path / "out" / ADAPTER)
    assert why_not_any(gatherfs, folder, *base)


def why_not_any(gatherfs, source, *options):
    """A mount would have nothing at its root; inspect ends with the reason."""
    return gatherfs.run("inspect", source, *options).code != 0


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.update({A: t[A][:, :7]}), "is no base of this adapter"),
        (
            lambda t: [t.update({k.replace("q_proj", "x_proj"): t.pop(k)}) for k in (A, B)],
            "there is no 'model.layers.0.self_attn.x_proj.weight' in the base model",
        ),
    ],
)
def test_an_adapter_of_another_model_is_not_merged(change, words, broken, gatherfs, peft_case):
    folder, base = broken(change), ("--base", peft_case("lora", "base"))
    result = gatherfs.run("inspect", folder, "--json", *base)
    assert words in (result.err if result.code else result.text)


@pytest.mark.parametrize("other", ["conv1d", "neox"])
def test_the_base_of_another_adapter_is_none(other, gatherfs, peft_case, tmp_path):
    base = ("--base", peft_case(other, "base"))
    line = gatherfs.export(peft_case("lora", "adapter"), tmp_path / "out", *base).failed(1, 2)
    assert "is no base of this adapter" in line


def test_an_adapter_is_no_base(gatherfs, peft_case, tmp_path):
    base = ("--base", peft_case("dora", "adapter"))
    line = gatherfs.export(peft_case("lora", "adapter"), tmp_path / "out", *base).failed(1, 2)
    assert "it holds one itself" in line


def test_quantised_weights_are_merged_only_as_they_were(gatherfs, peft_case, tmp_path):
    """bitsandbytes' names; the numbers do not matter."""
    case = peft_case("lora")
    shutil.copytree(f"{case}/bin", tmp_path / "ckpt")
    state = torch.load(tmp_path / "ckpt" / "pytorch_model.bin")
    for name in [n for n in state if n.endswith(".base_layer.weight")]:
        state[name] = torch.zeros(state[name].numel() // 2, 1, dtype=torch.uint8)
        state[name + ".absmax"] = torch.zeros(4)
        state[name + ".quant_state.bitsandbytes__nf4"] = torch.zeros(9, dtype=torch.uint8)
    torch.save(state, tmp_path / "ckpt" / "pytorch_model.bin")
    assert "is of quantised weights" in why_not(gatherfs, tmp_path / "ckpt", "full")
    gatherfs.export(
        tmp_path / "ckpt", tmp_path / "out", "--view", "full", "--base", f"{case}/base"
    ).ok()
    assert sha256(tmp_path / "out" / MODEL) == sha256(f"{case}/full/{MODEL}")


def test_a_state_without_a_config_has_its_adapter(gatherfs, peft_case, tmp_path):
    case = peft_case("lora")
    shutil.copy(f"{case}/bin/pytorch_model.bin", tmp_path / "state.pt")
    gatherfs.export(tmp_path / "state.pt", tmp_path / "out").ok()
    assert sha256(tmp_path / "out" / ADAPTER) == sha256(f"{case}/adapter/{ADAPTER}")
    assert "config_from=DIR" in why_not(gatherfs, tmp_path / "state.pt", "full")
    options = ("--config-from", f"{case}/adapter", "--view", "full")
    gatherfs.export(tmp_path / "state.pt", tmp_path / "full", *options).ok()
    assert sha256(tmp_path / "full" / MODEL) == sha256(f"{case}/full/{MODEL}")


def test_headers_are_those_of_the_safetensors_writer(gatherfs, peft_case, tmp_path):
    case = peft_case("experts_mixtral")
    gatherfs.export(f"{case}/bin", tmp_path / "out", "--view", "full").ok()
    with safe_open(tmp_path / "out" / MODEL, "pt") as found:
        with safe_open(f"{case}/full/{MODEL}", "pt") as wanted:
            assert found.metadata() == wanted.metadata()
            assert list(found.offset_keys()) == list(wanted.offset_keys())
