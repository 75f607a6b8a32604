# SPDX-License-Identifier: Apache-2.0
"""One reader of model directories, as it is used. Runs in the environment that has it.

    client.py WHAT OUT DIR...

Reads every DIR and writes all that it got from the i-th to OUT/i.safetensors. Exits with 77 where
the reader is not installed. `tokenizer OUT` makes a SentencePiece model instead.
"""

import os
import sys

from probe import PROBE

TEXT = "the reader wants one directory with one file for all weights and nothing else "


def weights(folder):
    return os.path.join(folder, "model.safetensors")


def as_stored():
    """The word for it changed with transformers 4.56."""
    import transformers

    version = tuple(map(int, transformers.__version__.split(".")[:2]))
    return {"dtype" if version >= (4, 56) else "torch_dtype": "auto"}


def load_adapter(folder):
    """With its base model from where adapter_config.json says. (AutoPeftModel also loads the
    tokenizer: transformers 4 refuses those that 5 has written, and trlx's has one token more than
    the model, for which it would grow.)"""
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM

    base = PeftConfig.from_pretrained(folder).base_model_name_or_path
    model = AutoModelForCausalLM.from_pretrained(base, **as_stored())
    return PeftModel.from_pretrained(model, folder)


def logits(model):
    import torch

    with torch.no_grad():
        return model(input_ids=PROBE).logits


def read_transformers(folder):
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, **as_stored()
    )
    assert not any(report.values()), report
    return {k: v.clone() for k, v in model.state_dict().items()} | {"": logits(model)}


def read_adapter(folder):
    from peft import get_peft_model_state_dict

    model = load_adapter(folder)
    return get_peft_model_state_dict(model) | {"": logits(model)}


def value_head(state):
    """trlx's (two layers), or that of TRL and LLaMA-Factory."""
    import torch

    def layer(name):
        made = torch.nn.Linear(*reversed(state[name + ".weight"].shape))
        made.load_state_dict({k: state[f"{name}.{k}"] for k in ("weight", "bias")})
        return made

    if "summary.weight" in state:
        return layer("summary")
    return torch.nn.Sequential(layer("0"), torch.nn.ReLU(), layer("2"))


def read_critic(folder):
    """A language model or an adapter, and in v_head/ a head for its last hidden states."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    if os.path.exists(os.path.join(folder, "adapter_config.json")):
        model = load_adapter(folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, **as_stored())
    head = value_head(load_file(weights(os.path.join(folder, "v_head"))))
    with torch.no_grad():
        out = model(input_ids=PROBE, output_hidden_states=True)
        return {"": out.logits, "value": head(out.hidden_states[-1]).squeeze(-1)}


def read_pipeline(folder):
    """Model, tokenizer and generation config together (transformers 4 refuses the tokenizers
    that transformers 5 has written)."""
    import torch
    from transformers import pipeline

    generate = pipeline("text-generation", model=folder, device="cpu")
    text = generate(TEXT, max_new_tokens=12, do_sample=False)[0]["generated_text"]
    return {"": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}


def read_load_file(folder):
    from safetensors.torch import load_file

    return load_file(weights(folder))


def read_safe_open(folder):
    """Whole tensors, and rows of them."""
    from safetensors import safe_open

    with safe_open(weights(folder), "pt") as f:
        assert f.metadata() == {"format": "pt"}
        tensors = {name: f.get_tensor(name) for name in f.keys()}
        for name in list(tensors):
            rows = f.get_slice(name)[1:7]
            tensors[name + "[1:7]"] = rows.clone()
    return tensors


def read_fastsafetensors(folder):
    """O_DIRECT and a second thread."""
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    loader = SafeTensorsFileLoader(SingleGroup(), "cpu", nogds=True)
    loader.add_filenames({0: [weights(folder)]})
    buffers = loader.copy_files_to_device()
    try:
        return {name: buffers.get_tensor(name).clone() for name in loader.get_keys()}
    finally:
        buffers.close()
        loader.close()


def read_runai(folder):
    """O_DIRECT and io_uring."""
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_file(weights(folder))
        return {name: tensor.clone() for name, tensor in streamer.get_tensors()}


def read_gguf(folder):
    """The reader of llama.cpp's conversion: byte ranges of the mapped file."""
    from pathlib import Path

    import torch
    from gguf.utility import SafetensorsLocal

    tensors = SafetensorsLocal(Path(weights(folder))).tensors
    return {k: torch.from_numpy(v.mmap_bytes()).clone() for k, v in tensors.items()}


def read_peft(folder):
    """The directory as the base of an adapter, merged into it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    return dict(get_peft_model(model, config).merge_and_unload().state_dict())


def make_tokenizer(out):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 8),
        model_prefix=os.path.join(out, "tokenizer"),
        vocab_size=300,
        hard_vocab_limit=False,
        byte_fallback=True,
        minloglevel=2,
    )


def main(what, out, *folders):
    from safetensors.torch import save_file

    read = globals()["read_" + what]
    for i, folder in enumerate(folders):
        tensors = {name: t.contiguous().clone() for name, t in read(folder).items()}
        save_file(tensors, os.path.join(out, f"{i}.safetensors"))


if __name__ == "__main__":
    try:
        if sys.argv[1] == "tokenizer":
            make_tokenizer(sys.argv[2])
        else:
            main(*sys.argv[1:])
    except ModuleNotFoundError as e:
        print(e)
        sys.exit(77)
