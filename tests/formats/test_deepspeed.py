# SPDX-License-Identifier: Apache-2.0
"""gatherfs on real DeepSpeed checkpoints: what it serves against what the training process held."""

import json
import os
import random
import shutil

import pytest
import torch
from ds_cases import CASES
from safetensors.torch import load_file
from weights import assert_same, cast, differences, file_sums, load_directory

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def names(wanted):
    return [name for name, case in CASES.items() if wanted(case)]


def is_wrapped(case):
    """Adapters and several models in one: the default view isn't the state dict as it is."""
    return "lora" in case.model.__name__ or "PolicyAndValue" in case.model.__name__


def has_masters_by_name(case):
    """Not so for pipelines and experts: their optimizer files use other names and layouts."""
    return case.autotp == 1 and not case.pipeline and not case.moe


HF = names(lambda c: c.hf and not c.exclude_frozen)
FULL = names(lambda c: c.autotp == 1 and not c.exclude_frozen and not is_wrapped(c))
RAW = names(lambda c: c.autotp == 1)


def present(case, tensors):
    """Without the frozen weights where the checkpoint was saved without them."""
    gone = case.facts["frozen"] if case.facts["exclude_frozen"] else []
    return {k: v for k, v in tensors.items() if k not in gone}


def live(case):
    return present(case, case.expected("live"))


def stored(case):
    """What the shards hold: masters of what was trained, the rest as it was in the live model.

    zero_to_fp32 also casts float buffers, which are stored in their own type, and with ZeRO-1 it
    drops frozen weights; so only trained weights are taken from it. Where it refuses a checkpoint,
    the running optimizer was asked.
    """
    masters = case.expected("fp32") or case.expected("master")
    kept = set(case.facts["frozen"]) | set(case.facts["buffers"])
    return {k: masters[k] if k in masters and k not in kept else v for k, v in live(case).items()}


def as_full_view(case, tensors):
    """Wrapper names go; of tied weights the one goes that save_pretrained leaves out."""
    result = {k.removeprefix("_orig_mod.").removeprefix("module."): v for k, v in tensors.items()}
    if case.facts["hf"]:
        saved = load_file(case.expected_path("hf", "model.safetensors"))
        result = {k: v for k, v in result.items() if k in saved}
    return result


@pytest.fixture
def export(gatherfs, tmp_path):
    """export(source, *options) -> directory"""

    def run(source, *options):
        dest = tmp_path / f"out{len(os.listdir(tmp_path))}"
        gatherfs.export(source, dest, *options).ok()
        return str(dest)

    return run


# ---------------------------------------------------------------- tensors


@pytest.mark.parametrize("name", FULL)
def test_default_export_is_the_live_model(name, case_dir, export):
    case = case_dir(name)
    assert_same(load_directory(export(case.source)), as_full_view(case, live(case)))


@pytest.mark.parametrize("name", RAW)
def test_raw_view_has_every_tensor_under_its_own_name(name, case_dir, export):
    case = case_dir(name)
    dtype = DTYPES[case.facts["dtype"]]
    found = load_directory(export(case.source, "--view", "raw", "--dtype", dtype))
    assert_same(found, cast(live(case), getattr(torch, dtype)))


@pytest.mark.parametrize("name", names(has_masters_by_name))
def test_raw_view_holds_what_is_stored(name, case_dir, export):
    case = case_dir(name)
    assert_same(load_directory(export(case.source, "--view", "raw")), stored(case))


