"""Images in the pipeline, and the memory that they share."""

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

PATIENCE = 0.1  # Seconds between two checks whether to keep waiting.


class StoppedError(Exception):
    """Raised in worker threads when the run is cancelled."""


class Job:
    """One image in the pipeline."""

    def __init__(self, source: Source):
        self.source = source
        self.prepared: Future = Future()  # Its result is the image and its plan.
        self.done: Future = Future()  # Its result is the prediction's part of the record.
        self.pixels: np.ndarray | None = None
        self.plan: Plan | None = None
        self.shape: dict[str, Any] = {}
        self.expected = 0  # Number of windows without a prediction.
        self._results: queue.Queue = queue.Queue(maxsize=4)

    def hand_over(self, result: dict[str, np.ndarray]) -> None:
        """Puts a result into the queue. Waits for space as long as the result is needed."""
        self.expected -= 1
        while not self.done.done():
            with contextlib.suppress(queue.Full):
                return self._results.put(result, timeout=PATIENCE)

    def results(self, stopped: threading.Event) -> Iterator[dict[str, np.ndarray]]:
        """Yields the predictions of its windows, in their order.

        Raises:
          StoppedError: if `stopped` is set while it waits.
        """
        while not stopped.is_set():
            with contextlib.suppress(queue.Empty):
                yield self._results.get(timeout=PATIENCE)
        raise StoppedError


class Memory:
    """Counts the memory of images in progress. Only one thread takes memory, so images enter in their order.

    Attributes:
      is_short: whether a thread waits for memory.
    """

    def __init__(self, limit: float):
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()
        self.is_short = False

    def take(self, amount: int, stopped: threading.Event) -> None:
        """Waits until there is enough memory, or no other image in progress.

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
        """Returns memory that was taken."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()
