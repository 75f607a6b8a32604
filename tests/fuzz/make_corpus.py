#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds in tests/fuzz/corpus from tiny files of the real libraries.

    python tests/fuzz/make_corpus.py        needs torch and safetensors

Names of seeds say what is special about them. Inputs that a fuzzer found are added by hand
and are not touched.
"""
import collections
import io
import json
import pathlib
import pickle
import struct
import tempfile
import zipfile

import torch
from safetensors.torch import save

HERE = pathlib.Path(__file__).parent / 'corpus'


def put(target, name, data):
    path = HERE / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def torch_bytes(value, **kwargs):
    out = io.BytesIO()
    torch.save(value, out, **kwargs)
    return out.getvalue()


def state_dict():
    base = torch.arange(12, dtype=torch.float32)
    state = collections.OrderedDict()
    state['w'] = base.view(3, 4)
    state['w.t'] = base.view(3, 4).t()[1:, ::2]
    state['step'] = torch.tensor(7)
    state['empty'] = torch.zeros(0, dtype=torch.bfloat16)
    return state


def newer():
    param = torch.nn.Parameter(torch.ones(2, dtype=torch.float16))
    tagged = torch.ones(2)
    tagged.tag = 'x'
    return {
        'f8': torch.ones(3).to(torch.float8_e4m3fn),
        'u16': torch.ones(3).to(torch.uint16),
        'param': param,
        'tagged': tagged,
        'conj': torch.ones(2, dtype=torch.complex64).conj(),
        'neg': torch.ones(2, dtype=torch.complex64).conj().imag,
        'meta': torch.zeros(3, device='meta'),
        'sparse': torch.eye(2).to_sparse(),
    }


def odd_values():
    return [None, True, False, 0, 300, -1, 2**40, -2**70, 1.5, 'text', '\ud800', 'n\0l', b'bytes',
            (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {'k': [1, 2]}, {1, 2}, frozenset([3]),
            slice(1, 2), bytearray(b'x'), torch.Size([2, 3]), torch.float16,
            collections.OrderedDict(a=1), collections.defaultdict(list, b=[2])]


def rezipped(data, method):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w', method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out.getvalue()


def torch_seeds():
    plain = torch_bytes(state_dict())
    seeds = {
        'plain': plain,
        'newer': torch_bytes(newer()),
        'protocol4': torch_bytes(state_dict(), pickle_protocol=4),
        'odd': torch_bytes({'state_dict': state_dict(), 'odd': odd_values()}),
        'stored': rezipped(plain, zipfile.ZIP_STORED),
        'deflated': rezipped(plain, zipfile.ZIP_DEFLATED),
        'comment': plain[:-2] + struct.pack('<H', 5) + b'hello',
        'cut': plain[:-1],
        'headless': plain[300:],
    }
    for name, data in seeds.items():
        put('zip', name, data)
        put('torch', name, data)
    put('torch', 'legacy', torch_bytes(state_dict(), _use_new_zipfile_serialization=False))
    put('torch', 'legacy4', torch_bytes(state_dict(), _use_new_zipfile_serialization=False,
                                        pickle_protocol=4))
    put('torch', 'legacy_module', torch_bytes(torch.nn.Linear(1, 1),
                                              _use_new_zipfile_serialization=False))
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), out)
    put('zip', 'torchscript', out.getvalue())
    for name in ('plain', 'newer', 'protocol4', 'odd'):
        with zipfile.ZipFile(io.BytesIO(seeds[name])) as archive:
            put('pickle', 'data_' + name, archive.read('archive/data.pkl'))


def dcp_seeds():
    import torch.distributed.checkpoint as dcp
    import torch.distributed.checkpoint.metadata as md
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    def chunked(fqn, size, cuts, **info):
        chunks = [md.ChunkStorageMetadata(torch.Size(o), torch.Size(s)) for o, s in cuts]
        tensor = md.TensorStorageMetadata(md.TensorProperties(torch.bfloat16), torch.Size(size),
                                          chunks)
        places = [_StorageInfo(f'__{i}_0.distcp', 0, 2000, **info) for i in range(len(chunks))]
        stored = {md.MetadataIndex(fqn, c.offsets, i): places[i] for i, c in enumerate(chunks)}
        return {fqn: tensor}, stored

    def metadata(parts, planner=None):
        return md.Metadata({k: v for a, _ in parts for k, v in a.items()}, planner,
                           {k: v for _, b in parts for k, v in b.items()})

    rows = chunked('model.w', (5, 2), [((0, 0), (3, 2)), ((3, 0), (2, 2)), ((5, 0), (0, 2))])
    columns = chunked('model.v', (2, 4), [((0, 0), (2, 1)), ((0, 1), (2, 3))])
    optim = chunked('optim.state.w', (2,), [((0,), (2,))])
    paths = {'model.w': ('model', 'w'), 'model.v': ('model', 'v'),
             'optim.state.w': ('optim', 'state', 'w')}
    zstd = chunked('w', (2,), [((0,), (2,))], transform_descriptors=['stream.zstd/1'])
    scalar = chunked('layers.0', (), [((), ())])
    for protocol in (2, 4):
        sharded = metadata([rows, columns, optim], paths)
        put('dcp', f'sharded{protocol}', pickle.dumps(sharded, protocol))
    put('dcp', 'flat', pickle.dumps(metadata([zstd, scalar])))
    put('dcp', 'outside', pickle.dumps(metadata([rows])).replace(b'__0_0.distcp', b'../../distcp'))
    with tempfile.TemporaryDirectory() as folder:
        state = {'model': {'a': torch.ones(2), 'n': 3},
                 'list': [torch.zeros(()), {'k': torch.ones(1)}]}
        dcp.save(state, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
        put('dcp', 'saved', (pathlib.Path(folder) / '.metadata').read_bytes())


def pickle_seeds():
    for protocol in range(1, 6):
        put('pickle', f'odd{protocol}', pickle.dumps(odd_values()[:22], protocol))
    loop = []
    loop.append(loop)
    put('pickle', 'cycle', pickle.dumps(loop, 2))
    put('pickle', 'bomb', b'N' + b'2\x86' * 100 + b'.')
    put('pickle', 'python2', b'\x80\x02}(U\x01aI5000000000\nU\x01bccollections\nOrderedDict\n'
                             b'(](](U\x01kK\x01eetRu.')
    put('pickle', 'objects', b'(K\x01im\nC\n(cm\nD\nK\x02o}U\x01xK\x03sbcm\nE\n)}\x92t.')


def safetensors_seeds():
    def entry(dtype, shape, begin, end, **more):
        return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end], **more}

    def header(value, data, pad=''):
        text = (value if isinstance(value, str) else json.dumps(value)) + pad
        put_bytes = bytes([data]) + struct.pack('<Q', len(text.encode())) + text.encode()
        return put_bytes

    tensors = {'b': torch.ones(2, 3), 'a': torch.zeros(3, dtype=torch.int8),
               'z': torch.zeros(0, dtype=torch.float16)}
    put('safetensors', 'saved', b'\0' + save(tensors, {'format': 'pt'}))
    put('safetensors', 'empty', header({}, 0))
    put('safetensors', 'metadata', header({'__metadata__': {'a': 'b', 'c': 'd'}}, 0, '  \n'))
    put('safetensors', 'null', header({'__metadata__': None}, 0))
    put('safetensors', 'f4', header({'a': entry('F4', [12], 0, 6)}, 6))
    put('safetensors', 'unordered', header({'a': entry('U8', [4], 4, 8),
                                            'b': entry('F32', [], 0, 4)}, 8))
    put('safetensors', 'extra', header({'a': entry('U8', [4], 0, 4, x={'y': [1.5e3, None, 's']})},
                                       4))
    put('safetensors', 'hole', header({'a': entry('U8', [4], 4, 8)}, 8))
    put('safetensors', 'escapes', header(
        r'{"__metadata__": {"\u0041\ud83d\ude00\n\"": "\\\/\b\f\r\t"}}', 0))


def json_seeds():
    put('json', 'config', json.dumps(
        {'dtype': 'float32', 'hidden_size': 8, 'rope': {'theta': 1e4, 'a': []},
         'architectures': ['A', 'B'], 'x': None, 'y': True}, indent=2).encode() + b'\n')
    put('json', 'compact', b'{"a":1,"dtype":"x","b":[1,2,{"dtype":3}]}')
    put('json', 'last', b'{"a": "\\u00e4\\"", "dtype": {"x": [[], {}]}}')
    put('json', 'only', b'{"dtype":-1.5e3}')
    put('json', 'empty', b' { } ')
    put('json', 'array', b'[1, "x", null]')


def live_message(kind, payload=b'', **fields):
    f = dict(flags=0, req=0, why=0, set=0, slot=0, step=0, seq=0, incarnation=7, bytes=0) | fields
    return struct.pack('<4sHHIIIIIIQQQQ', b'GFLV', 1, kind, 64 + len(payload), f['flags'], f['req'],
                       f['why'], f['set'], f['slot'], f['step'], f['seq'], f['incarnation'],
                       f['bytes']) + payload


def live_entry(name, shape, box=None, stride=None, flat=None, flags=0, dtype=b'F32', size=4,
               alias=0, at=0):
    """box = (local, first), flat = (offset, count)"""
    local, first = box or (shape, [0] * len(shape))
    count = flat[1] if flat else 0 if flags & 8 else 1
    for n in [] if flat or flags & 8 else local:
        count *= n
    if stride is None:
        stride = [1] * len(local)
        for i in range(len(local) - 2, -1, -1):
            stride[i] = stride[i + 1] * local[i + 1]
    nbytes = count * size
    if count and not flat:
        nbytes = (1 + sum((n - 1) * s for n, s in zip(local, stride))) * size

    def eight(values):
        return struct.pack('<8Q', *values, *[0] * (8 - len(values)))
    return struct.pack('<QII16sIIII', *name, flags, dtype, len(shape), alias, 0, 1) + eight(shape) \
        + eight(local) + eight(first) + eight(stride) \
        + struct.pack('<QQQQ48x', flat[0] if flat else 0, count, nbytes, at)


def live_control(entries, names, slot=1024, static=0, metrics=b''):
    at = 4096 + 384 * len(entries)
    head = struct.pack('<8sII16sQQIIIIQQQQQiI64s32s', b'GGFSLVE1', 1, 4096, b'r' * 16, 7,
                       at + len(names), 0, 2, 2, len(entries), slot, static, at, len(names), 1, 99,
                       384, b'job', b'fsdp2')
    return head.ljust(2048, b'\0') + metrics.ljust(2048, b'\0') + b''.join(entries) + names


def segment_seeds():
    put('segment', 'hello', live_message(1, flags=1, bytes=8192, step=3))
    put('segment', 'select', live_message(16, b'\xff\x01', req=9, slot=2))
    put('segment', 'arm', live_message(17, req=1, step=10))
    put('segment', 'ready', live_message(4, req=1, step=10, slot=1, seq=2, bytes=64, flags=1))
    put('segment', 'busy', live_message(6, req=1, why=7, bytes=64))
    put('segment', 'unknown', live_message(99))
    put('segment', 'empty-table', live_control([], b''))
    put('segment', 'table', live_control(
        [live_entry((0, 1), [4, 6], box=([2, 6], [2, 0])),
         live_entry((1, 2), [4, 6], flat=(3, 5), flags=3, dtype=b'BF16', size=2),
         live_entry((3, 1), [3, 2], stride=[1, 3], at=64),
         live_entry((4, 1), [], flags=4, dtype=b'I64', size=8, at=128),
         live_entry((5, 4), [4, 6], flags=8),
         live_entry((9, 1), [4, 6], flat=(24, 0), flags=1)], b'wflattbtiedx', static=64,
        metrics=struct.pack('<40sdQQ', b'loss', 0.5, 3, 2)))


if __name__ == '__main__':
    torch.manual_seed(0)
    torch_seeds()
    dcp_seeds()
    pickle_seeds()
    safetensors_seeds()
    json_seeds()
    segment_seeds()
