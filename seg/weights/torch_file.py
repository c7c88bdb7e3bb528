"""Reads the tensors of a `.pth` file, as `torch.save` writes a state dict, without torch and without running its code.

It reads both layouts: the zip archive of torch 1.6 and later (`data.pkl`, and a record per storage), and the older one
(five pickles, then the storages). Sizes that a file states are checked before memory is allocated.
"""

from __future__ import annotations

import functools
import io
import math
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from seg import files
from seg.errors import UserError, shown
from seg.weights import torch_pickle
from seg.weights.tensor_file import parsing
from seg.weights.torch_pickle import Storage, Tensor

# Keys under which training scripts store the state dict.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model_state', 'model')
_OLD_MAGIC = 0x1950A86A20F9469CFC6C


def read(path: str) -> dict[str, np.ndarray]:
    """Reads a state dict.

    A dict around it ({'state_dict': …} or {'model': …}) and a prefix `module.` of all names are removed. Entries that
    are not tensors are omitted.

    Args:
      path: the file. It is read into memory as a whole.

    Returns:
      Arrays by name, in torch's layout (kernels are [K, C, k, k]) and in the file's type; bfloat16 becomes float32.
      They are views: do not write to them.

    Raises:
      DamagedFileError: if the file is truncated, in neither layout, or inconsistent.
      UserError: if the file cannot be read, its pickle needs more than tensors, or it contains no tensor.
    """
    content = files.read_bytes(path)
    # The raw values at the end of an old file may look like the end of a zip archive: check the beginning.
    parse = _parse_zip if content.startswith(b'PK') else _parse_old
    with parsing(path, 'file of torch.save'):
        state, storage_bytes, order = parse(path, content)
        values = functools.cache(lambda storage: _values(storage, storage_bytes(storage), order))
        tensors = {name: _view(name, tensor, values) for name, tensor in _state_dict(state).items()}
    if not tensors:
        raise UserError(
            f'{path}: it contains no tensors. Expected a state dict, as torch.save(model.state_dict(), path) writes it.'
        )
    return tensors


# The pickled object, a function that returns the bytes of a storage, and their order: '<' or '>'.
_Parsed = tuple[Any, Callable[[Storage], memoryview], str]


def _parse_zip(path: str, content: bytes) -> _Parsed:
    """One folder of records: `data.pkl`, `data/<key>` for each storage, and in newer files `byteorder`."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    # torch stores its records uncompressed. Compressed or overlapping records could exhaust the memory.
    if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
        raise ValueError('it contains compressed records')
    if sum(record.file_size for record in archive.infolist()) > len(content):
        raise ValueError('its records add up to more than the file')
    names = set(archive.namelist())
    folders = [name.removesuffix('data.pkl') for name in names if name.endswith('/data.pkl')]
    if len(folders) != 1:
        raise ValueError('its zip archive has no data.pkl, or several')
    folder = folders[0]
    state, _ = torch_pickle.load(path, io.BytesIO(archive.read(folder + 'data.pkl')))
    order = archive.read(folder + 'byteorder') if folder + 'byteorder' in names else b'little'
    if order not in (b'little', b'big'):
        raise ValueError(f'its byte order is {order[:20]!r}')

    def storage_bytes(storage: Storage) -> memoryview:
        name = f'{folder}data/{storage.key}'
        if name not in names:
            raise ValueError(f'the storage {shown(storage.key)} is missing')
        return memoryview(archive.read(name))

    return state, storage_bytes, '<' if order == b'little' else '>'


def _parse_old(path: str, content: bytes) -> _Parsed:
    """Five pickles (magic number, version, machine of the writer, object, keys of the storages), then the storages.

    A storage is its number of elements in 8 bytes, then the elements, little-endian on every machine.
    """
    data = io.BytesIO(content)
    if not content.startswith(b'\x80') or torch_pickle.load(path, data)[0] != _OLD_MAGIC:
        raise ValueError('its beginning fits neither layout of torch.save')
    for _ in range(2):
        torch_pickle.load(path, data)
    state, storages = torch_pickle.load(path, data)
    keys, _ = torch_pickle.load(path, data)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or not set(storages) <= set(keys):
        raise ValueError('its list of storages is not complete')
    places, begin = {}, data.tell()
    for key in keys:
        if key not in storages:
            raise ValueError(f'the storage {shown(key)} has a key, but no values')
        size = storages[key].size
        end = begin + 8 + size * _item_size(storages[key])
        if end > len(content):
            raise ValueError('it is truncated')
        if int.from_bytes(content[begin : begin + 8], 'little') != size:
            raise ValueError(f'the storage {shown(key)} does not have the {size} elements that the pickle states')
        places[key] = memoryview(content)[begin + 8 : end]
        begin = end
    if begin != len(content):
        raise ValueError(f'there are {len(content) - begin} bytes after its last storage')
    return state, lambda storage: places[storage.key], '<'


def _state_dict(state: Any) -> dict[str, Tensor]:
    if isinstance(state, dict):
        state = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict):
        return {}
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if all(name.startswith('module.') for name in tensors):  # torch.nn.DataParallel adds it.
        tensors = {name.removeprefix('module.'): value for name, value in tensors.items()}
    return tensors


def _item_size(storage: Storage) -> int:
    return np.dtype(torch_pickle.STORAGES[storage.kind]).itemsize


def _values(storage: Storage, content: memoryview, order: str) -> np.ndarray:
    """Returns all elements of a storage, [storage.size]."""
    if len(content) != storage.size * _item_size(storage):
        raise ValueError(
            f'the storage {shown(storage.key)} has {len(content)} bytes, not {storage.size} x {_item_size(storage)}'
        )
    values = np.frombuffer(content, np.dtype(torch_pickle.STORAGES[storage.kind]).newbyteorder(order))
    values = values.astype(values.dtype.newbyteorder('='), copy=False)
    if storage.kind == 'BFloat16Storage':  # bfloat16 is the upper half of a float32.
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values != 0 if storage.kind == 'BoolStorage' else values


def _view(name: str, tensor: Tensor, values: Callable[[Storage], np.ndarray]) -> np.ndarray:
    storage, offset, shape, strides = tensor
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # More elements than the storage has mean an expanded view, which takes memory once it is copied.
    if count > storage.size or (count and last >= storage.size):
        raise ValueError(
            f'{shown(name)} of shape {shown(shape)}, strides {shown(strides)} and offset {offset} does not fit its '
            f'storage of {storage.size} elements'
        )
    elements = values(storage)
    if not count:
        return np.empty(shape, elements.dtype)
    steps = tuple(stride * elements.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, steps, writeable=False)
