"""Named tensors in one file: written whole or not at all, and checked when read.

The format is safetensors: a JSON header and the raw values, readable by many tools, nothing in it can be executed. Its
metadata carry a checksum of every tensor, so that a flipped bit is noticed as well as a truncated file.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

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
    checksums = {name: _checksum(value) for name, value in tensors.items()}
    temporary = f'{path}.tmp-{os.getpid()}'
    try:
        save_file(tensors, temporary, {'metadata': json.dumps(metadata), 'crc32': json.dumps(checksums)})
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        read(temporary)  # Some disks take what they cannot keep: look before the good file is replaced.
        os.replace(temporary, path)
        _sync_folder(os.path.dirname(path))
    except (OSError, SafetensorError, DamagedFileError) as error:
        raise UserError(f'cannot write {path}: {error}. What was there before is unchanged; free space or choose another '
                        '--model_dir, then start the same command again.') from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def read(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads all tensors and the metadata.

    Raises:
      DamagedFileError: if the file is missing, truncated, or a checksum does not match.
    """
    try:
        with safe_open(path, framework='numpy') as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118: no mapping
    except (OSError, SafetensorError) as error:
        raise DamagedFileError(f'{path}: no readable tensor file: {error}') from error
    checksums = json.loads(header.get('crc32', '{}'))
    for name, value in tensors.items():
        if name in checksums and _checksum(value) != checksums[name]:
            raise DamagedFileError(f'{path}: the checksum of {name!r} does not match: the file is damaged.')
    return tensors, json.loads(header.get('metadata', '{}'))


def read_metadata(path: str) -> dict[str, Any]:
    """Reads the metadata alone.

    Raises:
      DamagedFileError: if the file is missing or its header cannot be read.
    """
    try:
        with safe_open(path, framework='numpy') as file:
            return json.loads((file.metadata() or {}).get('metadata', '{}'))
    except (OSError, SafetensorError) as error:
        raise DamagedFileError(f'{path}: no readable tensor file: {error}') from error


def _checksum(value: np.ndarray) -> int:
    return zlib.crc32(np.asarray(value, order='C').reshape(-1).view(np.uint8).data)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder or '.', os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
