"""Batches of windows from several requests: one thread runs the model."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import keras
import numpy as np

from seg.engine.base import Predictor
from seg.prediction import canvas
from seg.prediction.canvas import Plan, Size
from seg.prediction.jobs import PATIENCE, StoppedError

_AHEAD = 4  # Windows of one image that wait for the model, or for their place in the image.


class _Waiting(NamedTuple):
    window: np.ndarray
    keys: Sequence[str]
    is_map: bool
    since: float
    result: Future


class Batcher:
    """Runs a model on the windows of many images.

    The first window that waits begins a batch. It runs when it is full, or `wait` seconds after that window came. While
    the model runs, windows gather for the next batch, which then starts at once. A batch has one of a few sizes, so the
    model is traced for these only; the smallest that holds the windows is taken.

    As a context it runs the model once for each size, then starts its thread; at the end the thread stops.
    """

    def __init__(
        self,
        predictor: Predictor,
        size: Size,
        batch_sizes: Sequence[int],
        wait: float,
        ran: Callable[[int, float], None] = lambda images, seconds: None,
    ):
        """Makes a batcher.

        Args:
          predictor: the model.
          size: (height, width) of its canvas.
          batch_sizes: sizes of batches, ascending.
          wait: seconds.
          ran: is called after each batch with its number of windows and its seconds.
        """
        self._predictor, self._size, self._batch_sizes = predictor, size, list(batch_sizes)
        self._wait, self._ran = wait, ran
        self._queue: queue.Queue[_Waiting | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name='model', daemon=True)

    def __enter__(self) -> Batcher:
        window = np.zeros((*self._size, 3), np.uint8)
        for batch_size in self._batch_sizes:
            self._predict([window], batch_size).get('classes', 0)  # Waits until the device is done.
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._queue.put(None)
        self._thread.join()

    def results(self, plan: Plan, stopped: threading.Event) -> Iterator[dict[str, np.ndarray]]:
        """Yields the outputs for the windows of an image, in their order.

        Raises:
          StoppedError: if `stopped` is set while it waits.
        """
        ahead: list[Future] = []
        try:
            for number in range(plan.windows):
                if len(ahead) == _AHEAD:
                    yield _of(ahead[0], stopped)
                    del ahead[0]
                waiting = _Waiting(plan.window(number), plan.keys, plan.maps, time.monotonic(), Future())
                ahead.append(waiting.result)
                self._queue.put(waiting)
            while ahead:
                yield _of(ahead[0], stopped)
                del ahead[0]
        finally:
            for future in ahead:
                future.cancel()

    # ---- In the model's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._gathered()
            batch = [waiting for waiting in batch if waiting.result.set_running_or_notify_cancel()]
            if not batch:
                continue
            start = time.perf_counter()
            try:
                found = self._outputs(batch)
            except Exception as error:
                for waiting in batch:
                    waiting.result.set_exception(error)
            else:
                for waiting, result in zip(batch, found, strict=True):
                    waiting.result.set_result(result)
            self._ran(len(batch), time.perf_counter() - start)

    def _gathered(self) -> tuple[list[_Waiting], bool]:
        """Waits for the windows of a batch. Returns them, and whether they are the last ones."""
        first = self._queue.get()
        if first is None:
            return [], True
        batch = [first]
        while len(batch) < self._batch_sizes[-1]:
            rest = first.since + self._wait - time.monotonic()
            with contextlib.suppress(queue.Empty):
                following = self._queue.get(timeout=rest) if rest > 0 else self._queue.get_nowait()
                if following is None:
                    return batch, True
                batch.append(following)
                continue
            break
        return batch, False

    def _outputs(self, batch: Sequence[_Waiting]) -> list[dict[str, np.ndarray]]:
        batch_size = next(size for size in self._batch_sizes if size >= len(batch))
        found = self._predict([waiting.window for waiting in batch], batch_size)
        sizes = [waiting.window.shape[:2] if waiting.is_map else None for waiting in batch]
        return [
            {key: found.get(key, i, size) for key in waiting.keys}
            for i, (waiting, size) in enumerate(zip(batch, sizes, strict=True))
        ]

    def _predict(self, windows: Sequence[np.ndarray], batch_size: int):
        return self._predictor(canvas.batch(windows, batch_size, self._size, keras.config.floatx()))


def batch_sizes(largest: int, replicas: int = 1) -> list[int]:
    """Sizes of batches up to the largest: the number of replicas times powers of two, and the largest."""
    sizes = [replicas]
    while sizes[-1] * 2 < largest:
        sizes.append(sizes[-1] * 2)
    return [*sizes, largest] if largest > sizes[-1] else sizes


def _of(future: Future, stopped: threading.Event) -> dict[str, np.ndarray]:
    while not stopped.is_set():
        with contextlib.suppress(TimeoutError):
            return future.result(timeout=PATIENCE)
    raise StoppedError
