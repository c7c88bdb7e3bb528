"""From sources to files: images are decoded before they are needed and written later, in bounded memory.

One thread reads the sizes of the images, in order, and admits as many as fit in the memory. A few threads decode the
images and scale them down. The caller's thread fills batches and runs the device. A few more threads assemble, encode
and write the predictions. The caller's thread writes the lines of `predictions.jsonl`, in the order of the sources.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import keras
import numpy as np
from absl import logging

from seg import cores
from seg.engine.base import Predictions, Predictor
from seg.errors import UserError
from seg.executor.progress import Progress
from seg.prediction import canvas, reading
from seg.prediction.jobs import PATIENCE, Job, Memory
from seg.prediction.outputs import Outputs
from seg.prediction.settings import PredictSettings
from seg.prediction.sources import Source

_NAMED = 8  # Failures in the summary.
_BYTES_PER_PIXEL = 7  # RGB, and Pillow's own copy of it while it decodes.


def summary(results: Mapping[str, Any]) -> str:
    """Describes the result of `predict` in one line."""
    failed = [f'{file}: {reason}' for file, reason in results['failed'].items()]
    text = f'{results["segmented"]} of {results["pictures"]} images segmented'
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
    settings: PredictSettings,
) -> dict[str, Any]:
    """Predicts images and writes the outputs.

    Args:
      sources: the images.
      predictor: the model.
      outputs: the output folder, and how the task places images on the canvas.
      size: (height, width) of the canvas.
      batch_size: global batch size; at most this many images are on the device at a time.
      settings: settings of the mode.

    Returns:
      `pictures` and `segmented` (numbers), `failed` (reasons by file), `seconds`, `output` and `checkpoint`.

    Raises:
      UserError: if the outputs cannot be written.
    """
    start = time.perf_counter()
    if outputs.one_canvas:  # A few images do not wait for a large batch.
        batch_size = min(batch_size, -(-len(sources) // predictor.replicas) * predictor.replicas)
    with reading.limited(settings.max_megapixels), outputs:
        run = _Run(sources, predictor, outputs, size, batch_size, settings)
        try:
            run.to_the_end()
        except UserError as error:
            raise UserError(f'{error} {run.done} of {len(sources)} images are done.') from None
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


class _Run:
    """One pass over the sources."""

    def __init__(self, sources, predictor, outputs, size, batch_size, settings):
        self._sources, self._predictor, self._outputs = sources, predictor, outputs
        self._size, self._batch_size, self._settings = size, batch_size, settings
        self.done = 0
        self.failed: dict[str, str] = {}
        threads = min(max(cores.usable(), 2), 8)
        self._readers, self._writers = ThreadPoolExecutor(threads, 'read'), ThreadPoolExecutor(threads, 'write')
        self._admission = ThreadPoolExecutor(1, 'admit')
        self._memory = Memory(settings.memory_mb * 2**20)
        self._stopped = threading.Event()
        self._admitted: queue.Queue[Job] = queue.Queue(maxsize=batch_size + threads)
        self._most = 2 * batch_size + 2 * threads  # Jobs at a time.
        self._jobs: collections.deque[Job] = collections.deque()
        self._batch: list[tuple[Job, int]] = []
        self._launched: tuple[list[tuple[Job, int]], np.ndarray, Predictions] | None = None
        self._progress = Progress('predicting', len(sources), 'images')

    def to_the_end(self) -> None:
        admission = self._admission.submit(self._admit)
        for _ in self._sources:
            self._start(self._next(admission))
            self._settle(self._most)
        self._flush()
        self._settle(0)

    def close(self) -> None:
        """Ends all threads."""
        self._progress.close()
        self._stopped.set()
        for pool in (self._admission, self._readers, self._writers):
            pool.shutdown(cancel_futures=True)

    # ---- In the worker threads ---------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Admits the images in their order."""
        for source in self._sources:
            job = Job(source)
            try:
                amount = self._bytes(*source.size())
            except reading.ImageError as error:
                job.prepared.set_exception(error)
            else:
                self._memory.take(amount, self._stopped)
                job.done.add_done_callback(lambda _, amount=amount: self._memory.give(amount))
                job.prepared = self._readers.submit(self._prepare, job)
            while not self._stopped.is_set():
                with contextlib.suppress(queue.Full):
                    self._admitted.put(job, timeout=PATIENCE)
                    break

    def _bytes(self, height: int, width: int) -> int:
        """Estimates the memory of an image from its decoding to its files."""
        return height * width * _BYTES_PER_PIXEL + self._outputs.prediction_bytes((height, width), self._size)

    def _prepare(self, job: Job) -> tuple[np.ndarray, canvas.Plan]:
        pixels = job.source.load()
        try:
            return pixels, self._outputs.plan(pixels, self._size)
        except MemoryError:
            raise reading.ImageError('not enough memory to scale it') from None

    def _finish(self, job: Job) -> None:
        try:
            try:
                prediction = job.plan.prediction(job.results(self._stopped))
                found = self._outputs.write(job.source, job.pixels, prediction)
            finally:  # Before `done` has a result, because that admits the next image.
                job.pixels = job.plan = None
        except MemoryError:
            job.done.set_exception(reading.ImageError('not enough memory to assemble its prediction'))
        except Exception as error:
            job.done.set_exception(error)
        else:
            job.done.set_result(found)

    # ---- In the caller's thread --------------------------------------------------------------------------------------

    def _next(self, admission: Future) -> Job:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._admitted.get(timeout=PATIENCE)
            if admission.done():
                admission.result()  # Raises its error: without one it ends only after the last job.
            if self._memory.is_short:
                self._flush()
            self._settle(self._most)

    def _start(self, job: Job) -> None:
        self._jobs.append(job)
        try:
            job.pixels, job.plan = job.prepared.result()
        except reading.ImageError as error:
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
        """Runs the waiting images, even if they do not fill a batch."""
        self._launch()
        self._collect()

    def _launch(self) -> None:
        """Sends a batch to the device, then collects the previous one."""
        views, self._batch = self._batch, []
        if not views:
            return
        plans = [(job.plan, number) for job, number in views]
        windows = [plan.window(number) if plan else None for plan, number in plans]  # None: it has failed meanwhile.
        batch = canvas.batch(windows, self._batch_size, self._size, keras.config.floatx())
        launched = (views, batch['size'], self._predictor(batch))
        self._collect()
        self._launched = launched
        self._record()  # An image of many windows takes a while.

    def _collect(self) -> None:
        """Passes the predictions of the last batch to the threads that assemble them."""
        if self._launched is None:
            return
        (views, sizes, predictions), self._launched = self._launched, None
        for i, (job, _) in enumerate(views):
            plan = job.plan
            keys = plan.keys if plan else ()
            size = sizes[i] if plan and plan.maps else None
            job.hand_over({key: predictions.get(key, i, size) for key in keys})

    def _settle(self, most: int) -> None:
        """Waits until at most `most` images are in progress."""
        self._record()
        while len(self._jobs) > most:
            oldest = self._jobs[0]
            if oldest.expected and not oldest.done.done():
                self._flush()
            else:
                wait([oldest.done])
            self._record()

    def _record(self) -> None:
        """Writes the lines of the finished images, in their order."""
        while self._jobs and self._jobs[0].done.done():
            job = self._jobs.popleft()
            record = {'file': job.source.file, 'output': job.source.name, **job.shape}
            try:
                record |= job.done.result()
            except reading.ImageError as error:
                self._progress.close()
                logging.warning('%s: %s', job.source.file, error)
                self.failed[job.source.file] = str(error)
                record = {'file': job.source.file, 'error': str(error)}
            self._outputs.line(record)
            self.done += 1
        self._progress.update(self.done, f'{len(self.failed)} failed' if self.failed else '')
