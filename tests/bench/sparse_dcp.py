# SPDX-License-Identifier: Apache-2.0
"""A DCP checkpoint of FSDP2 of any size that takes little disk. Served as stored, in float32.

Every item is an archive of its own, some 1.5 kB beside its weights, so what it takes on disk grows
with tensors and ranks: 3 GB for Llama 405B on 512 ranks. The metadata are pickled from torch's own
classes. Each rank's file begins with the state of its data loader, as real ones do, though a big
one: it moves the last weights of a 405B model on 512 ranks past 2**32.
"""

import gc
import os
import pickle
from functools import cache

import torch
from sparse import Archive, Layout, Shape, Storage, Tensor, fill, pickled
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

LLAMA_405B = Shape(layers=126, hidden=16384, inter=53248, kv=1024, vocab=128256, ranks=512)
LOADER_SIZE = 1_500_000_000


@cache
def item(kind, width, size):
    """What one tensor takes in a rank's file; the same for all of this shape."""
    numel = torch.Size(size).numel()
    return Archive("archive", pickled(Tensor(Storage(kind, 0, numel), size)), [width * numel])


class Rank:
    """Writes one rank's file, and what the metadata say of it."""

    def __init__(self, folder, rank, metadata):
        self.path, self.metadata = f"__{rank}_0.distcp", metadata
        self.file = open(os.path.join(folder, self.path), "wb")
        self.size = 0

    def add(self, index, archive):
        """Returns where the item's payload starts."""
        archive.write(self.file, self.size)
        at, self.size = self.size, self.size + archive.size
        self.metadata.storage_data[index] = _StorageInfo(self.path, at, archive.size)
        return at + archive.starts[0]

    def add_loader(self, rank):
        name = f"dataloader.rank_{rank}"
        self.metadata.state_dict_metadata[name] = BytesStorageMetadata()
        self.metadata.planner_data[name] = ("dataloader", f"rank_{rank}")
        self.add(MetadataIndex(name), item(torch.ByteStorage, 1, (LOADER_SIZE,)))

    def add_tensor(self, layout, tensor, rank):
        first, last = layout.share(tensor, rank)
        rows, *rest = layout.sizes[tensor]
        row = layout.numels[tensor] // rows
        offsets = torch.Size([first // row, *(0 for _ in rest)])
        sizes = torch.Size([(last - first) // row, *rest])
        name = f"model.{layout.names[tensor]}"  # each rank sends its own copy
        chunks = self.metadata.state_dict_metadata[name].chunks
        chunks.append(ChunkStorageMetadata(offsets, sizes))
        return self.add(
            MetadataIndex(name, offsets, rank), item(torch.FloatStorage, 4, tuple(sizes))
        )


def empty_metadata(layout):
    metadata = Metadata(
        state_dict_metadata={},
        planner_data={},
        storage_data={},
        storage_meta=StorageMeta(save_id="0"),
        version="1.0.0",
    )
    for name, size in zip(layout.names, layout.sizes, strict=True):
        metadata.planner_data[f"model.{name}"] = ("model", name)
        metadata.state_dict_metadata[f"model.{name}"] = TensorStorageMetadata(
            TensorProperties(dtype=torch.float32), torch.Size(size), []
        )
    return metadata


def make_checkpoint(folder, shape):
    """Writes it and returns (layout, windows)."""
    layout = Layout(shape, whole_rows=True)
    os.makedirs(folder)
    windows = []
    gc.disable()  # it would look at millions of objects again and again
    metadata = empty_metadata(layout)
    for number in range(shape.ranks):
        rank = Rank(folder, number, metadata)
        rank.add_loader(number)
        starts = [rank.add_tensor(layout, t, number) for t in range(len(layout.names))]
        mine = list(layout.windows(number, starts))
        with rank.file:
            fill(rank.file, mine)
        windows += mine
    with open(os.path.join(folder, ".metadata"), "wb") as f:
        pickle.dump(metadata, f)
    gc.enable()
    return layout, windows
