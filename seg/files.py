"""Files on a local disk: safe reading, JSON of any content, and atomic writing.

This module must not import TensorFlow, because a report uses it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from seg.errors import UserError, shown

_KINDS = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFIFO: 'a FIFO',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
    stat.S_IFSOCK: 'a socket',
}


def irregular(path: str) -> str | None:
    """Returns what is at a path instead of a regular file, such as 'a FIFO'; None for a file or nothing. Follows links.

    Opening a FIFO can block forever, and some devices have no end.
    """
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except OSError:
        return None
    except ValueError:  # A null character.
        return 'no path'


def read_bytes(path: str) -> bytes:
    """Reads a regular file.

    Raises:
      UserError: if it is not a regular file, or cannot be read.
    """
    if kind := irregular(path):
        raise UserError(f'{path!r} is {kind}, expected a file.')
    try:
        with open(path, 'rb') as file:
            return file.read()
    except OSError as error:
        raise UserError(f'{path!r} cannot be read: {error.strerror}.') from error


def parse_json(content: bytes) -> Any:
    """Parses JSON in UTF-8, with or without a byte order mark. Errors have short messages.

    Raises:
      ValueError: with a short message that completes "… is not JSON: ".
    """
    try:
        return json.loads(content.decode('utf-8-sig'))
    except UnicodeDecodeError as error:
        raise ValueError(f'expected UTF-8; byte {error.start} is not') from None
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()):
            raise ValueError('the file is truncated or empty') from None
        raise ValueError(f'line {error.lineno}, column {error.colno}: {error.msg}') from None
    except RecursionError:
        raise ValueError('lists or objects are nested too deep') from None
    except ValueError:  # Python parses integers of at most 4,300 digits.
        raise ValueError('a number in it has thousands of digits') from None


def read_json(path: str, remedy: str) -> Any:
    """Reads a JSON file.

    Args:
      path: the file.
      remedy: last sentence of the message about a damaged file.

    Raises:
      UserError: if it cannot be read or is not JSON.
    """
    try:
        return parse_json(read_bytes(path))
    except ValueError as error:
        raise UserError(f'{path!r} is not JSON: {error}. {remedy}') from None


def read_object(path: str, remedy: str) -> dict[str, Any]:
    """Reads a JSON file that holds an object; arguments and errors as for `read_json`."""
    value = read_json(path, remedy)
    if not isinstance(value, dict):
        raise UserError(f'{path!r} holds {shown(value)}, expected an object in braces. {remedy}')
    return value


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns the system's errors while writing a file or folder into messages.

    Raises:
      UserError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f'cannot write {path!r}: {error.strerror or error}. Free space or choose another place, then start the '
            'same command again.'
        ) from error


@contextlib.contextmanager
def atomically(path: str, temporary: str = '', sync: bool = True) -> Iterator[str]:
    """Yields the name of a temporary file, which replaces `path` when the block ends without an error.

    On an error `path` is unchanged, and the temporary file is removed. After a kill it may remain.

    Args:
      path: the file to write; readers see either the old content or all of the new content.
      temporary: a path on the same file system; by default beside `path`, where `sweep` removes it after a kill.
      sync: whether to wait until the content is on disk, so that it survives a crash of the machine.

    Raises:
      OSError: from the system.
    """
    temporary = temporary or f'{path}.tmp-{os.getpid()}'
    try:
        yield temporary
        if sync:
            with open(temporary, 'rb+') as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    if sync:
        _sync_folder(os.path.dirname(path))


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Like `atomically`, for the files of a run: the system's errors become messages.

    Raises:
      UserError: if the file cannot be written (a full or read-only disk, missing rights); `path` is then unchanged.
    """
    try:
        with atomically(path) as temporary:
            yield temporary
    except OSError as error:
        raise UserError(
            f'cannot write {path!r}: {error.strerror or error}. The previous file is unchanged; free space or '
            'choose another place, then start the same command again.'
        ) from error


@contextlib.contextmanager
def alone(path: str) -> Iterator[BinaryIO]:
    """Opens a file to append to it, when no other process has it open in this way; waits until then.

    Whoever has the file may also remove or rename it.

    Raises:
      OSError: if it cannot be made.
    """
    while True:
        with open(path, 'ab') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                yield file
                return


def replace_folder(new: str, path: str) -> None:
    """Moves a folder to a path of the same disk, where another one may be.

    A kill leaves the old folder or the new one there, or the old one beside it, as `<path>.replaced`.

    Raises:
      OSError: from the system.
    """
    replaced = f'{path}.replaced'
    if os.path.lexists(path):
        _remove(replaced)
        os.rename(path, replaced)
    os.rename(new, path)
    _remove(replaced)


def _remove(path: str) -> None:
    """Removes a file, a link or a folder, if it is there."""
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)


def write_text(path: str, text: str) -> None:
    """Writes a text file atomically; raises as `replacing` does.

    A lone surrogate, which UTF-8 cannot encode, becomes an escape as in JSON.
    """
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8', errors='backslashreplace') as file:
        file.write(text)


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file atomically; raises as `replacing` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + '\n')


def sweep(folder: str, name: str = '') -> None:
    """Removes temporary files and folders that killed processes of this machine left in a folder.

    Do not call it while this process writes there: in a container the killed process often had the same number.

    Args:
      folder: where they are.
      name: of the file or folder that they were to become; empty for any.
    """
    with contextlib.suppress(OSError):
        for left in os.listdir(folder):
            made_for, temporary, process = left.rpartition('.tmp-')
            if temporary and name in ('', made_for) and is_left_over(process):
                _remove(os.path.join(folder, left))


def is_left_over(process: str) -> bool:
    """Whether a temporary file is left over: the process with the number in its name has ended, or is this one."""
    if not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return int(process) == os.getpid()


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder or '.', os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
