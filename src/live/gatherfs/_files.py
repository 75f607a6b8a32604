# SPDX-License-Identifier: Apache-2.0
"""The small files that belong beside published weights, as save_pretrained writes them."""

import copy
import json
import os
import tempfile

MAX_FILE = 64 << 20
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json")


def _config(module):
    """config.json as PreTrainedModel.save_pretrained leaves it."""
    config = copy.deepcopy(module.config)
    config.architectures = [type(module).__name__.removeprefix("FSDP")]
    dtype = getattr(module, "dtype", None)
    if dtype is not None:
        config.dtype = str(dtype).split(".")[-1]
    return config


def _adapter_config(module):
    """adapter_config.json of the default adapter, or the only one, as PEFT writes it."""
    name = "default" if "default" in module.peft_config else next(iter(module.peft_config))
    config = copy.deepcopy(module.peft_config[name])
    if config.base_model_name_or_path is None:
        base = module.get_base_model() if hasattr(module, "get_base_model") else module
        config.base_model_name_or_path = getattr(base, "name_or_path", None)
    config.inference_mode = True
    return config


def _save(thing, directory):
    if isinstance(thing, dict):
        with open(os.path.join(directory, "config.json"), "w") as file:
            json.dump(thing, file, indent=2, sort_keys=True)
    elif hasattr(thing, "save_pretrained"):
        thing.save_pretrained(directory)


def _read(directory):
    for entry in os.scandir(directory):
        if entry.is_file() and not entry.name.endswith(WEIGHTS) and entry.stat().st_size <= MAX_FILE:
            with open(entry.path, "rb") as file:
                yield entry.name, file.read()


def _is_path(given):
    return isinstance(given, (str, os.PathLike))


def sources(module, config=None, tokenizer=None):
    """What has files to give, least important first: directories, or functions that make
    something to save. `config`: a config object, a dict or a directory; `tokenizer`: a
    tokenizer, a processor or a directory."""
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    found = [tokenizer] if _is_path(tokenizer) else []
    if config is None and hasattr(base, "config"):
        found.append(lambda: _config(base))
    found.append(lambda: getattr(base, "generation_config", None))
    found.append(config if _is_path(config) else lambda: config)
    if not _is_path(tokenizer):
        found.append(lambda: tokenizer)
    if getattr(module, "peft_config", None):
        found.append(lambda: _adapter_config(module))
    return found


def read(source):
    """The files of a source, as (name, bytes)."""
    if not callable(source):
        return list(_read(source))
    with tempfile.TemporaryDirectory() as directory:
        _save(source(), directory)
        return list(_read(directory))
