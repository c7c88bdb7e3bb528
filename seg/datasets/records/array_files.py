"""ArrayRecord files, read by position."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seg.datasets import checking
from seg.files import irregular

# Nothing is read ahead of a record. Without these options a reader takes 16 MB and a pool of threads.
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


class ArrayFiles:
    """The records of several files in a row.

    A truncated or empty ArrayRecord file has no records, and its reader says nothing. So the number of records in each
    file is held against the number that is known from elsewhere.

    Args:
      where: the setting and the split, for messages.
      parts: the files; at least one record.
      origin: the file that states the numbers of records, for messages.
      remedy: what to do about a damaged file, a sentence.

    Raises:
      UserError: names the first five files that are missing or hold another number of records.
    """

    def __init__(self, where: str, parts: Sequence[Part], origin: str, remedy: str):
        self.parts = tuple(part for part in parts if part.count)
        self._remedy = remedy
        self._begins = np.cumsum([0, *(part.count for part in self.parts)])
        self._readers: list[Any] = [None] * len(self.parts)
        self._lock = threading.Lock()
        faults = [fault for part in self.parts if (fault := self._fault(part, origin))]
        checking.raise_problems(where, faults, len(self.parts), 'files')

    def __len__(self) -> int:
        return int(self._begins[-1])

    def read(self, index: int) -> bytes:
        """The record at a position. Any number of threads may read.

        Raises:
          OSError: if the file is damaged there, or has gone; names file and record.
        """
        number, record = self._find(index)
        try:
            return self._reader(number).read([record])[0]
        except (RuntimeError, ValueError, IndexError) as error:
            raise OSError(f'{self.place(index)}: {_text(error)}. {self._remedy}') from None

    def place(self, index: int) -> str:
        """File and number of the record at a position, for messages."""
        number, record = self._find(index)
        return f'{self.parts[number].path}, record {record}'

    def span(self, number: int) -> range:
        """The positions of the records of a part."""
        return range(int(self._begins[number]), int(self._begins[number + 1]))

    def _find(self, index: int) -> tuple[int, int]:
        """The part of a position, and the record in its file."""
        number = int(np.searchsorted(self._begins, index, side='right')) - 1
        return number, self.parts[number].start + int(index - self._begins[number])

    def _reader(self, number: int) -> Any:
        """The reader of a part, which is opened when it is first needed. Readers may be used by several threads."""
        if self._readers[number] is None:
            with self._lock:
                if self._readers[number] is None:
                    self._readers[number] = opened(self.parts[number].path)
        return self._readers[number]

    def _fault(self, part: Part, origin: str) -> str | None:
        if not os.path.exists(part.path):
            return f'{part.path}: there is no such file. {self._remedy}'
        if kind := irregular(part.path):
            return f'{part.path} is {kind}, expected a file. {self._remedy}'
        try:
            found = count(part.path)
        except (RuntimeError, ValueError, OSError) as error:
            return f'{part.path}: not an ArrayRecord file, or a truncated one ({_text(error)}). {self._remedy}'
        if found == part.total:
            return None
        cut = 'The file is truncated or damaged. ' if found < part.total else ''
        return f'{part.path} holds {found} records, expected {part.total} as in {origin}. {cut}{self._remedy}'


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
