"""Label maps in MATLAB's files (level 5), the form of the annotations of SBD."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_MOST = 2**26  # Bytes of a decompressed element.
_HEADER = 128  # Bytes.
_MATRIX, _COMPRESSED = 14, 15
_STRUCT = 2  # Class of a matrix.
# Stored types of numbers, and the classes of matrices that hold numbers.
_TYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}
_NUMERIC = range(6, 16)


class _Element(NamedTuple):
    """One element of a file: its type, and its content."""

    kind: int
    content: bytes


def read_field(content: bytes, variable: str, field: str) -> np.ndarray:
    """A numeric field of a structure.

    Args:
      content: the file.
      variable: name of the structure, such as 'GTcls'.
      field: name of the field, such as 'Segmentation'.

    Returns:
      An array of the stored type, with the dimensions in MATLAB's order: [rows, columns].

    Raises:
      ValueError: if the file is damaged, of another kind, or has no such field; the message completes "file: ".
    """
    order = {b'IM': '<', b'MI': '>'}.get(content[126:128])
    if order is None:
        raise ValueError('not a MATLAB file of level 5')
    try:
        for element in _elements(content[_HEADER:], order):
            if element.kind == _COMPRESSED:
                (element,) = _elements(_decompressed(element.content), order)
            if element.kind == _MATRIX and (found := _field(element.content, order, variable, field)) is not None:
                return found
    except (struct.error, zlib.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f'the file is damaged: {error}') from None
    raise ValueError(f'there is no {variable}.{field}')


def _decompressed(content: bytes) -> bytes:
    pieces = zlib.decompressobj()
    found = pieces.decompress(content, _MOST)
    if pieces.unconsumed_tail:
        raise ValueError(f'an element of more than {_MOST} bytes')
    return found


def _elements(content: bytes, order: str) -> Iterator[_Element]:
    """The elements in a piece of a file."""
    place = 0
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(f'{order}II', content, place)
        begin, small = place + 8, kind >> 16
        if small:  # Size and type share a word, and the content follows at once.
            kind, size, begin = kind & 0xFFFF, small, place + 4
        if begin + size > len(content):
            raise ValueError('the file is truncated')
        yield _Element(kind, content[begin : begin + size])
        # All but compressed elements end at a multiple of 8 bytes.
        place = place + 8 if small else begin + (size if kind == _COMPRESSED else -(-size // 8) * 8)


def _field(content: bytes, order: str, variable: str, field: str) -> np.ndarray | None:
    """The field, if the matrix is a structure of this name that has it."""
    flags, _, name, *rest = _elements(content, order)
    if flags.content[0 if order == '<' else 3] != _STRUCT or name.content.decode('latin-1') != variable:
        return None
    (length,) = struct.unpack(f'{order}i', rest[0].content)
    if length < 1:
        raise ValueError(f'names of {length} bytes')
    names = rest[1].content
    for number, start in enumerate(range(0, len(names), length)):
        if names[start : start + length].split(b'\0')[0].decode('latin-1') == field:
            return _numbers(rest[2 + number].content, order)
    return None


def _numbers(content: bytes, order: str) -> np.ndarray:
    flags, dimensions, _, real, *_ = _elements(content, order)
    sizes = struct.unpack(f'{order}{len(dimensions.content) // 4}i', dimensions.content)
    kind = flags.content[0 if order == '<' else 3]
    if kind not in _NUMERIC or real.kind not in _TYPES:
        raise ValueError(f'a matrix of class {kind}, expected numbers')
    values = np.frombuffer(real.content, np.dtype(_TYPES[real.kind]).newbyteorder(order))
    if min(sizes, default=-1) < 0 or math.prod(sizes) != values.size:
        raise ValueError(f'{values.size} numbers for a matrix of {"x".join(map(str, sizes))}')
    return values.reshape(sizes, order='F')
