"""ArrayRecord files, read by position."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from seg.datasets import checking
from seg.datasets.records.places import Places
from seg.files import irregular

# No read-ahead. Without these options a reader takes 16 MB and a pool of threads.
_RANDOM_ACCESS = 'readahead_buffer_size:0,max_parallelism:0'
_BUFFER = 1 << 15  # Bytes.


class Part(NamedTuple):
    """Some of the records of a file, one after the other.

    Attributes:
      path: the file.
      start: the first record, from 0.
      count: number of records.
      total: number of records that the file should hold.
    """

    path: str
    start: int
    count: int
    total: int


def check(where: str, parts: Sequence[Part], origin: str, remedy: str) -> None:
    """Refuses files that are missing, or hold another number of records than is known from elsewhere.

    A truncated or empty ArrayRecord file has no records, and its reader says nothing.

    Args:
      where: the setting and the split, for messages.
      parts: the files.
      origin: the file that states the numbers of records, for messages.
      remedy: what to do about a damaged file, a sentence.

    Raises:
      UserError: names the first five of these files.
    """
    totals = {part.path: part.total for part in parts if part.count}
    faults = [fault for path, total in totals.items() if (fault := _fault(path, total, origin, remedy))]
    checking.raise_problems(where, faults, len(totals), 'files')


def _fault(path: str, total: int, origin: str, remedy: str) -> str | None:
    if not os.path.exists(path):
        return f'{path}: there is no such file. {remedy}'
    if kind := irregular(path):
        return f'{path} is {kind}, expected a file. {remedy}'
    try:
        found = count(path)
    except (RuntimeError, ValueError, OSError) as error:
        return f'{path}: not an ArrayRecord file, or a truncated one ({_text(error)}). {remedy}'
    if found == total:
        return None
    cut = 'The file is truncated or damaged. ' if found < total else ''
    return f'{path} holds {found} records, expected {total} as in {origin}. {cut}{remedy}'


def contents(path: str, numbers: Iterable[int], remedy: str) -> Iterator[bytes | str]:
    """Yields the data of records, or the fault of a damaged one."""
    try:
        reader = opened(path)
    except (RuntimeError, ValueError) as error:
        for number in numbers:
            yield f'{path}, record {number}: {_text(error)}. {remedy}'
        return
    try:
        for number in numbers:
            try:
                yield reader.read([number])[0]
            except (RuntimeError, ValueError, IndexError) as error:
                yield f'{path}, record {number}: {_text(error)}. {remedy}'
    finally:
        reader.close()


class ArrayFiles(Places):
    """The records of several files; the arguments of `Places`, and what to do about a damaged file, a sentence."""

    def __init__(self, paths: Sequence[str], owners: np.ndarray, numbers: np.ndarray, remedy: str):
        super().__init__(paths, owners, numbers)
        self._remedy = remedy
        self._readers: list[Any] = [None] * len(paths)
        self._lock = threading.Lock()

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """The data of the record at a position, a scalar string; for graphs, any number of threads.

        Raises:
          OSError: if the file is damaged there, or has gone; names file and record.
        """
        return tf.ensure_shape(tf.numpy_function(self._read, [index], tf.string), [])

    def _read(self, index: np.ndarray) -> bytes:
        try:
            return self._reader(self.owners[index]).read([int(self.numbers[index])])[0]
        except (RuntimeError, ValueError, IndexError) as error:
            raise OSError(f'{self.place(int(index))}: {_text(error)}. {self._remedy}') from None

    def _reader(self, file: int) -> Any:
        """The reader of a file, which is opened when it is first needed. Readers may be used by several threads."""
        if self._readers[file] is None:
            with self._lock:
                if self._readers[file] is None:
                    self._readers[file] = opened(self.paths[file])
        return self._readers[file]


def opened(path: str) -> Any:
    """A reader of an ArrayRecord file, for random access.

    Raises:
      RuntimeError, ValueError: if the file cannot be opened.
    """
    from array_record.python import array_record_module

    return array_record_module.ArrayRecordReader(path, options=_RANDOM_ACCESS, file_reader_buffer_size=_BUFFER)


def count(path: str) -> int:
    """The number of records of a file, as its end states it; 0 for a file that is truncated."""
    reader = opened(path)
    try:
        return reader.num_records()
    finally:
        reader.close()


def _text(error: Exception) -> str:
    return f'{" ".join(str(error).split()):.200}'.rstrip('.') or 'no reason is given'