@pytest.mark.parametrize("name", [n for n in FULL if has_masters_by_name(CASES[n])])
def test_stored_dtype_serves_the_masters(name, case_dir, export):
    case = case_dir(name)
    found = load_directory(export(case.source, "--dtype", "stored"))
    assert_same(found, as_full_view(case, stored(case)))


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize(
    "name",
    ["z0_bf16_w2", "z1_bf16opt_w2", "z2_fp16_w2", "z3_fp32_w3", "z3_bf16_w3", "z3_bf16masters_w2"]
    + ["z3_hf_fp16_w2", "z3_hf_frozen_w3", "z2_hf_tied_w2", "z3_legacy_w2"],
)
def test_dtype_casts_what_is_stored(name, dtype, case_dir, export):
    case = case_dir(name)
    found = load_directory(export(case.source, "--dtype", dtype))
    assert_same(found, as_full_view(case, cast(stored(case), getattr(torch, dtype))))


def test_dtype_has_short_names(case_dir, export):
    source = case_dir("z3_hf_bf16_w4").source
    for short, long in DTYPES.items():
        found = file_sums(export(source, "--dtype", short))
        assert found == file_sums(export(source, "-o", f"dtype={long}"))


def bit_patterns(dtype):
    """Every 16-bit value; of the longer types the edges and a million random ones."""
    if dtype in (torch.bfloat16, torch.float16):
        return torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).reshape(256, 256)
    ints = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    generator = torch.Generator().manual_seed(7)
    info = torch.iinfo(ints)
    any_bits = torch.randint(info.min, info.max, (1024, 1024), generator=generator, dtype=ints)
    values = any_bits.view(dtype)
    # halfway between two 16-bit neighbours, to both sides of it, overflow, the smallest ones
    edges = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-23, 1 + 2**-11, 1 + 3 * 2**-11, 65504.0]
    edges += [65519.996, 65520.0, 3.3895e38, 3.4e38, 2**-24, 2**-25, 2**-25 * 1.0001, 2**-133]
    edges += [2**-149, 0.0, -0.0, float("inf"), -float("inf"), float("nan")]
    values[0, : len(edges)] = torch.tensor(edges, dtype=dtype)
    return values


@pytest.mark.parametrize("to", DTYPES.values())
@pytest.mark.parametrize("of", ["float64", "float32", "bfloat16", "float16"])
def test_casts_round_as_torch_does(of, to, case_dir, export, tmp_path):
    """A checkpoint whose one model file holds chosen bits (ZeRO-0 has nothing but that file)."""
    ckpt = tmp_path / "ckpt"
    shutil.copytree(case_dir("z0_fp32_w2").source, ckpt)
    path = ckpt / "global_step2" / "mp_rank_00_model_states.pt"
    state = torch.load(path, weights_only=False)
    values = bit_patterns(getattr(torch, of))
    state["module"]["patterns"] = values
    torch.save(state, path)

    found = load_directory(export(ckpt, "--dtype", to))["patterns"]
    wanted = values.to(getattr(torch, to))
    assert found.dtype == wanted.dtype
    nan = wanted.isnan()
    assert torch.equal(found.isnan(), nan)  # which NaN is not specified
    assert_same({"": found.masked_fill(nan, 0)}, {"": wanted.masked_fill(nan, 0)})


# ---------------------------------------------------------------- whole files


@pytest.mark.parametrize("name", HF)
def test_directory_equals_save_pretrained(name, case_dir, export):
    case = case_dir(name)
    assert file_sums(export(case.source)) == file_sums(case.expected_path("hf"))


@pytest.mark.parametrize("name", HF)
def test_shards_equal_save_pretrained(name, case_dir, export):
    case = case_dir(name)
    for folder, size in case.facts["shard_sizes"].items():
        found = file_sums(export(case.source, "--max-shard-size", size))
        assert found == file_sums(case.expected_path(folder)), size


def test_shard_size_is_one_option_in_every_spelling(case_dir, export):
    case = case_dir("z3_hf_bf16_w4")
    wanted = file_sums(case.expected_path("hf_7kb"))
    for options in (
        ["--max-shard-size=7KB"],
        ["-o", "max_shard_size=7KB"],
        ["-omax_shard_size=7000"],
    ):
        assert file_sums(export(case.source, *options)) == wanted, options


