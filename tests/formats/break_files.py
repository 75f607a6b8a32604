# SPDX-License-Identifier: Apache-2.0
"""Damage to files as a whole: absent, cut short, replaced, in the wrong place."""

import os
import random
import shutil


def ranks_in(tag, kinds=("model_states", "optim_states")):
    """(rank, path) of every per-rank file."""
    for name in sorted(os.listdir(tag)):
        if "zero_pp_rank_" in name and any(kind in name for kind in kinds):
            yield int(name.split("pp_rank_")[1].split("_")[0]), os.path.join(tag, name)


def with_rank(path, rank):
    head, tail = path.rsplit("pp_rank_", 1)
    return f"{head}pp_rank_{rank}_{tail.split('_', 1)[1]}"


# ---------------------------------------------------------------- which files there are


def remove_ranks(*ranks):
    def apply(root, tag):
        for rank, path in ranks_in(tag):
            if rank in ranks:
                os.unlink(path)

    return apply


def remove_matching(part):
    def apply(root, tag):
        for name in os.listdir(tag):
            if part in name:
                os.unlink(os.path.join(tag, name))

    return apply


def copy_rank(old, *new):
    """Files that an earlier run with more ranks has left."""

    def apply(root, tag):
        for rank, path in list(ranks_in(tag)):
            if rank == old:
                for n in new:
                    shutil.copy2(path, with_rank(path, n))

    return apply


def swap_ranks(a, b):
    def apply(root, tag):
        for rank, path in list(ranks_in(tag, ["optim_states"])):
            if rank == a:
                other = with_rank(path, b)
                os.rename(path, path + ".tmp")
                os.rename(other, path)
                os.rename(path + ".tmp", other)

    return apply


def rename_tag(new):
    return lambda root, tag: os.rename(tag, os.path.join(root, new))


def mix_tags(other, rank, *kinds):
    """One rank's files come from another step: a node that didn't get to write."""

    def apply(root, tag):
        for r, path in list(ranks_in(tag, kinds or ["model_states", "optim_states"])):
            if r == rank:
                shutil.copy2(os.path.join(root, other, os.path.basename(path)), path)

    return apply


# ---------------------------------------------------------------- one file


def cut(length):
    """Keeps so many bytes; a fraction is of the whole, a negative number counts from the end."""

    def apply(path):
        size = os.path.getsize(path)
        keep = int(size * length) if isinstance(length, float) else length
        os.truncate(path, keep if keep >= 0 else size + keep)

    return apply


def overwrite(content):
    """content(size) -> the new bytes."""

    def apply(path):
        data = content(os.path.getsize(path))
        with open(path, "wb") as f:
            f.write(data)

    return apply


def zeros_in_the_middle(path):
    """A block that never reached the disk: where the directory of the archive was."""
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        f.seek(size * 3 // 4)
        f.write(bytes(size - size * 3 // 4))


def as_directory(path):
    os.unlink(path)
    os.mkdir(path)


def as_fifo(path):
    os.unlink(path)
    os.mkfifo(path)


def as_dangling_link(path):
    os.unlink(path)
    os.symlink("nowhere.pt", path)


def as_own_link(path):
    os.unlink(path)
    os.symlink(os.path.basename(path), path)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 388000000\n" % (b"0" * 64)

WAYS = {
    "empty": cut(0),
    "one_byte": cut(1),
    "four_bytes": cut(4),
    "quarter": cut(0.25),
    "half": cut(0.5),
    "most": cut(0.95),
    "short_by_one": cut(-1),
    "short_by_22": cut(-22),
    "garbage": overwrite(lambda size: random.Random(3).randbytes(size)),
    "zeros": overwrite(bytes),
    "magic_only": overwrite(lambda size: b"PK\3\4" + bytes(size - 4)),
    "html": overwrite(lambda size: b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n"),
    "lfs_pointer": overwrite(lambda size: LFS),
    "zeros_at_the_end": zeros_in_the_middle,
    "directory": as_directory,
    "fifo": as_fifo,
    "dangling": as_dangling_link,
    "own_link": as_own_link,
}


def move_outside(path):
    """A link out of SOURCE isn't followed unless asked for."""
    tag, name = os.path.split(path)
    outside = os.path.dirname(tag) + ".outside"
    os.mkdir(outside)
    os.rename(path, os.path.join(outside, name))
    os.symlink(os.path.join(outside, name), path)


# ---------------------------------------------------------------- `latest`


def write_latest(content):
    def apply(root, tag):
        with open(os.path.join(root, "latest"), "wb") as f:
            f.write(content)

    return apply


def latest_escapes(root, tag):
    """`latest` names a directory that exists, but not in SOURCE."""
    outside = str(root) + ".outside"
    os.rename(tag, outside)
    with open(os.path.join(root, "latest"), "w") as f:
        f.write("../" + os.path.basename(outside))
