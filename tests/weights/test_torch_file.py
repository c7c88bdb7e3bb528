"""Files of torch.save: what is read, and what is refused; no code in them is run."""

import os
import struct
import time
import zipfile

import numpy as np
import pytest

from seg.errors import UserError
from seg.weights import torch_file
from seg.weights.tensor_file import DamagedFileError
from tests.weights.torch_files import ORDERED_DICT, Raw, Tensor, call, global_, pickled, whole, write_old, write_zip

RANDOM = np.random.default_rng(0)
BASE = RANDOM.normal(size=(4, 6)).astype(np.float32)
WRITERS = pytest.mark.parametrize('write', [write_zip, write_old])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'weights.pth')


@WRITERS
@pytest.mark.parametrize('dtype', ['f4', 'f8', 'f2', 'i8', 'i4', 'i2', 'i1', 'u1', '?'])
def test_types(path, write, dtype):
    values = (3 * RANDOM.normal(size=(2, 3, 4))).astype(dtype)
    write(path, {'a': values, 'scalar': values[0, 0, 0], 'empty': values[:0]})
    tensors = torch_file.read(path)
    assert list(tensors) == ['a', 'scalar', 'empty']
    for name, expected in {'a': values, 'scalar': values[0, 0, 0], 'empty': values[:0]}.items():
        assert tensors[name].dtype == expected.dtype and tensors[name].shape == expected.shape
        np.testing.assert_array_equal(tensors[name], expected)


@WRITERS
def test_bfloat16_becomes_float32(path, write):
    values = RANDOM.normal(size=(3, 5)).astype(np.float32)
    halves = values.view(np.uint32) >> 16
    write(path, {'a': Tensor(halves.astype(np.uint16), kind='BFloat16Storage')})
    tensors = torch_file.read(path)
    assert tensors['a'].dtype == np.float32
    np.testing.assert_array_equal(tensors['a'].view(np.uint32), halves << 16)
    np.testing.assert_allclose(tensors['a'], values, rtol=2**-7)


@WRITERS
def test_views_share_a_storage(path, write):
    views = {
        'whole': Tensor(BASE, key='7'),
        'transposed': Tensor(BASE, key='7', shape=(6, 4), strides=(1, 6)),
        'window': Tensor(BASE, key='7', offset=8, shape=(3, 3), strides=(6, 1)),
        'steps': Tensor(BASE, key='7', shape=(2, 2), strides=(12, 3), parameter=True),
    }
    write(path, views)
    expected = {'whole': BASE, 'transposed': BASE.T, 'window': BASE[1:, 2:5], 'steps': BASE[::2, ::3]}
    tensors = torch_file.read(path)
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value, name)
        assert not tensors[name].flags.writeable


def test_big_endian_file(path):
    write_zip(path, {'a': BASE}, order='>')
    np.testing.assert_array_equal(torch_file.read(path)['a'], BASE)
    assert torch_file.read(path)['a'].dtype == np.float32


def test_no_byte_order(path):
    """torch before 2.0 does not write it."""
    write_zip(path, {'a': BASE}, change=lambda records: records.pop('byteorder'))
    np.testing.assert_array_equal(torch_file.read(path)['a'], BASE)


@WRITERS
@pytest.mark.parametrize('wrapper', ['state_dict', 'model', 'model_state_dict'])
def test_wrapped_state_dict(path, write, wrapper):
    """What else a checkpoint of a training holds is left out, and so is the prefix of torch.nn.DataParallel."""
    state = {'module.a': Tensor(BASE), 'module.b': Tensor(BASE[0])}
    others = {'epoch': 3, 'lr': 0.1, 'name': 'run', 'done': None, 'steps': [1, (2, 3)]}
    write(path, {**others, wrapper: state, 'optimizer': {'momentum': Tensor(BASE)}})
    tensors = torch_file.read(path)
    assert list(tensors) == ['a', 'b']
    np.testing.assert_array_equal(tensors['b'], BASE[0])


def test_attributes_of_the_state_dict_are_ignored(path):
    """torch keeps `_metadata` on it, by the opcode that can set attributes."""
    state = Raw(pickled({'a': Tensor(BASE, key='0')}) + pickled({'_metadata': {'': {'version': 1}}}) + b'b')
    write_zip(path, state, change=lambda records: records.update({'data/0': BASE.tobytes()}))
    np.testing.assert_array_equal(torch_file.read(path)['a'], BASE)


