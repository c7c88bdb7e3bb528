"""Progress: a line that is updated in place on a terminal and in a notebook, and plain lines at intervals in a log."""

from __future__ import annotations

import sys
import time

from absl import logging

from seg.executor import notebook


class Progress:
    """Shows the progress of some work.

    The line of a terminal or a notebook is rewritten; a log gets a line every `quiet` seconds.
    """

    def __init__(self, what: str, total: int | None, unit: str, done: int = 0, quiet: float = 30.0):
        """Starts the clock.

        Args:
          what: title.
          total: end of the count; None if it is unknown.
          unit: name of the counted items, such as 'images'.
          done: start of the count.
          quiet: seconds between two lines of a log.
        """
        self._what, self._total, self._unit = what, total, unit
        self._first = done
        self._start = self._last = time.perf_counter()
        self._line = sys.stderr if sys.stderr.isatty() else notebook.stream()  # None for a log.
        self._quiet = 0.1 if self._line else quiet
        self._width = 0

    def update(self, done: int, detail: str = '', force: bool = False) -> None:
        """Shows the count and `detail`, unless the last update was a moment ago. `force` always shows it."""
        now = time.perf_counter()
        if not force and now - self._last < self._quiet:
            return
        self._last = now
        total = f'/{self._total}' if self._total else ''
        text = f'{self._what}: {done}{total} {self._unit}' + (f', {detail}' if detail else '')
        if self._total and done > self._first:
            text += f', {_clock((now - self._start) / (done - self._first) * (self._total - done))} left'
        if self._line:
            self._line.write('\r' + text.ljust(self._width))
            self._line.flush()
            self._width = len(text)
        else:
            logging.info('%s', text)

    def close(self) -> None:
        """Ends the line on a terminal or in a notebook."""
        if self._line and self._width:
            self._line.write('\n')
            self._width = 0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
