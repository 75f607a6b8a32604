# SPDX-License-Identifier: Apache-2.0
"""A small but real tokenizer, trained here so that no model has to be downloaded."""

TEXT = """
a checkpoint of a large model is written by many ranks and every rank holds one part of each
weight the reader wants one directory with one file for all weights a config and a tokenizer and
nothing else so somebody gathers the parts copies them into a second file waits an hour and
fills another disk a virtual file needs no second disk because its header is computed once and
its bytes are found on demand each tensor is a list of pieces and each piece names a source an
offset and a length in that source reading a range means finding the segments that cover it and
asking every source for just those bytes the kernel keeps the pages that were read and the next
process gets them without asking anyone again a missing rank a truncated file or a changed byte
is reported by name and never served as a weight the quick brown fox jumps over the lazy dog
while seven wizards mix a box of boiling liquid jugs training goes on for weeks checkpoints come
every hour and only the newest few of them are ever kept
"""
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]  # ids 0, 1, 2, 3: what the tiny models' configs name
CHAT_TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)


def make_tokenizer(vocab_size):
    """A byte-pair tokenizer with exactly `vocab_size` entries and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, min_frequency=1, show_progress=False
    )
    tok.train_from_iterator(TEXT.strip().splitlines(), trainer)
    assert tok.get_vocab_size() == vocab_size, tok.get_vocab_size()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