def test_file_with_a_zip_at_its_end_is_still_an_old_one(path):
    mark = np.frombuffer(b'PK\x05\x06' + bytes(18), np.uint8)
    write_old(path, {'a': mark})
    assert zipfile.is_zipfile(path)
    np.testing.assert_array_equal(torch_file.read(path)['a'], mark)


CRAFTED = {
    'os.system': call(global_('os', 'system'), 'touch ran'),
    'posix.system': call(global_('posix', 'system'), 'touch ran'),
    'builtins.eval': call(global_('builtins', 'eval'), 'open("ran", "w")'),
    'builtins.getattr': call(global_('builtins', 'getattr'), ORDERED_DICT, 'fromkeys'),
    'collections.Counter': call(global_('collections', 'Counter')),
    'torch.nn.modules.linear.Linear': call(global_('torch.nn.modules.linear', 'Linear')),
    'torch.load': call(global_('torch', 'load'), 'ran'),
    'numpy.core.multiarray._reconstruct': global_('numpy.core.multiarray', '_reconstruct'),
    # By the opcodes that take names from the stack, make an object at once, or call a class in other ways.
    'os.popen': Raw(b'\x8c\x02os\x8c\x05popen\x93(X\x09\x00\x00\x00touch rantR'),
    'os.execl': Raw(b'(X\x03\x00\x00\x00ranios\nexecl\n'),
    'NEWOBJ': Raw(ORDERED_DICT + b')\x81'),
    'OBJ': Raw(b'(' + ORDERED_DICT + b'o'),
    'EXT1': Raw(b'\x82\x01'),
    'PERSID': Raw(b'Pos.system\n'),
}  # fmt: skip


@WRITERS
@pytest.mark.parametrize('name', CRAFTED)
def test_crafted_pickle(path, tmp_path, monkeypatch, write, name):
    """Refused by name; and the file was not run."""
    monkeypatch.chdir(tmp_path)
    write(path, {'a': Tensor(BASE), 'b': CRAFTED[name]})
    with pytest.raises(UserError) as info:
        torch_file.read(path)
    assert str(info.value).startswith(f'{path}: refused.') and name in str(info.value)
    assert 'torch.save(model.state_dict(), path)' in str(info.value)
    assert os.listdir(tmp_path) == ['weights.pth']


FLOATS = global_('torch', 'FloatStorage')
NONSENSE = {
    'call of a tensor': Raw(pickled(Tensor(BASE, key='0')) + b')R'),
    'call of a string': Raw(pickled('os.system') + pickled(('touch ran',)) + b'R'),
    'call of a storage class': call(global_('torch', 'FloatStorage')),
    'dict from arguments': call(ORDERED_DICT, [('a', 1)]),
    'tensor without a storage': call(global_('torch._utils', '_rebuild_tensor_v2'), 'x', 0, (1,), (1,)),
    'tensor of too few arguments': call(global_('torch._utils', '_rebuild_tensor_v2'), 'x'),
    'parameter without a tensor': call(global_('torch._utils', '_rebuild_parameter'), 3, False, None),
    'parameter of nothing': call(global_('torch._utils', '_rebuild_parameter')),
    'storage of another word': Raw(pickled(('module', FLOATS, '0', 'cpu', 1)) + b'Q'),
    'storage of a string': Raw(pickled(('storage', 'torch.FloatStorage', '0', 'cpu', 1)) + b'Q'),
    'storage of negative size': Raw(pickled(('storage', FLOATS, '0', 'cpu', -1)) + b'Q'),
    'storage with a view': Raw(pickled(('storage', FLOATS, '0', 'cpu', 1, ('1', 0, 1))) + b'Q'),
    'key that cannot be hashed': Raw(b'}' + pickled([]) + pickled(1) + b's'),
    'nested key': Raw(b'}' + b')' + b'\x85' * 100_000 + pickled(1) + b's'),
    'items for a list': Raw(b'](' + pickled('a') + pickled(1) + b'u'),
    'odd number of items': Raw(b'}(' + pickled('a') + b'u'),
    'nothing to get': Raw(b'h\x07'),
    'huge memo': Raw(b'Nr\xff\xff\xff\x7f'),
    'string longer than the file': Raw(b'X\xff\xff\xff\x7fab'),
    'huge string': Raw(b'\x8d' + struct.pack('<Q', 1 << 62) + b'ab'),
    'empty stack': Raw(b'00000'),
    'no mark': Raw(b't'),
    'unknown opcode': Raw(b'\xff'),
}  # fmt: skip


