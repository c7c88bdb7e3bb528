"""Pictures on their way through the pipeline, and the memory that they share."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np

from seg.prediction.canvas import Plan
from seg.prediction.sources import Source

PATIENCE = 0.1  # Seconds between two looks at whether to go on waiting.


class StoppedError(Exception):
    """Raised in worker threads when the run is cancelled."""


class Job:
    """One picture on its way."""

    def __init__(self, source: Source):
        self.source = source
        self.prepared: Future = Future()  # Gives the picture and its plan.
        self.done: Future = Future()  # Gives its part of the record.
        self.pixels: np.ndarray | None = None
        self.plan: Plan | None = None
        self.shape: dict[str, Any] = {}
        self.expected = 0  # Windows whose predictions have not been handed over.
        self._results: queue.Queue = queue.Queue(maxsize=4)

    def hand_over(self, result: dict[str, np.ndarray]) -> None:
        """Waits for room, unless nobody will want the result any more."""
        self.expected -= 1
        while not self.done.done():
            with contextlib.suppress(queue.Full):
                return self._results.put(result, timeout=PATIENCE)

    def results(self, stopped: threading.Event) -> Iterator[dict[str, np.ndarray]]:
        """The predictions of its windows, in their order.

        Raises:
          StoppedError: if `stopped` is set while one is waited for.
        """
        while not stopped.is_set():
            with contextlib.suppress(queue.Empty):
                yield self._results.get(timeout=PATIENCE)
        raise StoppedError


class Memory:
    """Counts what pictures in work take. One thread takes, so they come in in their order.

    Attributes:
      is_short: whether somebody waits for some.
    """

    def __init__(self, limit: float):
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()
        self.is_short = False

    def take(self, amount: int, stopped: threading.Event) -> None:
        """Waits until there is room, or nothing else.

        Raises:
          StoppedError: if `stopped` is set meanwhile.
        """
        with self._changed:
            while self._used and self._used + amount > self._limit:
                if stopped.is_set():
                    raise StoppedError
                self.is_short = True
                self._changed.wait(PATIENCE)
            self.is_short = False
            self._used += amount

    def give(self, amount: int) -> None:
        """Gives back what was taken."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()
