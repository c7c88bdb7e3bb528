"""Tensor files: whole or not at all, and checked when read."""

import errno
import json
import math
import os
import resource
import struct
import zlib

import numpy as np
import pytest

from seg.errors import UserError
from seg.weights import tensor_file

TENSORS = {
    'matrix': np.arange(12, dtype=np.float32).reshape(3, 4),
    'transposed': np.arange(6, dtype=np.float64).reshape(2, 3).T,
    'scalar': np.array(7, np.int64),
    'empty': np.zeros((0, 3), np.float32),
    'flag': np.array([True, False]),
}


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / 'weights.safetensors')
    tensor_file.write(path, TENSORS, {'step': 3, 'names': ['ä', 'b']})
    return path


def test_round_trip(path):
    tensors, metadata = tensor_file.read(path)
    assert metadata == {'step': 3, 'names': ['ä', 'b']}
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].shape == value.shape and tensors[name].dtype == value.dtype, name
        np.testing.assert_array_equal(tensors[name], value, name)


def test_replaces_the_former_file_and_leaves_nothing_else(path):
    tensor_file.write(path, {'a': np.ones(2, np.float32)}, {})
    tensors, metadata = tensor_file.read(path)
    assert list(tensors) == ['a'] and metadata == {}
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_errors_of_the_system_keep_their_text(path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write .*weights.safetensors': File too large .*unchanged"):
            tensor_file.write(path, {'a': np.ones(4096, np.float32)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def _disk_full(half: bytes):
    def save_file(tensors, path, metadata):
        with open(path, 'wb') as file:
            file.write(half)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return save_file


def _disk_lies(half: bytes):
    """A disk that reports success and does not keep the data."""

    def save_file(tensors, path, metadata):
        with open(path, 'wb') as file:
            file.write(half)

    return save_file


@pytest.mark.parametrize('failure', [_disk_full, _disk_lies])
def test_failed_write_leaves_the_old_file_unchanged(path, monkeypatch, failure):
    with open(path, 'rb') as file:
        before = file.read()
    monkeypatch.setattr(tensor_file, 'save_file', failure(before[: len(before) // 2]))
    with pytest.raises(UserError, match='cannot write .*weights.safetensors') as info:
        tensor_file.write(path, {'a': np.ones(2, np.float32)}, {})
    assert 'unchanged' in str(info.value) and 'free space' in str(info.value)
    with open(path, 'rb') as file:
        assert file.read() == before
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_interrupted_write_leaves_the_old_file_unchanged(path, monkeypatch):
    def interrupted(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', interrupted)
        with pytest.raises(KeyboardInterrupt):
            tensor_file.write(path, {'a': np.ones(2, np.float32)}, {})
    assert tensor_file.read(path)[1]['step'] == 3
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match='cannot write'):
        tensor_file.write(str(tmp_path / 'none' / 'a.safetensors'), TENSORS, {})


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.99])
def test_truncated_file(path, share):
    size = os.path.getsize(path)
    with open(path, 'rb+') as file:
        file.truncate(int(size * share))
    with pytest.raises(tensor_file.DamagedFileError, match=f'{path}: not a readable tensor file'):
        tensor_file.read(path)


def test_flipped_bit(path):
    size = os.path.getsize(path)
    header = 8 + int.from_bytes(open(path, 'rb').read(8), 'little')
    for position in (header, (header + size) // 2, size - 1):
        with open(path, 'rb+') as file:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 1]))
        with pytest.raises(tensor_file.DamagedFileError, match=f'{path}: the checksum of .* does not match'):
            tensor_file.read(path)
        with open(path, 'rb+') as file:
            file.seek(position)
            file.write(bytes([byte]))
    tensor_file.read(path)


def test_damaged_header(path):
    with open(path, 'rb+') as file:
        file.seek(20)
        file.write(b'\xff\x00{{')
    with pytest.raises(tensor_file.DamagedFileError, match=path):
        tensor_file.read(path)


def test_any_flipped_byte_is_noticed(path):
    """In the header as well: either the written values are read, or an error names the file."""
    data = open(path, 'rb').read()
    for position in range(0, len(data), 7):
        with open(path, 'wb') as file:
            file.write(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        try:
            tensors, _ = tensor_file.read(path)
        except tensor_file.DamagedFileError as error:
            assert path in str(error)
        else:
            assert {n: v.tolist() for n, v in tensors.items()} == {n: v.tolist() for n, v in TENSORS.items()}, position


def test_missing_file(tmp_path):
    with pytest.raises(tensor_file.DamagedFileError, match='none.safetensors'):
        tensor_file.read(str(tmp_path / 'none.safetensors'))


def test_file_of_another_tool_without_checksums(tmp_path):
    from safetensors.numpy import save_file

    path = str(tmp_path / 'other.safetensors')
    save_file({'a': np.ones(3, np.float32)}, path)
    tensors, metadata = tensor_file.read(path)
    assert tensors['a'].tolist() == [1, 1, 1] and metadata == {}


def test_a_file_that_cannot_be_opened_is_not_damaged(tmp_path):
    path = str(tmp_path / 'weights.safetensors')
    tensor_file.write(path, {'w': np.zeros(2, np.float32)}, {'step': 1})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(UserError) as info:
            tensor_file.read(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not isinstance(info.value, tensor_file.DamagedFileError)
    assert repr(path) in str(info.value) and 'Too many open files' in str(info.value)
    assert tensor_file.read(path)


def test_a_fifo_is_no_file(tmp_path):
    os.mkfifo(tmp_path / 'fifo')
    with pytest.raises(tensor_file.DamagedFileError, match='is a FIFO'):
        tensor_file.read(str(tmp_path / 'fifo'))


def _other_tool(path, tensors, metadata=None):
    """Writes {name: (type, shape, bytes)} as the format says, whatever the types are."""
    header, begin = {'__metadata__': metadata} if metadata else {}, 0
    for name, (kind, shape, content) in tensors.items():
        header[name] = {'dtype': kind, 'shape': shape, 'data_offsets': [begin, begin + len(content)]}
        begin += len(content)
    text = json.dumps(header).encode()
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text + b''.join(content for _, _, content in tensors.values()))


def _value(code, exponents, mantissas, bias, negative_zero_is_nan, infinities):
    """The number that the bits of a float stand for, by the definition of such types."""
    sign = -1 if code >> exponents + mantissas else 1
    exponent, mantissa = code >> mantissas & (1 << exponents) - 1, code & (1 << mantissas) - 1
    if negative_zero_is_nan:
        if sign < 0 and exponent == mantissa == 0:
            return math.nan
    elif exponent == (1 << exponents) - 1:
        if infinities:
            return math.nan if mantissa else sign * math.inf
        if mantissa == (1 << mantissas) - 1:
            return math.nan
    if exponent == 0:
        return sign * math.ldexp(mantissa, 1 - bias - mantissas)
    return sign * math.ldexp((1 << mantissas) + mantissa, exponent - bias - mantissas)


@pytest.mark.parametrize(
    ('kind', 'form'),
    [
        ('BF16', (8, 7, 127, False, True)),
        ('F8_E4M3', (4, 3, 7, False, False)),
        ('F8_E5M2', (5, 2, 15, False, True)),
        ('F8_E4M3FNUZ', (4, 3, 8, True, False)),
        ('F8_E5M2FNUZ', (5, 2, 16, True, False)),
    ],
)
def test_small_floats_of_other_tools(tmp_path, kind, form):
    """Every number of the type. The definitions of the eight-bit ones: Micikevicius 2022, Noune 2022."""
    codes = np.arange(1 << 16 if kind == 'BF16' else 1 << 8, dtype='<u2' if kind == 'BF16' else 'u1').reshape(2, -1)
    path = str(tmp_path / 'other.safetensors')
    other = np.arange(3, dtype='<f4')
    _other_tool(path, {'b': ('F32', [3], other.tobytes()), 'a': (kind, list(codes.shape), codes.tobytes())})
    tensors, metadata = tensor_file.read(path)
    expected = np.array([_value(int(code), *form) for code in codes.flat], np.float32).reshape(codes.shape)
    assert tensors['a'].dtype == np.float32 and metadata == {}
    np.testing.assert_array_equal(tensors['a'], expected)
    np.testing.assert_array_equal(tensors['b'], other)


@pytest.mark.parametrize(
    ('kind', 'shape', 'size', 'expected'),
    [
        ('F32', [1] * 65, 4, 'maximum supported dimension'),
        ('F32', [0, 1 << 62], 0, 'not a readable tensor file'),
        ('BF16', [0, 1 << 62], 0, 'not a readable tensor file'),
        ('F4', [8], 4, "'a' has the type F4"),
        ('F6_E2M3', [8], 6, "'a' has the type F6_E2M3"),
        ('Q3', [8], 3, 'not a readable tensor file'),
    ],
)
def test_what_numpy_cannot_hold(tmp_path, kind, shape, size, expected):
    path = str(tmp_path / 'other.safetensors')
    _other_tool(path, {'a': (kind, shape, bytes(size))})
    with pytest.raises(UserError, match=expected) as info:
        tensor_file.read(path)
    assert path in str(info.value)


@pytest.mark.parametrize('name', ['metadata', 'crc32'])
@pytest.mark.parametrize(
    'text', ['', '{', '[' * 5000, '9' * 5000, '[]', '7', 'null', '"a"', '{"a": }'], ids=lambda text: text[:5] or 'empty'
)
def test_strange_metadata_with_sound_checksums(tmp_path, name, text):
    path = str(tmp_path / 'crafted.safetensors')
    metadata = {'metadata': '{}', 'crc32': '{}', name: text}
    checksum = zlib.crc32(f'{metadata["metadata"]}\n{metadata["crc32"]}'.encode())
    _other_tool(path, {}, metadata | {'header_crc32': str(checksum)})
    with pytest.raises(tensor_file.DamagedFileError, match=f'^{path}: ') as info:
        tensor_file.read(path)
    assert len(str(info.value)) < 400


def test_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / 'fifo.safetensors')
    for path, kind in ((tmp_path / 'fifo.safetensors', 'a FIFO'), (tmp_path, 'a folder'), ('/dev/zero', 'a device')):
        with pytest.raises(UserError, match=f'{str(path)!r} is {kind}'):
            tensor_file.read(str(path))


def test_too_little_memory_is_no_damage(path, monkeypatch):
    def nothing_left(path, file):
        raise MemoryError

    monkeypatch.setattr(tensor_file, '_tensors', nothing_left)
    with pytest.raises(UserError, match=f'^{path}: .* more memory') as info:
        tensor_file.read(path)
    assert not isinstance(info.value, tensor_file.DamagedFileError)