def test_export_is_the_same_with_any_number_of_jobs(case_dir, export):
    source = case_dir("z3_hf_fp32_w3").source
    one = file_sums(export(source, "--jobs", "1"))
    assert one == file_sums(export(source, "--jobs", "4"))


def test_config_names_the_served_dtype(case_dir, export):
    source = case_dir("z3_hf_bf16_w4").source
    for dtype, wanted in {"auto": "bfloat16", "stored": "float32", "float16": "float16"}.items():
        with open(os.path.join(export(source, "--dtype", dtype), "config.json")) as f:
            assert json.load(f)["dtype"] == wanted


def test_config_of_transformers_4_is_corrected_too(case_dir, export, tmp_path):
    """It said `torch_dtype`."""
    from transformers import AutoConfig

    ckpt = tmp_path / "ckpt"
    shutil.copytree(case_dir("z3_hf_bf16_w4").source, ckpt)
    config = json.loads((ckpt / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    (ckpt / "config.json").write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(export(ckpt)).dtype == torch.bfloat16


def test_config_and_tokenizer_can_come_from_elsewhere(case_dir, export, tmp_path):
    case = case_dir("z3_hf_bf16_w4")
    ckpt = tmp_path / "ckpt"
    shutil.copytree(case.source, ckpt, ignore=shutil.ignore_patterns("*.json", "*.jinja"))
    assert os.listdir(export(ckpt)) == ["model.safetensors"]
    both = export(ckpt, "--config-from", case.source, "--tokenizer", case.source)
    assert file_sums(both) == file_sums(case.expected_path("hf"))


# ---------------------------------------------------------------- what SOURCE may be


@pytest.mark.parametrize("name", ["z3_hf_bf16_w4", "z2_hf_bf16_w2", "z3_hf_trainer_w2"])
def test_source_may_be_root_or_tag(name, case_dir, export):
    case = case_dir(name)
    wanted = file_sums(case.expected_path("hf"))
    for source in (case.source + "/", case.tag_folder, os.path.relpath(case.source)):
        assert file_sums(export(source)) == wanted, source


def test_source_may_be_a_link(case_dir, export, tmp_path):
    case = case_dir("z3_hf_bf16_w4")
    link = tmp_path / "link"
    link.symlink_to(case.source)
    assert file_sums(export(link)) == file_sums(case.expected_path("hf"))


def test_config_of_a_run_serves_its_checkpoints(case_dir, export):
    """The Trainer's layout: config and tokenizer lie one directory up."""
    case = case_dir("z3_hf_trainer_w2")
    assert not os.path.exists(os.path.join(case.source, "config.json"))
    assert "config.json" in os.listdir(export(case.source))


@pytest.mark.parametrize("name", ["z3_hf_tags_w2", "z2_hf_tags_w2"])
def test_tag_picks_one_of_several(name, case_dir, export):
    case = case_dir(name)
    by_tag = {tag: case.expected("live." + tag) for tag in case.facts["tags"]}
    for tag, wanted in by_tag.items():
        for options in (["--tag", tag], ["-o", f"tag={tag}"]):
            assert_same(load_directory(export(case.source, *options)), wanted)
        assert_same(load_directory(export(os.path.join(case.source, tag))), wanted)
    last = by_tag[case.facts["tags"][-1]]
    assert_same(load_directory(export(case.source)), last)
    assert all(differences(w, last) for tag, w in by_tag.items() if w is not last)


def test_an_unknown_tag_is_named(gatherfs, case_dir, tmp_path):
    case = case_dir("z3_hf_tags_w2")
    assert "nosuch" in gatherfs.export(case.source, tmp_path / "out", "--tag", "nosuch").failed(
        1, 2
    )


def test_a_single_tag_needs_no_latest(case_dir, export, tmp_path):
    """save_checkpoint(save_latest=False)"""
    case = case_dir("z3_hf_bf16_w4")
    ckpt = tmp_path / "ckpt"
    shutil.copytree(case.source, ckpt, ignore=shutil.ignore_patterns("latest"))
    assert file_sums(export(ckpt)) == file_sums(case.expected_path("hf"))


def test_latest_may_end_in_white_space(case_dir, export, tmp_path):
    case = case_dir("z3_hf_bf16_w4")
    ckpt = tmp_path / "ckpt"
    shutil.copytree(case.source, ckpt)
    (ckpt / "latest").write_text((ckpt / "latest").read_text() + " \r\n")
    assert file_sums(export(ckpt)) == file_sums(case.expected_path("hf"))


@pytest.mark.parametrize("name", names(lambda c: c.universal))
def test_universal_checkpoint(name, case_dir, export):
    case = case_dir(name)
    tag = os.path.basename(case.tag_folder) + "_universal"
    for source, options in (
        (case.source, ["--tag", tag]),
        (os.path.join(case.source, tag), []),
    ):
        assert_same(load_directory(export(source, *options)), live(case))
        found = load_directory(export(source, *options, "--dtype", "stored"))
        assert_same(found, stored(case))


# ---------------------------------------------------------------- frozen weights left out


@pytest.mark.parametrize("name", names(lambda c: c.hf and c.exclude_frozen))
def test_left_out_weights_come_from_the_base(name, case_dir, export):
    case = case_dir(name)
    found = load_directory(export(case.source, "--base", case.expected_path("base")))
    assert_same(found, load_directory(case.expected_path("hf")))


@pytest.mark.parametrize("name", names(lambda c: c.hf and c.exclude_frozen))
def test_left_out_weights_are_missed(name, gatherfs, case_dir, tmp_path):
    case = case_dir(name)
    line = gatherfs.export(case.source, tmp_path / "out").failed(1)
    assert any(weight in line for weight in case.facts["frozen"]), line


# ---------------------------------------------------------------- reading parts


def random_ranges(size, count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        begin = rng.randrange(size)
        length = min(rng.choice([1, 2, 3, 7, 64, 4096, size]), size - begin)
        yield begin, begin + rng.randrange(length)


@pytest.mark.parametrize(
    "name",
    ["z0_strided_w2", "z1_bf16opt_w2", "z2_hf_bf16_w2", "z3_hf_bf16_w5", "z3_hf_fp32_w3"]
    + ["z3_hf_tied_w3", "z2_legacy_w2", "z3_legacy_w2", "z3_bf16_w5"],
)
def test_a_range_is_a_slice_of_the_whole(name, gatherfs, case_dir, export):
    case = case_dir(name)
    with open(os.path.join(export(case.source), "model.safetensors"), "rb") as f:
        whole = f.read()
    assert gatherfs.cat(case.source, "model.safetensors").ok().out == whole
    ranges = [(0, 0), (0, 7), (len(whole) - 1, len(whole) - 1), (0, len(whole) - 1)]
    for a, b in ranges + list(random_ranges(len(whole), 40, name)):
        part = gatherfs.cat(case.source, "model.safetensors", "--range", f"{a}-{b}").ok().out
        assert part == whole[a : b + 1], (a, b)


def test_cat_serves_every_file(gatherfs, case_dir):
    case = case_dir("z3_hf_custom_w2")
    for folder, options in (("hf", []), ("hf_7kb", ["--max-shard-size", "7KB"])):
        for file in os.listdir(case.expected_path(folder)):
            with open(case.expected_path(folder, file), "rb") as f:
                assert gatherfs.cat(case.source, file, *options).ok().out == f.read(), file


def test_cat_of_a_file_that_is_not_there(gatherfs, case_dir):
    result = gatherfs.cat(case_dir("z3_hf_bf16_w4").source, "nosuch.bin")
    assert "nosuch.bin" in result.failed(2)
    assert not result.out


# ---------------------------------------------------------------- the other commands


@pytest.mark.parametrize("name", HF)
def test_verify_is_content(name, gatherfs, case_dir):
    case = case_dir(name)
    gatherfs.run("verify", case.source).ok()
    gatherfs.run("verify", case.source, "--against", case.expected_path("hf")).ok()


@pytest.mark.parametrize("change", ["value", "name", "dtype"])
def test_verify_finds_what_differs(change, gatherfs, case_dir, tmp_path):
    from safetensors.torch import save_file

    case = case_dir("z3_hf_bf16_w4")
    other = tmp_path / "other"
    shutil.copytree(case.expected_path("hf"), other)
    tensors = load_directory(other)
    name = "model.layers.1.mlp.down_proj.weight"
    if change == "value":
        tensors[name].view(torch.int16)[-1, -1] ^= 1
    if change == "name":
        tensors[name + "x"] = tensors.pop(name)
    if change == "dtype":
        tensors[name] = tensors[name].to(torch.float16)
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    result = gatherfs.run("verify", case.source, "--against", other)
    assert result.code == 1, result
    assert name in result.text + result.err, result


def test_verify_needs_something_to_compare_with(gatherfs, case_dir, tmp_path):
    source = case_dir("z3_hf_bf16_w4").source
    gatherfs.run("verify", source, "--against", tmp_path / "nosuch").failed(2)
    gatherfs.run("verify", tmp_path / "nosuch").failed(2)


@pytest.mark.parametrize("name", FULL)
def test_inspect_tells_what_it_is(name, gatherfs, case_dir):
    case = case_dir(name)
    assert "deepspeed" in gatherfs.run("inspect", case.source).ok().text.lower()
    tensors = gatherfs.run("inspect", case.source, "--tensors").ok().text
    assert not [weight for weight in as_full_view(case, live(case)) if weight not in tensors]
    for options in ([], ["--tensors"]):
        result = gatherfs.run("inspect", case.source, "--json", *options).ok()
        assert isinstance(json.loads(result.text), dict)


def test_export_reports_as_json(gatherfs, case_dir, tmp_path):
    source = case_dir("z3_hf_bf16_w4").source
    result = gatherfs.export(source, tmp_path / "out", "--json").ok()
    assert isinstance(json.loads(result.text), dict)


# ---------------------------------------------------------------- refusals


def test_export_keeps_what_is_already_there(gatherfs, case_dir, tmp_path):
    source = case_dir("z3_hf_bf16_w4").source
    dest = tmp_path / "out"
    dest.mkdir()
    (dest / "mine.txt").write_text("precious")
    assert str(dest) in gatherfs.export(source, dest).failed(2)
    assert os.listdir(dest) == ["mine.txt"]
    assert os.listdir(tmp_path) == ["out"]  # no staging directory is left


def test_export_with_force_replaces_weights(gatherfs, case_dir, tmp_path):
    case = case_dir("z3_hf_bf16_w4")
    dest = tmp_path / "out"
    gatherfs.export(case.source, dest, "--dtype", "float32").ok()
    gatherfs.export(case.source, dest, "--force").ok()
    assert file_sums(dest) == file_sums(case.expected_path("hf"))
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "options",
    [["--nosuch"], ["-o", "nosuch=1"], ["--dtype", "int8"], ["--max-shard-size", "5 parsecs"]]
    + [["--view", "nosuch"], ["--view"], ["--jobs", "0x"], ["--source-format", "nosuch"]],
)
def test_wrong_usage_is_one_line_and_2(options, gatherfs, case_dir, tmp_path):
    source = case_dir("z3_hf_bf16_w4").source
    gatherfs.export(source, tmp_path / "out", *options).failed(2)
    assert not os.path.exists(tmp_path / "out")


def test_a_source_that_is_no_checkpoint(gatherfs, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for source in (tmp_path / "nosuch", empty):
        line = gatherfs.export(source, tmp_path / "out").failed(2)
        assert os.path.basename(source) in line, line
