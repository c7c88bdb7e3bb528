"""Caches the results of checks of files on disk, so that later starts do not read these files again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from absl import logging

import seg
from seg import files as disk
from seg.datasets import checking

_FRESH = 2 * 10**9  # Nanoseconds: on some disks, a file that changes twice within this time keeps its time stamp.


def each(
    key: Sequence[Any], files: Sequence[Sequence[str]], look: Callable[[int], Any], kind: Any, title: str
) -> list[Any]:
    """Returns look(0), look(1), …, from the cache where the files are those of an earlier start.

    Files count as the same if their names, sizes and times are equal, and if the code of `seg.datasets` has not changed
    either. The cache is a file in `~/.cache/seg/checked` (`$XDG_CACHE_HOME/seg/checked` where that is set). If it is
    damaged, or cannot be written, everything is checked again.

    There are two times, in nanoseconds: of the content, and of the last change of anything. A copy that keeps the time
    of the content (`cp -p`, `rsync -a`, an archive whose files all have one time) changes the other. The number of the
    inode is not compared: some network file systems number files anew whenever they are mounted.

    Args:
      key: what the values depend on besides the files and the code: the reader, the place of the data set, settings.
        Values that JSON can hold. There is one cache file for each key.
      files: paths of the files that each value depends on. Files that are not on a local disk are not cached.
      look: function from a position to its value. It is called on all cores. A `str` is a fault, and is never
        cached: a disk may fail once, and the user repairs the file.
      kind: type of the values other than faults, which msgspec can store: numbers, tuples, named tuples, lists, dicts.
      title: what is done, for the log of the progress.
    """
    memory, form = _place(key), dict[str, tuple[list[tuple[int, int, int]], kind]]
    known, now = _read(memory, form), time.time_ns()
    stamps = [_stamp(paths) for paths in files]
    names = ['\n'.join(map(os.path.abspath, paths)) for paths in files]
    values, missing = [None] * len(files), []
    for number, (name, stamp) in enumerate(zip(names, stamps, strict=True)):
        before = known.get(name)
        if before is not None and stamp is not None and before[0] == stamp:
            values[number] = before[1]
        else:
            missing.append(number)
    if 0 < len(missing) < len(files):
        logging.info('%s: %d of %d have been checked already.', title, len(files) - len(missing), len(files))
    done = set(range(len(files))) - set(missing)
    try:
        looked = checking.in_threads(lambda place: look(missing[place]), len(missing), title)
        for number, value in zip(missing, looked, strict=True):
            values[number] = value
            done.add(number)
    finally:  # After an interrupt, the results so far are kept as well.
        kept = {
            names[number]: (stamps[number], values[number])
            for number in sorted(done)
            if stamps[number] is not None
            and not isinstance(values[number], str)
            and all(changed < now - _FRESH for _, changed, _ in stamps[number])
        }
        if missing and memory:
            _write(memory, kept)
    return values


class _Unsound(str):
    """The items of a file that are not cached: a fault for `each`."""

    items: list[Any]


def items_of_each(
    key: Sequence[Any],
    paths: Sequence[str],
    look: Callable[[int], list[Any]],
    sound: Callable[[int, list[Any]], bool],
    kind: Any,
    title: str,
) -> list[list[Any]]:
    """As `each`, for files with many items: returns the lists look(0), look(1), …

    Args:
      key: as for `each`.
      paths: the files.
      look: function from a position to the items of the file.
      sound: function from a position and these items to whether they may be cached, all or none.
      kind: type of a sound item.
      title: as for `each`.
    """

    def look_at(number: int) -> list[Any] | _Unsound:
        items = look(number)
        if sound(number, items):
            return items
        fault = _Unsound('not to be cached')
        fault.items = items
        return fault

    found = each(key, [[path] for path in paths], look_at, list[kind], title)
    return [item.items if isinstance(item, _Unsound) else item for item in found]


def _place(key: Sequence[Any]) -> str | None:
    """The cache file of a key; None if there is no folder for it."""
    cache = os.environ.get('XDG_CACHE_HOME', '')
    if not os.path.isabs(cache):
        cache = os.path.expanduser('~/.cache')
    digest = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()
    return os.path.join(cache, 'seg', 'checked', f'{digest[:32]}.json') if os.path.isabs(cache) else None


@functools.cache
def _code() -> str:
    """A digest of the code that checks files."""
    digest = hashlib.sha256(seg.__version__.encode())
    for path in sorted(pathlib.Path(__file__).parent.rglob('*.py')):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _stamp(paths: Sequence[str]) -> list[tuple[int, int, int]] | None:
    """Size and times of each file, of its content and of anything; None if one is not on a local disk."""
    try:
        found = [os.stat(path) for path in paths]
    except (OSError, ValueError):
        return None
    return [(status.st_size, status.st_mtime_ns, status.st_ctime_ns) for status in found]


def _read(path: str | None, form: Any) -> dict:
    try:
        content = pathlib.Path(path or os.devnull).read_bytes()
        code, digest, known = msgspec.json.decode(content, type=tuple[str, str, msgspec.Raw])
        return msgspec.json.decode(known, type=form) if code == _code() and digest == _digest(known) else {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _write(path: str, known: dict) -> None:
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with disk.atomically(path, sync=False) as temporary:
            content = msgspec.json.encode(known)
            pathlib.Path(temporary).write_bytes(msgspec.json.encode((_code(), _digest(content), msgspec.Raw(content))))


def _digest(content: bytes | msgspec.Raw) -> str:
    return hashlib.sha256(content).hexdigest()