@WRITERS
@pytest.mark.parametrize('name', NONSENSE)
def test_nonsense_pickle(path, write, name):
    write(path, {'a': Tensor(BASE, key='0'), 'b': NONSENSE[name]})
    if name == 'huge memo':  # A number as any other: no table of that length is made.
        assert list(torch_file.read(path)) == ['a']
        return
    with pytest.raises(UserError, match='not a readable file of torch.save|refused'):
        torch_file.read(path)


WRONG_TENSORS = {
    'longer than its storage': {'shape': (5, 6), 'strides': (6, 1)},
    'beyond its storage by offset': {'offset': 1},
    'beyond its storage by stride': {'strides': (7, 1)},
    'expanded': {'shape': (1 << 40,), 'strides': (0,)},
    'huge': {'shape': (1 << 40, 1 << 40), 'strides': (1 << 40, 1)},
    'size of too many digits': {'shape': (1 << 80,), 'strides': (1,)},
    'negative size': {'shape': (-1,), 'strides': (1,)},
    'negative stride': {'strides': (-6, 1)},
    'negative offset': {'offset': -1},
    'more sizes than strides': {'strides': (6,)},
    'size that is no number': {'shape': ('4', 6), 'strides': (6, 1)},
    'size that is a truth': {'shape': (True, 6), 'strides': (6, 1)},
    'more axes than numpy has': {'shape': (1,) * 100, 'strides': (1,) * 100},
    'empty and huge': {'shape': (0, 1 << 61, 1 << 61), 'strides': (1, 1, 1)},
    'storage larger than said': {'size': 23, 'shape': (23,), 'strides': (1,)},
    'storage smaller than said': {'size': 25},
    'another type than said': {'kind': 'DoubleStorage'},
}


@WRITERS
@pytest.mark.parametrize('name', WRONG_TENSORS)
def test_wrong_tensor(path, write, name):
    write(path, {'a': Tensor(BASE, **WRONG_TENSORS[name])})
    with pytest.raises(DamagedFileError, match=f'^{path}: '):
        torch_file.read(path)


