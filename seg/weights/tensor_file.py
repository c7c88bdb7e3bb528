"""Named tensors in one file: written whole or not at all, and checked when read.

The format is safetensors: a JSON header and the raw values. Many tools can read it, and nothing in it is executed. The
metadata have a checksum of every tensor and of themselves, so that a flipped bit is detected as well as a truncated
file.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from seg import files
from seg.errors import UserError, shown

# Types of other tools that numpy lacks: bfloat16, and 8-bit types, named by the bits of exponent and mantissa.
_SMALL = {
    'BF16': ml_dtypes.bfloat16,
    'F8_E4M3': ml_dtypes.float8_e4m3fn,
    'F8_E4M3FNUZ': ml_dtypes.float8_e4m3fnuz,
    'F8_E5M2': ml_dtypes.float8_e5m2,
    'F8_E5M2FNUZ': ml_dtypes.float8_e5m2fnuz,
    'F8_E8M0': ml_dtypes.float8_e8m0fnu,
}


class DamagedFileError(UserError):
    """A tensor file that is damaged. The message names the file and the fault."""


@contextlib.contextmanager
def parsing(path: str, expected: str) -> Iterator[None]:
    """Turns any exception of a library about a file's content into one message.

    On damaged or crafted content libraries raise many kinds of exceptions, which change with their versions.

    Args:
      path: the file, for the message.
      expected: what it should be, such as 'HDF5 file'.

    Raises:
      DamagedFileError: with the reason that the library gives.
      UserError: if there is not enough memory, which does not depend on the content.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(
            f'{path}: reading this {expected} takes more memory than available. Free some, or use another file.'
        ) from None
    except Exception as error:
        raise DamagedFileError(f'{path}: not a readable {expected}: {str(error) or type(error).__name__}') from error


def write(path: str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Writes the tensors atomically: `path` holds either its old content or all of them.

    Args:
      path: the file; its folder exists.
      tensors: arrays by name.
      metadata: values that JSON can hold.

    Raises:
      UserError: if the file cannot be written (a full disk, missing rights); `path` is then unchanged.
    """
    tensors = {name: np.asarray(value, order='C') for name, value in tensors.items()}
    text = json.dumps(metadata)
    checksums = json.dumps({name: _checksum(name, value) for name, value in tensors.items()})
    header = {'metadata': text, 'crc32': checksums, 'header_crc32': str(_header_checksum(text, checksums))}
    with files.replacing(path) as temporary:
        try:
            save_file(tensors, temporary, header)
            os.chmod(temporary, 0o666 & ~_umask())  # The library makes files that only their owner can read.
            read(temporary)  # Some disks accept what they cannot store: verify before the old file is replaced.
        except (SafetensorError, UserError) as error:
            raise OSError(str(error).rpartition('I/O error: ')[2]) from error


def read(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads all tensors and the metadata.

    Types that numpy lacks (bfloat16, float8), which files of other tools may have, become float32.

    Raises:
      DamagedFileError: if the file is missing, truncated, or a checksum does not match.
      UserError: if it cannot be opened, for reasons other than its content.
    """
    with _opened(path) as file:
        header = file.metadata() or {}
        tensors = _tensors(path, file)
    metadata, checksums = _checked(path, header)
    for name, value in tensors.items():
        if checksums is not None and _checksum(name, value) != checksums.get(name):
            raise DamagedFileError(f'{path}: the checksum of {shown(name)} does not match: the file is damaged.')
    return tensors, metadata


def is_ours(path: str) -> bool:
    """Whether `write` made the file: its header has checksums. Raises as `read` does."""
    with _opened(path) as file:
        return 'header_crc32' in (file.metadata() or {})


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Opens the file; distinguishes damage from temporary errors, such as missing rights or too many open files."""
    if kind := files.irregular(path):
        raise DamagedFileError(f'{path!r} is {kind}, expected a tensor file.')
    with parsing(path, 'tensor file'):
        try:
            open(path, 'rb').close()  # The library's own errors do not distinguish the two.
            with safe_open(path, framework='numpy') as file:
                yield file
        except FileNotFoundError:
            raise DamagedFileError(f'{path!r}: there is no such file.') from None
        except OSError as error:
            raise UserError(
                f'{path!r} cannot be opened: {error.strerror or error}. Its content may be correct: '
                'remove the cause (rights, a missing disk, too many open files), then start the same command again.'
            ) from error


def _tensors(path: str, file: Any) -> dict[str, np.ndarray]:
    kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
    for name, kind in kinds.items():
        if kind.startswith(('F4', 'F6_')):
            raise UserError(
                f'{path}: {shown(name)} has the type {kind}, which is not supported. Write the file with float32, '
                'float16, bfloat16 or float8.'
            )
    tensors = {name: file.get_tensor(name) for name, kind in kinds.items() if kind not in _SMALL}
    if len(tensors) == len(kinds):
        return tensors
    # The library has checked the header against the file, but makes no arrays of these types.
    with open(path, 'rb') as raw:
        begin = int.from_bytes(raw.read(8), 'little')
        header = files.parse_json(raw.read(begin))
        for name in kinds.keys() - tensors.keys():
            first, end = header[name]['data_offsets']
            raw.seek(8 + begin + first)
            values = np.frombuffer(raw.read(end - first), _SMALL[kinds[name]])
            tensors[name] = values.reshape(header[name]['shape']).astype(np.float32)
    return {name: tensors[name] for name in kinds}


def _checked(path: str, header: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, int] | None]:
    """Returns the metadata and the tensors' checksums; None for these if another tool wrote the file."""
    if 'crc32' not in header and 'header_crc32' not in header:
        return {}, None
    text, checksums = header.get('metadata', ''), header.get('crc32', '')
    if header.get('header_crc32') != str(_header_checksum(text, checksums)):
        raise DamagedFileError(f'{path}: the checksum of its header does not match: the file is damaged.')
    parsed = []
    for value, what in ((text, 'metadata'), (checksums, 'list of checksums')):
        with parsing(path, 'tensor file'):
            parsed.append(files.parse_json(value.encode()))
        if not isinstance(parsed[-1], dict):
            raise DamagedFileError(f'{path}: its {what} is {shown(parsed[-1])}, expected a JSON object.')
    return parsed[0], parsed[1]


def _checksum(name: str, value: np.ndarray) -> int:
    """CRC-32 over name, dtype, shape and values."""
    header = zlib.crc32(f'{name} {value.dtype} {value.shape}'.encode())
    return zlib.crc32(np.asarray(value, order='C').reshape(-1).view(np.uint8).data, header)


def _header_checksum(metadata: str, checksums: str) -> int:
    return zlib.crc32(f'{metadata}\n{checksums}'.encode())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
