# SPDX-License-Identifier: Apache-2.0
"""What the sparse checkpoints have in common: as large as they like, and mostly holes.

Archives and pickles are as torch writes them. Here and there in the holes lie windows of known
values, so that a reader who looks in the wrong place doesn't find the right zeros.
"""

import io
import math
import pickle
import struct
from array import array
from collections import OrderedDict
from dataclasses import dataclass

import torch

FAR = 0xFFFFFFFF  # from here on zip needs 64 bits


# ---------------------------------------------------------------- the archive


class Archive:
    """A file of torch.save whose payloads are holes of the given sizes. `parts` are the other
    bytes and their offsets, `starts` where each hole begins, `size` where the archive ends."""

    def __init__(self, top, content, holes):
        self.top, self.size = top, 0
        self.parts, self.starts = [(0, bytearray())], []
        self.directory, self.count = b"", 0
        self.record("data.pkl", len(content), content)
        self.record(".format_version", 1, b"1")
        self.record(".storage_alignment", 2, b"64")
        self.record("byteorder", 6, b"little")
        for i, size in enumerate(holes):
            self.starts.append(self.record(f"data/{i}", size))
        self.record("version", 2, b"3\n")
        self.record(".data/serialization_id", 40, b"0" * 40)
        self.finish()

    def write(self, file, base=0):
        for at, part in self.parts:
            file.seek(base + at)
            file.write(part)

    def put(self, raw):
        self.parts[-1][1].extend(raw)
        self.size += len(raw)

    def skip(self, size):
        self.size += size
        self.parts.append((self.size, bytearray()))

    def record(self, name, size, content=None):
        """Appends a record and returns where its payload starts."""
        raw = f"{self.top}/{name}".encode()
        big, far = size >= FAR, self.size >= FAR
        flags = 0x0808 if size else 0x0800  # sizes follow the payload, if there is one
        self.count += 1
        self.directory += self.entry(raw, size, flags, big, far)

        extra = zip64_extra([size, 0] * big + [self.size] * far)
        pad = -(self.size + 30 + len(raw) + len(extra) + 4) % 64
        extra += struct.pack("<2H", 0x4246, pad) + b"Z" * pad
        fields = (b"PK\3\4", 0, flags, 0, 0, 0, 0, 0, 0, len(raw), len(extra))
        self.put(struct.pack("<4s5H3I2H", *fields) + raw + extra)
        start = self.size
        if content:
            self.put(content)
        elif size:
            self.skip(size)
        if size:
            form = "<4sIQQ" if big or far else "<4sIII"
            self.put(struct.pack(form, b"PK\7\10", 0, size, size))
        return start

    def entry(self, raw, size, flags, big, far):
        extra = zip64_extra([size, size] * big + [self.size] * far)
        shown = FAR if big else size
        sizes = (0, shown, shown, len(raw), len(extra), 0, 0, 0, 0, FAR if far else self.size)
        head = struct.pack("<4s6H3I5H2I", b"PK\1\2", 0, 0, flags, 0, 0, 0, *sizes)
        return head + raw + extra

    def finish(self):
        n, size, at = self.count, len(self.directory), self.size
        end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 0, 45, 0, 0, n, n, size, at)
        end += struct.pack("<4sIQI", b"PK\6\7", 0, at + size, 1)
        short = (min(n, 0xFFFF), min(n, 0xFFFF), size, min(at, FAR), 0)
        end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *short)
        self.put(self.directory + end)


def zip64_extra(values):
    if not values:
        return b""
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


# ---------------------------------------------------------------- the pickle


@dataclass
class Storage:
    kind: type
    key: int
    numel: int


