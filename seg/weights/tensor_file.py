"""Named tensors in one file: written whole or not at all, and checked when read.

The format is safetensors: a JSON header and the raw values, readable by many tools, nothing in it is executed. Its
metadata carry a checksum of every tensor and of themselves, so that a flipped bit is noticed as well as a truncated
file.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from seg import files
from seg.errors import UserError


class DamagedFileError(UserError):
    """A tensor file that cannot be read whole. The message names the file and what is wrong with it."""


def write(path: str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Writes the tensors so that `path` holds either what it held before or all of them.

    Args:
      path: the file; its folder exists.
      tensors: arrays by name.
      metadata: values that JSON can hold.

    Raises:
      UserError: if the file cannot be written (a full disk, missing rights); `path` is then as it was.
    """
    tensors = {name: np.asarray(value, order='C') for name, value in tensors.items()}
    text = json.dumps(metadata)
    checksums = json.dumps({name: _checksum(name, value) for name, value in tensors.items()})
    header = {'metadata': text, 'crc32': checksums, 'header_crc32': str(_header_checksum(text, checksums))}
    with files.replacing(path) as temporary:
        try:
            save_file(tensors, temporary, header)
            os.chmod(temporary, 0o666 & ~_umask())  # The library makes files that only their owner can read.
            read(temporary)  # Some disks take what they cannot keep: look before the good file is replaced.
        except (SafetensorError, DamagedFileError) as error:
            raise OSError(str(error)) from error


def read(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads all tensors and the metadata.

    Raises:
      DamagedFileError: if the file is missing, truncated, or a checksum does not match.
      UserError: if it cannot be opened, which says nothing of what is in it.
    """
    with _opened(path) as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    metadata, checksums = _checked(path, header)
    for name, value in tensors.items():
        if checksums is not None and _checksum(name, value) != checksums.get(name):
            raise DamagedFileError(f'{path}: the checksum of {name!r} does not match: the file is damaged.')
    return tensors, metadata


def read_metadata(path: str) -> dict[str, Any]:
    """Reads the metadata alone.

    Raises:
      DamagedFileError: if the file is missing or its header cannot be read.
      UserError: if it cannot be opened, which says nothing of what is in it.
    """
    with _opened(path) as file:
        header = file.metadata() or {}
    return _checked(path, header)[0]


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The file for reading; tells damage from what passes, such as missing rights or too many open files."""
    if kind := files.irregular(path):
        raise DamagedFileError(f'{path!r} is {kind}, expected a tensor file.')
    try:
        open(path, 'rb').close()  # The library's own errors do not say which of the two it is.
        with safe_open(path, framework='numpy') as file:
            yield file
    except FileNotFoundError:
        raise DamagedFileError(f'{path!r}: there is no such file.') from None
    except SafetensorError as error:
        raise DamagedFileError(f'{path}: no readable tensor file: {error}') from error
    except OSError as error:
        raise UserError(
            f'{path!r} cannot be opened: {error.strerror or error}. This says nothing of what is in it: mend the cause '
            '(rights, a disk that is not there, too many open files), then start the same command again.'
        ) from error


def _checked(path: str, header: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, int] | None]:
    """Returns the metadata and the tensors' checksums; None for these where another tool wrote the file."""
    if 'crc32' not in header and 'header_crc32' not in header:
        return {}, None
    text, checksums = header.get('metadata', ''), header.get('crc32', '')
    if header.get('header_crc32') != str(_header_checksum(text, checksums)):
        raise DamagedFileError(f'{path}: the checksum of its header does not match: the file is damaged.')
    return json.loads(text), json.loads(checksums)


def _checksum(name: str, value: np.ndarray) -> int:
    """Of the values, and of what the header says of them."""
    said = zlib.crc32(f'{name} {value.dtype} {value.shape}'.encode())
    return zlib.crc32(np.asarray(value, order='C').reshape(-1).view(np.uint8).data, said)


def _header_checksum(metadata: str, checksums: str) -> int:
    return zlib.crc32(f'{metadata}\n{checksums}'.encode())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