@pytest.mark.parametrize('write', [write_zip, write_old])
@pytest.mark.parametrize('share', [0.0, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_truncated_file(path, write, share):
    write(path, {f'layer{i}': RANDOM.normal(size=(8, 8)) for i in range(9)})
    with open(path, 'rb+') as file:
        file.truncate(int(os.path.getsize(path) * share))
    with pytest.raises(DamagedFileError, match=path):
        torch_file.read(path)


@WRITERS
def test_flipped_bytes(path, write):
    """Whatever a byte becomes, there are tensors or one message. The zip archive has checksums of its records."""
    write(path, {'a': Tensor(BASE), 'b': Tensor(BASE[0], parameter=True)})
    content = open(path, 'rb').read()
    for position in range(0, len(content), 2):
        with open(path, 'wb') as file:
            file.write(content[:position] + bytes([content[position] ^ 0x15]) + content[position + 1 :])
        try:
            tensors = torch_file.read(path)
        except UserError as error:
            assert path in str(error)
        else:
            assert all(value.size <= BASE.size for value in tensors.values()), position
            if write is write_zip:
                np.testing.assert_array_equal(tensors['a'], BASE, str(position))


@pytest.mark.parametrize(
    ('content', 'reason'),
    [(b'', 'neither layout'), (b'\x89HDF\r\n', 'neither layout'), (b'PK', 'zip'), (whole(3), 'neither layout')],
)
def test_other_files(path, content, reason):
    with open(path, 'wb') as file:
        file.write(content)
    with pytest.raises(DamagedFileError, match=reason):
        torch_file.read(path)


def test_missing_file(path):
    with pytest.raises(UserError, match="weights.pth' cannot be read: No such file"):
        torch_file.read(path)


def test_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / 'fifo.pth')
    for path, kind in ((tmp_path / 'fifo.pth', 'a FIFO'), (tmp_path, 'a folder'), ('/dev/zero', 'a device')):
        with pytest.raises(UserError, match=f'{str(path)!r} is {kind}'):
            torch_file.read(str(path))


@WRITERS
def test_long_shape_costs_no_time(path, write):
    """The product of 100,000 sizes has millions of digits: their number is bounded before."""
    write(path, {'a': Tensor(BASE, shape=(1 << 61,) * 100_000, strides=(1,) * 100_000)})
    begin = time.process_time()
    with pytest.raises(DamagedFileError, match='100000 axes') as info:
        torch_file.read(path)
    assert time.process_time() - begin < 3 and len(str(info.value)) < 400


@WRITERS
def test_messages_are_bounded(path, write):
    write(path, {'a' * 100_000: Tensor(BASE, shape=(1 << 61,) * 64, strides=(1 << 61,) * 64)})
    with pytest.raises(DamagedFileError, match="'aaa.*does not fit its storage of 24 elements") as info:
        torch_file.read(path)
    assert len(str(info.value)) < 600
    write(path, {'a': global_('x' * 100_000, 'y')})
    with pytest.raises(UserError, match='refused') as info:
        torch_file.read(path)
    assert len(str(info.value)) < 600


def test_offset_of_a_record_beyond_any_file(path):
    """In an archive of the 64-bit form, where an offset may be larger than any file."""
    write_zip(path, {'a': BASE})
    content = bytearray(open(path, 'rb').read())
    name = b'archive/data/0'
    entry = content.rindex(name) - 46  # In the archive's table of contents.
    content[entry + 30 : entry + 32] = struct.pack('<H', 12)
    content[entry + 42 : entry + 46] = b'\xff' * 4
    place = entry + 46 + len(name)
    content[place:place] = struct.pack('<HHQ', 1, 8, (1 << 63) + 5)
    end = content.rindex(b'PK\x05\x06')
    content[end + 12 : end + 16] = struct.pack('<I', struct.unpack('<I', content[end + 12 : end + 16])[0] + 12)
    with open(path, 'wb') as file:
        file.write(content)
    assert zipfile.ZipFile(path).getinfo(name.decode()).header_offset > 1 << 63
    with pytest.raises(DamagedFileError, match=f'^{path}: '):
        torch_file.read(path)


def test_no_tensors(path):
    write_zip(path, {'epoch': 3})
    with pytest.raises(UserError, match=r'it contains no tensors. Expected a state dict'):
        torch_file.read(path)
    write_zip(path, Tensor(BASE))
    with pytest.raises(UserError, match='it contains no tensors'):
        torch_file.read(path)


def test_compressed_records(path):
    write_zip(path, {'a': np.zeros(1 << 20, np.float32)}, compression=zipfile.ZIP_DEFLATED)
    assert os.path.getsize(path) < 1 << 16
    with pytest.raises(DamagedFileError, match='compressed records'):
        torch_file.read(path)


def test_record_with_a_wrong_size(path):
    write_zip(path, {'a': BASE})
    content = bytearray(open(path, 'rb').read())
    entry = content.rindex(b'archive/data/0') - 46  # In the archive's table of contents.
    content[entry + 20 : entry + 28] = struct.pack('<2I', 1 << 30, 1 << 30)
    with open(path, 'wb') as file:
        file.write(content)
    with pytest.raises(DamagedFileError, match='more than the file'):
        torch_file.read(path)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda records: records.pop('data.pkl'), 'no data.pkl'),
        (lambda records: records.update({'x/data.pkl': b''}), 'or several'),
        (lambda records: records.pop('data/0'), "storage '0' is missing"),
        (lambda records: records.update({'data/0': b''}), '0 bytes, not 24 x 4'),
        (lambda records: records.update({'byteorder': b'middle'}), "byte order is b'middle'"),
    ],
)
def test_incomplete_archive(path, change, reason):
    write_zip(path, {'a': BASE}, change=change)
    with pytest.raises(DamagedFileError, match=reason):
        torch_file.read(path)


@pytest.mark.parametrize(
    ('settings', 'reason'),
    [
        ({'sizes': {'0': 23}}, 'does not have the 24 elements'),
        ({'sizes': {'0': -1}}, 'does not have the 24 elements'),
        ({'keys': []}, 'list of storages is not complete'),
        ({'keys': ['0', '1']}, "the storage '1' has a key, but no values"),
        ({'keys': 3}, 'list of storages'),
        ({'keys': [[]]}, 'list of storages'),
        ({'cut': -1}, 'truncated'),
    ],
)
def test_incomplete_old_file(path, settings, reason):
    write_old(path, {'a': BASE}, **settings)
    with pytest.raises(DamagedFileError, match=reason):
        torch_file.read(path)
