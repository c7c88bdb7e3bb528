"""Files of `torch.save`, written without torch: both layouts, and what a crafted file may hold."""

import struct
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
KINDS = {
    'float32': 'FloatStorage',
    'float64': 'DoubleStorage',
    'float16': 'HalfStorage',
    'int64': 'LongStorage',
    'int32': 'IntStorage',
    'int16': 'ShortStorage',
    'int8': 'CharStorage',
    'uint8': 'ByteStorage',
    'bool': 'BoolStorage',
    'bfloat16': 'BFloat16Storage',
}


class Raw(bytes):
    """Opcodes that leave one object on the stack."""


class Tensor:
    """What a state dict holds: a view of a storage (all of the array, in its order, if nothing else is said)."""

    def __init__(self, values, *, key=None, offset=0, shape=None, strides=None, size=None, kind=None, parameter=False):
        self.values = np.asarray(values)
        self.key, self.offset, self.parameter = key, offset, parameter
        self.shape = self.values.shape if shape is None else shape
        self.strides = np.empty(self.shape, np.bool).strides if strides is None else strides
        self.size = self.values.size if size is None else size
        self.kind = kind or KINDS[self.values.dtype.name]


def global_(module, name):
    return Raw(f'c{module}\n{name}\n'.encode())


def call(function, *arguments):
    return Raw(function + pickled(arguments) + b'R')


def pickled(value):
    """Opcodes of protocol 2 for a value."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, Tensor):
        kind = global_('torch', value.kind)
        storage = Raw(pickled(('storage', kind, value.key, 'cpu', value.size)) + b'Q')
        arguments = (storage, value.offset, value.shape, value.strides, False, call(ORDERED_DICT))
        tensor = call(global_('torch._utils', '_rebuild_tensor_v2'), *arguments)
        if value.parameter:
            tensor = call(global_('torch._utils', '_rebuild_parameter'), tensor, True, call(ORDERED_DICT))
        return bytes(tensor)
    if value is None or isinstance(value, bool):
        return {None: b'N', True: b'\x88', False: b'\x89'}[value]
    if isinstance(value, int):
        data = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
        return b'\x8a' + bytes([len(data)]) + data
    if isinstance(value, float):
        return b'G' + struct.pack('>d', value)
    if isinstance(value, str):
        return b'X' + struct.pack('<I', len(value.encode())) + value.encode()
    if isinstance(value, tuple):
        return b'(' + b''.join(map(pickled, value)) + b't'
    if isinstance(value, list):
        return b'](' + b''.join(map(pickled, value)) + b'e'
    assert isinstance(value, dict), value
    items = b''.join(pickled(item) for pair in value.items() for item in pair)
    return bytes(call(ORDERED_DICT)) + b'(' + items + b'u'


ORDERED_DICT = global_('collections', 'OrderedDict')


def whole(value):
    return b'\x80\x02' + pickled(value) + b'.'


def _tensors(value):
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _storages(state, order):
    """Bytes by key; gives keys to those tensors that have none."""
    storages = {}
    for tensor in _tensors(state):
        if tensor.key is None:
            tensor.key = str(len(storages))
        values = np.ascontiguousarray(tensor.values).reshape(-1)
        storages.setdefault(tensor.key, values.astype(values.dtype.newbyteorder(order)).tobytes())
    return storages


def as_state(tensors):
    return {
        name: Tensor(value) if isinstance(value, np.ndarray | np.generic) else value for name, value in tensors.items()
    }


def write_zip(path, state, *, order='<', compression=zipfile.ZIP_STORED, change=None):
    """Writes the layout of torch 1.6 and later. `change` is called with the dict of all records."""
    state = as_state(state) if isinstance(state, dict) else state
    storages = _storages(state, order)
    records = {'data.pkl': whole(state), 'byteorder': b'little' if order == '<' else b'big', 'version': b'3\n'}
    records |= {f'data/{key}': content for key, content in storages.items()}
    if change:
        change(records)
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, content in records.items():
            archive.writestr(f'archive/{name}', content)


def write_old(path, state, *, cut=None, sizes=None, keys=None):
    """Writes the layout before torch 1.6; `sizes` and `keys` are what the file says of its storages."""
    state = as_state(state) if isinstance(state, dict) else state
    storages = _storages(state, '<')
    elements = {tensor.key: tensor.size for tensor in _tensors(state)} | (sizes or {})
    machine = {'protocol_version': 1001, 'little_endian': True}
    content = b''.join(map(whole, (MAGIC, 1001, machine, state, list(storages) if keys is None else keys)))
    for key, values in storages.items():
        content += struct.pack('<q', elements[key]) + values
    with open(path, 'wb') as file:
        file.write(content[:cut])
