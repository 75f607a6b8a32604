# SPDX-License-Identifier: Apache-2.0
"""Damage to the archive that torch.save writes: its directory says something that isn't so.

Also the one writer of such archives in plain Python, for those whose pickle has been changed.
"""

import struct
import zipfile

CENTRAL = b"PK\1\2"
LOCAL = b"PK\3\4"
END64 = b"PK\6\6"
ALIGNMENT = 64

# Offsets in a central directory entry, and in the zip64 end record
FLAGS, METHOD, COMPRESSED, SIZE, NAME_LENGTH, HEADER = 8, 10, 20, 24, 28, 42
END64_COUNT, END64_DIR_SIZE, END64_DIR = 32, 40, 48


def read_records(path):
    """[(name, bytes)] in file order, names with their leading directory."""
    with zipfile.ZipFile(path) as z:
        infos = sorted(z.infolist(), key=lambda i: i.header_offset)
        return [(i.filename, z.read(i)) for i in infos]


def write_records(path, records):
    """The archive as torch lays it out: stored, sizes in the directory only, aligned payloads."""
    data, directory = bytearray(), bytearray()
    for name, content in records:
        raw = name.encode()
        at = len(data)
        flags = 0x0808 if content else 0x0800  # an empty record has no data descriptor
        pad = -(at + 30 + len(raw) + 4) % ALIGNMENT
        data += struct.pack("<4s5H3I2H", LOCAL, 0, flags, 0, 0, 0, 0, 0, 0, len(raw), 4 + pad)
        data += raw + struct.pack("<2H", 0x4246, pad) + b"Z" * pad + content
        if content:
            data += struct.pack("<4s3I", b"PK\7\10", 0, len(content), len(content))
        directory += struct.pack(
            "<4s6H3I5H2I", CENTRAL, 0, 0, flags, 0, 0, 0, 0, len(content), len(content),
            len(raw), 0, 0, 0, 0, 0, at,
        ) + raw  # fmt: skip
    n, start, size = len(records), len(data), len(directory)
    end = struct.pack("<4sQ2H2I4Q", END64, 44, 0, 45, 0, 0, n, n, size, start)
    end += struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1)
    end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, n & 0xFFFF, n & 0xFFFF, size, start, 0)
    with open(path, "wb") as f:
        f.write(data + directory + end)


class Archive:
    """The bytes of a file, with the places of its directory entries."""

    def __init__(self, path, target=-1):
        self.target = target
        with open(path, "rb") as f:
            self.data = bytearray(f.read())
        self.end64 = self.data.rindex(END64)
        self.entries = {}
        at = self.u64(self.end64 + END64_DIR)
        for _ in range(self.u64(self.end64 + END64_COUNT)):
            assert self.data[at : at + 4] == CENTRAL
            name_len, extra, comment = struct.unpack_from("<3H", self.data, at + NAME_LENGTH)
            name = self.data[at + 46 : at + 46 + name_len].decode()
            self.entries[name.split("/", 1)[1]] = at
            at += 46 + name_len + extra + comment

    def u64(self, at):
        return struct.unpack_from("<Q", self.data, at)[0]

    def u32(self, at):
        return struct.unpack_from("<I", self.data, at)[0]

    def set16(self, at, value):
        struct.pack_into("<H", self.data, at, value)

    def set32(self, at, value):
        struct.pack_into("<I", self.data, at, value)

    def set64(self, at, value):
        struct.pack_into("<Q", self.data, at, value)

    def name_at(self, entry):
        length = struct.unpack_from("<H", self.data, entry + NAME_LENGTH)[0]
        return slice(entry + 46, entry + 46 + length)

    def largest(self):
        """Entry of the record with the most bytes. Of several, in the order of the pickle, the
        target: in optimizer files Adam's moments are the first ones, the masters the last."""
        records = [at for name, at in self.entries.items() if name.startswith("data/")]
        most = max(self.u32(at + SIZE) for at in records)
        return [at for at in records if self.u32(at + SIZE) == most][self.target]

    def set_size(self, entry, size):
        self.set32(entry + COMPRESSED, size)
        self.set32(entry + SIZE, size)


def edit(change, target=-1):
    def apply(path):
        archive = Archive(path, target)
        change(archive)
        with open(path, "wb") as f:
            f.write(archive.data)

    return apply


def past_the_end(a):
    a.set32(a.largest() + HEADER, len(a.data) - 40)


def far_past_the_end(a):
    a.set32(a.largest() + HEADER, 0xFFFFFFF0)


