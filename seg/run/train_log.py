"""`train.log`: what the terminal shows of a training, from its first line on."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from seg.files import writing

_MOST = 10_000  # Lines that are held until the folder of the run is known; other modes than trainings have none.


class TrainLog(logging.Handler):
    """Holds all lines until `open` names the file, and appends the later ones to it at once, so that a kill loses none.

    Lines of the log have date and time. A line that cannot be written is dropped: a full disk stops the run at its next
    checkpoint, with a message.
    """

    def __init__(self):
        super().__init__()
        self.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%Y-%m-%d %H:%M:%S'))
        self._held: collections.deque[str] = collections.deque(maxlen=_MOST)
        self._file: BinaryIO | None = None

    def open(self, path: str, command: Sequence[str] = ()) -> None:
        """Begins to write, after what earlier starts of the run have left.

        Args:
          path: the file.
          command: the command line; empty for none.

        Raises:
          UserError: if the file cannot be written.
        """
        with writing(path):
            self._file = open(path, 'ab+', buffering=0)
            if size := self._file.seek(0, os.SEEK_END):
                self._file.seek(size - 1)
                self._file.write(b'\n' if self._file.read() == b'\n' else b'\n\n')  # A kill may have cut a line.
        held, self._held = self._held, collections.deque(maxlen=0)
        for text in [f'$ {shlex.join(command)}'] * bool(command) + list(held):
            self.add(text)

    def emit(self, record: logging.LogRecord) -> None:
        self.add(self.format(record))

    def add(self, text: str) -> None:
        """Adds lines as they are. Without locks or buffers: a handler of signals may call this."""
        if self._file is None:
            self._held.append(text)
            return
        with contextlib.suppress(OSError):
            self._file.write((text + '\n').encode('utf-8', 'backslashreplace'))

    def close(self) -> None:
        super().close()
        if self._file is not None:
            self._file.close()


_active: TrainLog | None = None


@contextlib.contextmanager
def recording() -> Iterator[TrainLog]:
    """Context whose lines are recorded; within another one it returns that one's log."""
    global _active
    if _active is not None:
        yield _active
        return
    logger = logging.getLogger('absl')
    level = logger.level
    _active = TrainLog()
    logger.addHandler(_active)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield _active
    except Exception as error:  # Of a run that no command prints it of.
        _active.add(f'{type(error).__name__}: {error}')
        raise
    finally:
        logger.setLevel(level)
        logger.removeHandler(_active)
        _active.close()
        _active = None


def add(text: str, timed: bool = False) -> None:
    """Records what the terminal shows besides the log; `timed` puts date and time before it."""
    if _active is not None:
        _active.add(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {text}' if timed else text)
