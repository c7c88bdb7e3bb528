"""The lock on a `model_dir`: one process trains there at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

import psutil

from seg.errors import UserError
from seg.run.folder import RunFolder


@contextlib.contextmanager
def locked(folder: RunFolder, keep: bool = True) -> Iterator[None]:
    """Locks the directory, so that no second process trains in it; also checks that it is writable.

    Args:
      folder: made if it does not exist.
      keep: whether new folders and the lock file stay; False for a check that runs nothing.

    Raises:
      UserError: if another process holds it, or nothing can be written there.
    """
    path = folder.lock
    made, held = ([] if keep else _missing(path)), False
    try:
        try:
            os.makedirs(folder.path, exist_ok=True)
            lock = open(path, 'ab+', buffering=0)  # Stays open while the lock is held.
        except OSError as error:
            raise _unwritable(folder.path, error) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                holder = lock.read(20).decode('ascii', 'replace').strip() or 'unknown'
                raise UserError(
                    f'--model_dir={folder.path}: process {holder} is training there. Wait for it, stop it, or choose '
                    'another --model_dir.'
                ) from None
            held = True
            try:
                lock.truncate(0)
                lock.write(str(os.getpid()).encode())
            except OSError as error:
                raise _unwritable(folder.path, error) from None
            yield
    finally:
        for new in made:
            with contextlib.suppress(OSError):
                if new != path:
                    os.rmdir(new)
                elif held:
                    os.remove(new)


def is_held(folder: RunFolder) -> bool:
    """Whether the process that the lock names still holds it. Taking the lock to find out could stop a training."""
    try:
        with open(folder.lock, encoding='utf-8') as file:
            process = psutil.Process(int(file.read()))
        return os.path.realpath(folder.lock) in {opened.path for opened in process.open_files()}
    except (OSError, ValueError, psutil.Error):
        return False


def _missing(path: str) -> list[str]:
    """The file and those of its folders that do not exist yet, innermost first."""
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _unwritable(model_dir: str, error: OSError) -> UserError:
    reason = 'it is a file' if os.path.isfile(model_dir) else error.strerror
    return UserError(f'--model_dir={model_dir}: cannot write there: {reason}. Choose another directory, or free space.')
