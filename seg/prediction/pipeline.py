"""From sources to files: decoding ahead, batches on the device, writing behind; all of it in bounded memory.

One thread asks for the sizes of the pictures, in order, and lets in as many as the memory holds. A few threads decode
and shrink them. The caller's thread fills batches and runs the device. A few more threads put the predictions together,
encode and write. The lines of `predictions.jsonl` are written by the caller's thread, in the order of the sources.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import keras
import numpy as np
from absl import logging

from seg.errors import UserError
from seg.executor.predictor import Predictions, Predictor
from seg.executor.progress import Progress
from seg.prediction import canvas, reading
from seg.prediction.outputs import Outputs
from seg.prediction.sources import Source
from seg.structures import PAD_PIXEL

_PATIENCE = 0.1  # Seconds between two looks at whether to go on waiting.
_NAMED = 8  # Failures in the summary.
_BYTES_PER_PIXEL = 8  # RGB, Pillow's own copy of it while it decodes, and the classes.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """What `--mode=predict` does with pictures.

    Attributes:
      large_pictures: what becomes of pictures larger than the canvas, which is as large as the largest training image.
        'shrink': scaled down to fit, and the class probabilities scaled back up; objects are seen whole. 'tile': cut
        into overlapping windows at their own scale; small things are seen, but no window sees the whole.
      tile_overlap: of neighbouring windows, as a share of the window, from 0 to 0.9.
      opacity: of the classes' colours in overlays, from 0 to 1.
      max_megapixels: larger pictures are refused: their file may be a decompression bomb.
      memory_mb: pictures that take about this much memory are in work at a time, and at least one.
    """

    large_pictures: str = 'shrink'
    tile_overlap: float = 0.25
    opacity: float = 0.5
    max_megapixels: float = 180
    memory_mb: int = 1024

    def __post_init__(self):
        if self.large_pictures not in ('shrink', 'tile'):
            raise UserError(f"predict.large_pictures = {self.large_pictures!r}: expected 'shrink' or 'tile'.")
        for name, lowest, highest in (
            ('tile_overlap', 0, 0.9),
            ('opacity', 0, 1),
            ('max_megapixels', 0.001, 1e6),
            ('memory_mb', 0.001, 1e9),
        ):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and lowest <= value <= highest):
                raise UserError(f'predict.{name} = {value!r}: expected a number from {lowest:g} to {highest:g}.')


def summary(results: Mapping[str, Any]) -> str:
    """One line about what `predict` returned."""
    failed = [f'{file}: {reason}' for file, reason in results['failed'].items()]
    text = f'{results["segmented"]} of {results["pictures"]} pictures segmented'
    if not failed:
        return text
    more = f'; … ({len(failed) - _NAMED} more)' if len(failed) > _NAMED else ''
    return f'{text}; {len(failed)} failed: {"; ".join(failed[:_NAMED])}{more}'


def predict(
    sources: Sequence[Source],
    predictor: Predictor,
    outputs: Outputs,
    *,
    size: canvas.Size,
    batch_size: int,
    settings: Predict,
) -> dict[str, Any]:
    """Predicts pictures and writes what they give.

    Args:
      sources: the pictures.
      predictor: the model.
      outputs: where to.
      size: (height, width) of the canvas.
      batch_size: global; at most so many images on the device at a time.
      settings: of the mode.

    Returns:
      `pictures` and `segmented` (numbers), `failed` (reasons by file), `seconds`, `output` and `checkpoint`.

    Raises:
      UserError: if the outputs cannot be written (any more).
    """
    start = time.perf_counter()
    if settings.large_pictures == 'shrink':  # One canvas a picture: a few of them do not wait for a large batch.
        batch_size = min(batch_size, -(-len(sources) // predictor.replicas) * predictor.replicas)
    with reading.limited(settings.max_megapixels), outputs:
        run = _Run(sources, predictor, outputs, size, batch_size, settings)
        try:
            run.to_the_end()
        except UserError as error:
            raise UserError(f'{error} {run.done} of {len(sources)} pictures are done.') from None
        finally:
            run.close()
    return {
        'pictures': len(sources),
        'segmented': len(sources) - len(run.failed),
        'failed': run.failed,
        'seconds': round(time.perf_counter() - start, 3),
        'output': outputs.folder,
        'checkpoint': predictor.checkpoint,
    }


class _StoppedError(Exception):
    """The run ends before its end."""


class _Job:
    """One picture on its way."""

    def __init__(self, source: Source):
        self.source = source
        self.prepared: Future = Future()  # Gives the picture and its plan.
        self.done: Future = Future()  # Gives its part of the record.
        self.pixels: np.ndarray | None = None
        self.plan: canvas.Plan | None = None
        self.shape: dict[str, Any] = {}
        self.expected = 0  # Windows whose predictions have not been handed over.
        self._results: queue.Queue = queue.Queue(maxsize=4)

    def hand_over(self, result: dict[str, np.ndarray]) -> None:
        """Waits for room, unless nobody will want the result any more."""
        self.expected -= 1
        while not self.done.done():
            with contextlib.suppress(queue.Full):
                return self._results.put(result, timeout=_PATIENCE)

    def results(self, stopped: threading.Event) -> Iterator[dict[str, np.ndarray]]:
        while not stopped.is_set():
            with contextlib.suppress(queue.Empty):
                yield self._results.get(timeout=_PATIENCE)
        raise _StoppedError


class _Memory:
    """Counts what pictures in work take. One thread takes, so they come in in their order."""

    def __init__(self, limit: float):
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()
        self.is_short = False

    def take(self, amount: int, stopped: threading.Event) -> None:
        """Waits until there is room, or nothing else."""
        with self._changed:
            while self._used and self._used + amount > self._limit:
                if stopped.is_set():
                    raise _StoppedError
                self.is_short = True
                self._changed.wait(_PATIENCE)
            self.is_short = False
            self._used += amount

    def give(self, amount: int) -> None:
        with self._changed:
            self._used -= amount
            self._changed.notify_all()


class _Run:
    """One pass over the sources."""

    def __init__(self, sources, predictor, outputs, size, batch_size, settings):
        self._sources, self._predictor, self._outputs = sources, predictor, outputs
        self._size, self._batch_size, self._settings = size, batch_size, settings
        self.done = 0
        self.failed: dict[str, str] = {}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        threads = min(max(cores, 2), 8)
        self._readers, self._writers = ThreadPoolExecutor(threads, 'read'), ThreadPoolExecutor(threads, 'write')
        self._doorman = ThreadPoolExecutor(1, 'admit')
        self._memory = _Memory(settings.memory_mb * 2**20)
        self._stopped = threading.Event()
        self._admitted: queue.Queue[_Job] = queue.Queue(maxsize=batch_size + threads)
        self._most = 2 * batch_size + 2 * threads  # Jobs at a time.
        self._jobs: collections.deque[_Job] = collections.deque()
        self._batch: list[tuple[_Job, int]] = []
        self._launched: tuple[list[tuple[_Job, int]], np.ndarray, Predictions] | None = None
        self._progress = Progress('predicting', len(sources), 'pictures')

    def to_the_end(self) -> None:
        admission = self._doorman.submit(self._admit)
        for _ in self._sources:
            self._start(self._next(admission))
            self._settle(self._most)
        self._flush()
        self._settle(0)

    def close(self) -> None:
        """Ends all threads."""
        self._progress.close()
        self._stopped.set()
        for pool in (self._doorman, self._readers, self._writers):
            pool.shutdown(cancel_futures=True)

    # ---- In the threads ----------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Lets the pictures in, in their order."""
        for source in self._sources:
            job = _Job(source)
            try:
                amount = self._bytes(*source.size())
            except reading.PictureError as error:
                job.prepared.set_exception(error)
            else:
                self._memory.take(amount, self._stopped)
                job.done.add_done_callback(lambda _, amount=amount: self._memory.give(amount))
                job.prepared = self._readers.submit(self._prepare, job)
            while not self._stopped.is_set():
                with contextlib.suppress(queue.Full):
                    self._admitted.put(job, timeout=_PATIENCE)
                    break

    def _bytes(self, height: int, width: int) -> int:
        """About what a picture takes from its decoding to its files."""
        canvas_height, canvas_width = self._size
        maps = canvas_height * canvas_width
        if self._settings.large_pictures == 'tile' and width > canvas_width:
            maps += canvas_height * width
        return height * width * _BYTES_PER_PIXEL + 4 * self._outputs.num_classes * maps

    def _prepare(self, job: _Job) -> tuple[np.ndarray, canvas.Plan]:
        settings = self._settings
        pixels = job.source.load()
        try:
            plan = canvas.plan(
                pixels, self._size, settings.large_pictures, settings.tile_overlap, self._outputs.probabilities
            )
        except MemoryError:
            raise reading.PictureError('not enough memory to shrink it') from None
        return pixels, plan

    def _finish(self, job: _Job) -> None:
        try:
            try:
                bands = job.plan.bands(job.results(self._stopped))
                found = self._outputs.picture(job.source.name, job.pixels, bands)
            finally:  # Before `done` is told, which lets the next picture in.
                job.pixels = job.plan = None
        except MemoryError:
            job.done.set_exception(reading.PictureError('not enough memory to put its prediction together'))
        except Exception as error:
            job.done.set_exception(error)
        else:
            job.done.set_result(found)

    # ---- In the caller's thread --------------------------------------------------------------------------------------

    def _next(self, admission: Future) -> _Job:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._admitted.get(timeout=_PATIENCE)
            if admission.done():
                admission.result()  # Raises, for it ends after the last job only if nothing went wrong.
            if self._memory.is_short:
                self._flush()
            self._settle(self._most)

    def _start(self, job: _Job) -> None:
        self._jobs.append(job)
        try:
            job.pixels, job.plan = job.prepared.result()
        except reading.PictureError as error:
            job.done.set_exception(error)
            return
        plan = job.plan
        height, width = job.pixels.shape[:2]
        job.shape = {'width': width, 'height': height, 'scale': round(plan.scale, 6), 'windows': plan.windows}
        job.expected = plan.windows
        self._writers.submit(self._finish, job)
        for number in range(plan.windows):
            self._batch.append((job, number))
            if len(self._batch) == self._batch_size:
                self._launch()

    def _flush(self) -> None:
        """Runs what is there, though it may be less than a batch."""
        self._launch()
        self._collect()

    def _launch(self) -> None:
        """Sends a batch to the device, then collects the one before it."""
        views, self._batch = self._batch, []
        if not views:
            return
        image = np.empty((self._batch_size, *self._size, 3), keras.config.floatx())
        image[:] = PAD_PIXEL
        sizes = np.ones((self._batch_size, 2), np.int32)
        for i, (job, number) in enumerate(views):
            if plan := job.plan:  # Else it has failed since.
                pixels = plan.window(number)
                sizes[i] = pixels.shape[:2]
                image[i, : sizes[i, 0], : sizes[i, 1]] = pixels
        launched = (views, sizes, self._predictor({'image': image, 'size': sizes}))
        self._collect()
        self._launched = launched
        self._record()  # A picture of many windows takes a while.

    def _collect(self) -> None:
        """Hands the predictions of the last batch to whoever puts them together."""
        if self._launched is None:
            return
        (views, sizes, predictions), self._launched = self._launched, None
        for i, (job, _) in enumerate(views):
            plan = job.plan
            keys = plan.keys if plan else ()
            job.hand_over({key: predictions.get(key, i, sizes[i]) for key in keys})

    def _settle(self, most: int) -> None:
        """Waits until no more than `most` pictures are in work."""
        self._record()
        while len(self._jobs) > most:
            oldest = self._jobs[0]
            if oldest.expected and not oldest.done.done():
                self._flush()
            else:
                wait([oldest.done])
            self._record()

    def _record(self) -> None:
        """Writes the lines of the pictures that are done, in their order."""
        while self._jobs and self._jobs[0].done.done():
            job = self._jobs.popleft()
            record = {'file': job.source.file, 'output': job.source.name, **job.shape}
            try:
                record |= job.done.result()
            except reading.PictureError as error:
                self._progress.close()
                logging.warning('%s: %s', job.source.file, error)
                self.failed[job.source.file] = str(error)
                record = {'file': job.source.file, 'error': str(error)}
            self._outputs.line(record)
            self.done += 1
        self._progress.update(self.done, f'{len(self.failed)} failed' if self.failed else '')