def into_the_directory(a):
    a.set32(a.largest() + HEADER, a.u64(a.end64 + END64_DIR))


def overlap(a):
    """The largest record claims the bytes of the pickle too."""
    a.set32(a.largest() + HEADER, a.u32(a.entries["data.pkl"] + HEADER))


def too_long(a):
    a.set_size(a.largest(), len(a.data))


def huge(a):
    a.set_size(a.largest(), 0xFFFFFFFE)


def too_short(a):
    a.set_size(a.largest(), 8)


def pickle_too_long(a):
    a.set_size(a.entries["data.pkl"], len(a.data))


def no_pickle(a):
    name = a.name_at(a.entries["data.pkl"])
    a.data[name] = a.data[name].replace(b"data.pkl", b"data.pkx")


def no_storage(a):
    name = a.name_at(a.largest())
    a.data[name] = a.data[name].replace(b"/data/", b"/atad/")


def count_too_big(a):
    a.set64(a.end64 + END64_COUNT, 2**40)


def count_too_small(a):
    a.set64(a.end64 + END64_COUNT, 2)


def directory_past_the_end(a):
    a.set64(a.end64 + END64_DIR, 2**63 + 1)


def directory_size_huge(a):
    a.set64(a.end64 + END64_DIR_SIZE, 2**64 - 1)


def name_too_long(a):
    a.set16(a.largest() + NAME_LENGTH, 0xFFFF)


def extra_too_long(a):
    """The local header's extra field: the payload would start behind the end of the file."""
    header = a.u32(a.largest() + HEADER)
    a.set16(header + 28, 0xFFFF)
    a.set_size(a.largest(), len(a.data) - header)


def encrypted(a):
    a.set16(a.largest() + FLAGS, 0x0809)


def method_unknown(a):
    a.set16(a.largest() + METHOD, 99)


def local_header_gone(a):
    header = a.u32(a.largest() + HEADER)
    a.data[header : header + 4] = bytes(4)


def directory_gone(a):
    at = a.entries["data.pkl"]
    a.data[at : at + 4] = bytes(4)


def recompress(path):
    """Somebody unpacked the file and packed it again. torch reads it, byte offsets don't exist."""
    records = read_records(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in records:
            z.writestr(name, content)


def restore(path):
    """Packed again, but stored: other offsets, sizes in local headers, no zip64 end. All fine."""
    records = read_records(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        for name, content in records:
            z.writestr(name, content)


def rewrite(path):
    """By write_records: nothing is wrong with the result."""
    write_records(path, read_records(path))


def duplicate_pickle(path):
    """Which of the two would be read?"""
    records = read_records(path)
    write_records(path, records + [r for r in records if r[0].endswith("/data.pkl")])


def duplicate_storage(path):
    records = read_records(path)
    name, content = max(records, key=lambda r: len(r[1]) if "/data/" in r[0] else 0)
    write_records(path, [*records, (name, bytes(len(content)))])


def script_module(path):
    records = read_records(path)
    top = records[0][0].split("/")[0]
    write_records(path, [*records, (f"{top}/constants.pkl", b"\x80\x02).")])


WAYS = {
    "recompressed": recompress,
    "restored": restore,
    "rewritten": rewrite,
    "script_module": script_module,
    "duplicate_pickle": duplicate_pickle,
    "duplicate_storage": duplicate_storage,
    **{
        change.__name__: edit(change)
        for change in (
            past_the_end, far_past_the_end, into_the_directory, overlap, too_long, huge, too_short,
            pickle_too_long, no_pickle, no_storage,
            count_too_big, count_too_small, directory_past_the_end, directory_size_huge,
            name_too_long, extra_too_long, encrypted, method_unknown, local_header_gone,
            directory_gone,
        )
    },
}  # fmt: skip

# Damage to a record that nothing is served from; it may be noticed as long as it is cheap
MOMENTS = {
    change.__name__: edit(change, target=0) for change in (too_short, no_storage, local_header_gone)
}

# What isn't plainly damage: exit codes that are fine (else 1)
CODES = {"restored": (0,), "rewritten": (0,), "recompressed": (0, 1, 2), "script_module": (0, 1, 2)}

# These change the largest storage record; in a file whose records are all empty that's harmless
IN_STORAGE = {
    "past_the_end", "far_past_the_end", "into_the_directory", "overlap", "too_long", "huge",
    "too_short", "no_storage", "name_too_long", "extra_too_long", "encrypted", "method_unknown",
    "local_header_gone", "duplicate_storage",
}  # fmt: skip