class Tensor:
    """Pickles as a whole contiguous tensor of a storage that only the archive knows."""

    def __init__(self, storage, shape):
        stride, step = [], 1
        for n in reversed(shape):
            stride.insert(0, step)
            step *= max(n, 1)
        self.args = (storage, 0, tuple(shape), tuple(stride), False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.args


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", obj.kind, str(obj.key), "cpu", obj.numel)
        return None


def pickled(obj):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(obj)
    return buffer.getvalue()


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    inter: int
    kv: int
    vocab: int
    ranks: int

    def params(self):
        """name -> shape, in the model's order"""
        h, kv, inter = self.hidden, self.kv, self.inter
        layer = {
            "self_attn.q_proj": (h, h),
            "self_attn.k_proj": (kv, h),
            "self_attn.v_proj": (kv, h),
            "self_attn.o_proj": (h, h),
            "mlp.gate_proj": (inter, h),
            "mlp.up_proj": (inter, h),
            "mlp.down_proj": (h, inter),
            "input_layernorm": (h,),
            "post_attention_layernorm": (h,),
        }
        result = {"model.embed_tokens.weight": (self.vocab, h)}
        for i in range(self.layers):
            result |= {f"model.layers.{i}.{n}.weight": shape for n, shape in layer.items()}
        return result | {"model.norm.weight": (h,), "lm_head.weight": (self.vocab, h)}

    def config(self):
        return {
            "architectures": ["LlamaForCausalLM"],
            "dtype": "bfloat16",
            "hidden_size": self.hidden,
            "intermediate_size": self.inter,
            "model_type": "llama",
            "num_attention_heads": self.hidden // 128,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv // 128,
            "tie_word_embeddings": False,
            "vocab_size": self.vocab,
        }


# ---------------------------------------------------------------- the windows


def pattern(tensor, element):
    """The 32 bits of an element: a finite float that names its place, and must be rounded."""
    x = (tensor << 40 ^ element) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
    x = (x ^ x >> 29) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    x ^= x >> 32
    exponent = 64 + (x >> 8) % 128
    return (x & 0x807FFFFF) | exponent << 23


def rounded(bits):
    """float32 to bfloat16, to nearest, ties to even."""
    return bits + 0x7FFF + (bits >> 16 & 1) >> 16


@dataclass(frozen=True)
class Window:
    """Elements [begin, end) of a tensor, which lie in one rank's file at byte `at`."""

    tensor: int
    begin: int
    end: int
    rank: int
    at: int


class Layout:
    """Who holds what: each rank an equal share of every tensor, the last ones less or nothing."""

    def __init__(self, shape, whole_rows):
        self.shape = shape
        self.names = list(shape.params())
        self.sizes = list(shape.params().values())
        self.numels = [math.prod(size) for size in self.sizes]
        self.shares = []
        for size, numel in zip(self.sizes, self.numels, strict=True):
            unit = math.prod(size[1:]) if whole_rows else 1
            self.shares.append(-(-(numel // unit) // shape.ranks) * unit)

    def share(self, tensor, rank):
        """Elements of a tensor that a rank holds: [first, last)."""
        share, numel = self.shares[tensor], self.numels[tensor]
        return min(rank * share, numel), min((rank + 1) * share, numel)

    def windows(self, rank, starts, length=512):
        """Both edges and the inside of a share: the first tensor, the last two, and every rank its
        own choice of layers. starts: by tensor, the byte where the rank's share begins."""
        count = len(self.names)
        chosen = {
            0,
            count - 1,
            count - 2,
            1 + rank * 13 % (count - 3),
            1 + rank * 131 % (count - 3),
        }
        for tensor in sorted(chosen):
            first, last = self.share(tensor, rank)
            size = last - first
            for begin in sorted({0, size // 3, max(0, size - length)}):
                end = min(begin + length, size)
                if end > begin:
                    at = starts[tensor] + 4 * begin
                    yield Window(tensor, first + begin, first + end, rank, at)


def fill(file, windows):
    for w in windows:
        file.seek(w.at)
        file.write(array("I", [pattern(w.tensor, e) for e in range(w.begin, w.end)]))
