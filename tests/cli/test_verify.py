# SPDX-License-Identifier: Apache-2.0
"""verify: finds what is wrong, and only that."""

import json
import os
import struct

import pytest


def findings(result):
    return json.loads(result.out)["findings"]


def of_kind(result, kind):
    return [f["text"] for f in findings(result) if f["kind"] == kind]


@pytest.fixture
def exported(gatherfs, sample, tmp_path):
    gatherfs.export(sample, tmp_path / "model").ok()
    return tmp_path / "model"


def header_of(path):
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + n]), 8 + n, data


def write_file(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_good_checkpoint(gatherfs, sample):
    result = gatherfs.run("verify", "--json", sample).ok()
    facts = json.loads(result.out)
    assert facts["problems"] == 0 and facts["unknown"] == 0 and facts["files"] == 1
    assert facts["tensors"] > 10 and facts["bytes"] > 100_000
    assert result.err == ""


def test_plain_output_has_a_state_a_line(gatherfs, sample):
    lines = gatherfs.run("verify", sample).ok().text.splitlines()
    assert len(lines) >= 3 and all(line.startswith("ok ") for line in lines)


def test_it_equals_its_own_export_however_sharded(gatherfs, sample, exported):
    for options in ([], ["--max-shard-size", "30KB"]):
        result = gatherfs.run("verify", "--json", "--against", exported, sample, *options).ok()
        assert of_kind(result, "problem") == []
        assert any("config.json" in text for text in of_kind(result, "note"))


def test_one_changed_byte_is_found_and_named(gatherfs, sample, exported):
    path = exported / "model.safetensors"
    header, start, data = header_of(path)
    begin, _ = header["lm_head.weight"]["data_offsets"]
    data = bytearray(data)
    data[start + begin + 77] ^= 1
    path.write_bytes(data)
    result = gatherfs.run("verify", "--json", "--against", exported, sample)
    assert "1 problem" in result.failed(1)
    (text,) = of_kind(result, "problem")
    assert "'lm_head.weight'" in text and "77" in text


def test_other_names_types_and_shapes_are_found(gatherfs, sample, exported):
    path = exported / "model.safetensors"
    header, start, data = header_of(path)
    header["renamed"] = header.pop("model.norm.weight")
    header["lm_head.weight"]["dtype"] = "F16"
    header["model.embed_tokens.weight"]["shape"].reverse()
    write_file(path, header, data[start:])
    result = gatherfs.run("verify", "--json", "--against", exported, sample)
    result.failed(1)
    text = "\n".join(of_kind(result, "problem"))
    assert "'model.norm.weight' is not in" in text and "'renamed' is only in" in text
    assert "'lm_head.weight' is BF16" in text and "'model.embed_tokens.weight' is BF16 [" in text


def test_another_dtype_is_a_difference(gatherfs, sample, exported):
    gatherfs.run("verify", "--dtype", "fp32", "--against", exported, sample).failed(1)


def test_side_files_are_information(gatherfs, sample, exported):
    (exported / "config.json").write_text("{}")
    (exported / "tokenizer.json").unlink()
    result = gatherfs.run("verify", "--json", "--against", exported, sample).ok()
    (note,) = of_kind(result, "note")
    assert "config.json different" in note and "tokenizer.json not there" in note
    assert "tokenizer_config.json equal" in note


def test_what_cannot_be_compared_is_exit_2(gatherfs, sample, tmp_path):
    assert "no safetensors file" in gatherfs.run("verify", "--against", tmp_path, sample).failed(2)
    gatherfs.run("verify", "--against", tmp_path / "gone", sample).failed(2)


def test_a_broken_comparison_file_is_exit_1(gatherfs, sample, exported):
    os.truncate(exported / "model.safetensors", 1000)
    line = gatherfs.run("verify", "--against", exported, sample).failed(1)
    assert "model.safetensors" in line


def test_a_tensor_in_two_files_is_refused(gatherfs, sample, exported):
    (exported / "again.safetensors").write_bytes((exported / "model.safetensors").read_bytes())
    line = gatherfs.run("verify", "--against", exported, sample).failed(1)
    assert "again.safetensors" in line


def test_the_raw_view_is_verified_too(gatherfs, sample):
    gatherfs.run("verify", "--view", "raw", sample).ok()


# ---------------------------------------------------------------- tied weights stored twice


def stored_runs(gatherfs, source, tensor):
    """[(file, offset, length)] of a tensor's bytes, in order"""
    path = ".gatherfs/provenance/raw/model.safetensors.json"
    ranges = json.loads(gatherfs.cat(source, path).ok().out)["ranges"]
    return [
        (source / r["source"], r["source_offset"], r["source_length"])
        for r in ranges
        if r.get("tensor") == tensor
    ]


def write_at(path, offset, data):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


@pytest.fixture
def tied_copy(gatherfs, sample_copy):
    """The sample as a tied model whose head was stored beside the embedding, with equal values."""
    config = json.loads((sample_copy / "config.json").read_text())
    config["tie_word_embeddings"] = True
    (sample_copy / "config.json").write_text(json.dumps(config))
    data = b""
    for path, offset, length in stored_runs(gatherfs, sample_copy, "model.embed_tokens.weight"):
        data += path.read_bytes()[offset : offset + length]
    for path, offset, length in stored_runs(gatherfs, sample_copy, "lm_head.weight"):
        write_at(path, offset, data[:length])
        data = data[length:]
    assert data == b""
    return sample_copy


def test_a_tied_tensor_is_compared_in_full(gatherfs, tied_copy):
    assert b"lm_head" not in gatherfs.cat(tied_copy, "model.safetensors", "--range", "0-4000").out
    good = of_kind(gatherfs.run("verify", "--json", tied_copy).ok(), "ok")
    assert any(t.startswith("tied: 'lm_head.weight' equals 'model.embed_tokens") for t in good)


def test_a_difference_between_the_samples_is_found(gatherfs, tied_copy):
    path, offset, _ = stored_runs(gatherfs, tied_copy, "lm_head.weight")[1]
    # a mount compares 64 runs of 64 elements, 261 apart: element 4338 is in none
    write_at(path, offset + 200 * 4, b"\x00\x00\x80\x3f")
    result = gatherfs.run("verify", "--json", tied_copy)
    result.failed(1)
    (text,) = of_kind(result, "problem")
    assert text.startswith("tensor 'lm_head.weight' is left out, but no served tensor equals it")
