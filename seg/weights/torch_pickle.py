"""Reads the pickle in a file of `torch.save` with an interpreter that can only build a state dict.

Python's own unpickler calls any function that a pickle names. Here the opcodes are interpreted one by one. Containers,
numbers and strings are made. Tensors and storages become records of the place of their values. An opcode or a name that
a state dict does not need ends the reading. Nothing is imported, and no function that the file names is called.
"""

from __future__ import annotations

import pickletools
from typing import Any, BinaryIO, NamedTuple

from seg.errors import UserError, shown

# Storage classes of torch, and the types of their elements. numpy has no bfloat16: see torch_file.
STORAGES = {
    'FloatStorage': 'f4',
    'DoubleStorage': 'f8',
    'HalfStorage': 'f2',
    'BFloat16Storage': 'u2',
    'LongStorage': 'i8',
    'IntStorage': 'i4',
    'ShortStorage': 'i2',
    'CharStorage': 'i1',
    'ByteStorage': 'u1',
    'BoolStorage': 'u1',
}
_DICT = 'collections.OrderedDict'
_TENSOR = 'torch._utils._rebuild_tensor_v2'
_PARAMETER = 'torch._utils._rebuild_parameter'
_NAMES = {_DICT, _TENSOR, _PARAMETER, *(f'torch.{kind}' for kind in STORAGES)}
_LITERALS = {
    'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINSTRING',
    'SHORT_BINSTRING',
}  # fmt: skip
_MOST_AXES = 64  # The limit of numpy's arrays.
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


class Storage(NamedTuple):
    """A run of values: the name of its class, its key in the file, its number of elements."""

    kind: str
    key: str
    size: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(NamedTuple):
    """A class or function that the pickle names; it is never looked up."""

    name: str


def load(path: str, data: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle from the position of `data`, which is then at its end.

    Args:
      path: the file's name, for messages.
      data: bytes in memory, so that a length that the pickle states allocates none.

    Returns:
      The pickle's object (dicts, lists, tuples, strings, numbers and `Tensor`), and the storages that it names, by key.

    Raises:
      UserError: if it names something that a state dict does not need; the message has the name.
      Exception: of any kind, if the pickle is not complete or its tensors are invalid; the caller uses `parsing`.
    """
    machine = _Machine(path)
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == 'STOP':
            return machine.stack.pop(), machine.storages
        machine.step(opcode.name, argument)
    raise ValueError('its pickle has no end')


class _Machine:
    def __init__(self, path: str):
        self.path = path
        self.stack: list[Any] = []
        self.storages: dict[str, Storage] = {}
        self._outer: list[list[Any]] = []  # The stacks below the marks.
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _LITERALS:
            stack.append(argument)
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            if len(stack) < count:
                raise IndexError('a tuple of nothing')
            stack[-count:] = [tuple(stack[-count:])]
        else:
            match opcode:
                case 'PROTO' | 'FRAME':
                    pass
                case 'NONE' | 'NEWTRUE' | 'NEWFALSE':
                    stack.append({'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}[opcode])
                case 'EMPTY_DICT' | 'EMPTY_LIST' | 'EMPTY_TUPLE':
                    stack.append({'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}[opcode]())
                case 'MARK':
                    self._outer.append(stack)
                    self.stack = []
                case 'TUPLE':
                    items = self._marked()
                    self.stack.append(tuple(items))
                case 'APPEND' | 'APPENDS':
                    items = [stack.pop()] if opcode == 'APPEND' else self._marked()
                    _expect(self.stack[-1], list).extend(items)
                case 'SETITEM' | 'SETITEMS':
                    items = [stack.pop(-2), stack.pop()] if opcode == 'SETITEM' else self._marked()
                    for key, value in zip(items[::2], items[1::2], strict=True):
                        _expect(self.stack[-1], dict)[_expect(key, str | int)] = value
                case 'BINPUT' | 'LONG_BINPUT' | 'MEMOIZE':
                    self._memo[len(self._memo) if opcode == 'MEMOIZE' else argument] = stack[-1]
                case 'BINGET' | 'LONG_BINGET':
                    stack.append(self._memo[argument])
                case 'GLOBAL':
                    stack.append(self._named(*argument.split(' ', 1)))
                case 'STACK_GLOBAL':
                    name = stack.pop()
                    stack.append(self._named(_expect(stack.pop(), str), _expect(name, str)))
                case 'REDUCE':
                    arguments = _expect(stack.pop(), tuple)
                    stack.append(_made(_expect(stack.pop(), _Name).name, arguments))
                case 'BUILD':  # Attributes, such as torch's `_metadata` of a state dict.
                    stack.pop()
                    _expect(stack[-1], dict)
                case 'BINPERSID':
                    storage = _storage(_expect(stack.pop(), tuple))
                    if self.storages.setdefault(storage.key, storage) != storage:
                        raise ValueError(f'the storage {shown(storage.key)} has two descriptions')
                    stack.append(storage)
                case 'INST':
                    self._named(*argument.split(' ', 1))
                    self._refuse('INST')
                case _:
                    self._refuse(f'the opcode {opcode}')

    def _marked(self) -> list[Any]:
        """Returns the items since the last mark, and restores the stack below it."""
        items, self.stack = self.stack, self._outer.pop()
        return items

    def _named(self, module: str, name: str) -> _Name:
        if f'{module}.{name}' not in _NAMES:
            self._refuse(shown(f'{module}.{name}', 200))
        return _Name(f'{module}.{name}')

    def _refuse(self, what: str) -> None:
        raise UserError(
            f'{self.path}: refused. Its pickle names {what}, which the tensors of a state dict do not need; nothing '
            'of it was run. If you trust the file, load it in torch and write torch.save(model.state_dict(), path).'
        )


def _made(name: str, arguments: tuple) -> Any:
    """Returns the value that a call of `name` stands for."""
    if name == _DICT:
        if arguments:
            raise ValueError('an OrderedDict with arguments')
        return {}
    if name == _PARAMETER:
        return _expect(arguments[0], Tensor)
    if name == _TENSOR:
        storage, offset, shape, strides = arguments[:4]
        if max(len(_expect(shape, tuple)), len(_expect(strides, tuple))) > _MOST_AXES:
            raise ValueError(f'a tensor of {len(shape)} axes and {len(strides)} strides, more than {_MOST_AXES}')
        for size in (offset, *shape, *strides):
            if type(size) is not int or not 0 <= size < 1 << 62:
                raise ValueError('a tensor with an invalid offset, size or stride')
        if len(shape) != len(strides):
            raise ValueError('a tensor with more sizes than strides')
        return Tensor(_expect(storage, Storage), offset, shape, strides)
    raise ValueError(f'a call of {shown(name)}')


def _storage(arguments: tuple) -> Storage:
    """('storage', class, key, device, number of elements); before torch 1.6 also None: no view of another storage."""
    word, kind, key, _, size, *view = arguments
    kind = _expect(kind, _Name).name.removeprefix('torch.')
    if word != 'storage' or kind not in STORAGES or view not in ([], [None]):
        raise ValueError('a storage of an unknown kind')
    if type(size) is not int or not 0 <= size < 1 << 62:
        raise ValueError('a storage with an invalid size')
    return Storage(kind, _expect(key, str), size)


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f'{type(value).__name__} in place of {kind}')
    return value
