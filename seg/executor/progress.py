"""Progress: a line that is updated in place on a terminal and in a notebook, and plain lines at intervals in a log."""

from __future__ import annotations

import collections
import sys
import time

from absl import logging

from seg.executor import notebook
from seg.run import train_log

_APART = 1.0  # Seconds between two counts that are kept, which may be of a hundred images a second.
_WINDOW = 900.0  # Seconds whose speed gives the time left: long enough for steps and evaluations.


class Progress:
    """Shows the progress of some work.

    The line of a terminal or a notebook is rewritten; a log gets a line every `quiet` seconds.

    The time left follows from the updates of the last quarter of an hour, so the work before the first one, such as a
    compilation, does not count.
    """

    def __init__(self, what: str, total: int | None, unit: str, quiet: float = 30.0):
        """Starts the clock.

        Args:
          what: title.
          total: end of the count; None if it is unknown.
          unit: name of the counted items, such as 'images'.
          quiet: seconds between two lines of a log.
        """
        self._what, self._total, self._unit = what, total, unit
        self._marks: collections.deque[tuple[float, int]] = collections.deque()  # Times and counts of the updates.
        self._shown = self._logged = time.perf_counter()
        self._line = sys.stderr if sys.stderr.isatty() else notebook.stream()  # None for a log.
        self._quiet = quiet
        self._width = 0

    def begin(self, done: int) -> None:
        """States the count from which on time is measured; otherwise that of the first update. Shows nothing."""
        self._marks.append((time.perf_counter(), done))

    def update(self, done: int, detail: str = '', force: bool = False) -> None:
        """Shows the count and `detail`, unless the last update was a moment ago. `force` always shows it."""
        now = time.perf_counter()
        if done and (not self._marks or now - self._marks[-1][0] >= _APART):
            self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] > _WINDOW:
            self._marks.popleft()
        logs = now - self._logged >= self._quiet
        shows = self._line is not None and (now - self._shown >= 0.1 or done == self._total)
        if not (force or logs or shows):
            return
        total = f'/{self._total}' if self._total else ''
        text = f'{self._what}: {done}{total} {self._unit}' + (f', {detail}' if detail else '')
        begin, before = self._marks[0] if self._marks else (now, done)
        if self._total and done > before:
            text += f', {_clock((now - begin) / (done - before) * (self._total - done))} left'
        if self._line:
            self._line.write('\r' + text.ljust(self._width))
            self._line.flush()
            self._shown, self._width = now, len(text)
            if logs:  # The file has the lines that a log would have.
                train_log.add(text, timed=True)
        else:
            logging.info('%s', text)
        if logs or force:
            self._logged = now

    def close(self) -> None:
        """Ends the line on a terminal or in a notebook."""
        if self._line and self._width:
            self._line.write('\n')
            self._width = 0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
