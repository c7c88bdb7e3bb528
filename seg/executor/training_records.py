"""Records of a training: lines of metrics.jsonl, TensorBoard events, and the time taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import psutil
from absl import logging

from seg.engine.base import Engine, LoopResult
from seg.executor import unreadable
from seg.executor.progress import Progress
from seg.executor.run_config import RunConfig
from seg.run.events import Events
from seg.run.folder import RunFolder
from seg.run.metrics_log import MetricsLog
from seg.structures import ImageSummary, Input


class TrainingRecords:
    """Records of one run. The chief writes; every process counts the time, and reports unreadable images."""

    def __init__(self, config: RunConfig, task, engine: Engine, folder: RunFolder, log: MetricsLog):
        self._config, self._task, self._engine, self._folder, self._log = config, task, engine, folder, log
        self._events: Events | None = None
        self._progress: Progress | None = None
        self._seconds = 0.0
        self._timed = [0, 0.0]  # Images and seconds, without the first loop of each process, which includes tracing.
        self._first_loop = True

    def open(self, step: int, last: int, text: str) -> None:
        """Begins the records of the steps after `step`.

        Args:
          step: steps taken before.
          last: last step of the training.
          text: Markdown of the settings, for TensorBoard; empty for none.
        """
        self._progress = Progress('training', last, 'steps', step)
        if not self._engine.chief:
            return
        self._events = Events(self._folder.train, step)
        if text:
            self._events.text(step, 'config', text)

    def show(self, examples: Iterable[tuple[str, np.ndarray]]) -> None:
        """Writes figures of training examples, `examples/1`, … (only the chief)."""
        figures = (ImageSummary(f'examples/{n}', pixels, photo=True) for n, (_, pixels) in enumerate(examples, start=1))
        self._events.figures(0, figures)
        self._events.flush()

    def add(self, result: LoopResult, step: int, seconds: float, source: Input) -> None:
        """Writes the means of one loop, and reports unreadable images.

        Args:
          result: results of the loop.
          step: last step of the loop.
          seconds: duration of the loop.
          source: the training data.

        Raises:
          UserError: if no image could be read, an augmentation failed, or a file cannot be written.
        """
        images = len(result.losses) * source.batch_size
        if not self._first_loop:
            self._timed = [self._timed[0] + images, self._timed[1] + seconds]
        self._first_loop = False
        self._seconds += seconds
        losses = result.losses.mean(0)
        counts = result.counts.sum(0) / max(np.count_nonzero(result.weight), 1)
        values = {
            'loss': float(losses.sum()),
            **{f'loss/{name}': float(value) for name, value in zip(result.terms, losses, strict=True)},
            **{f'counts/{name}': float(value) for name, value in zip(result.counted, counts, strict=True)},
            'learning_rate': float(result.learning_rate[-1]),
            'gradient_norm': float(result.gradient_norm.mean()),
            'images_per_second': images / seconds,
            **({} if self._engine.deterministic else {'data_wait': float(min(result.wait.sum() / seconds, 1.0))}),
            'host_memory_mb': psutil.Process().memory_info().rss / 2**20,
        }
        if self._events:
            self._log.add('train', step, values)
            self._events.scalars(step, values)
            self._events.flush()
        places = np.flatnonzero(result.weight == 0)
        unreadable.report(source, (step - len(result.losses)) * source.batch_size, places, result.index.ravel())
        if advice := self._task.advice(dict(zip(result.counted, counts, strict=True))):
            logging.warning('Steps up to %d: %s', step, advice)
        self._progress.update(step, f'loss {values["loss"]:.4f}, {values["images_per_second"]:.1f} images/s')

    def close(self) -> None:
        self._progress.close()
        if self._events:
            self._events.close()

    def times(self) -> dict[str, Any]:
        """Returns the times, for the metadata of a checkpoint."""
        return {'train_seconds': self._seconds, 'timed': self._timed}

    def read_times(self, metadata: Mapping[str, Any], path: str) -> None:
        """Continues from the times of the checkpoint at a path."""
        try:
            images, seconds = metadata.get('timed', [0, 0.0])
            self._timed = [int(images), float(seconds)]
            self._seconds = float(metadata.get('train_seconds', 0.0))
        except (TypeError, ValueError, OverflowError):
            logging.warning('%s lacks the times of its training: they are counted from here on.', path)

    def speed(self, step: int) -> dict[str, float | None]:
        """`train_seconds` and `train_images_per_second` of all steps up to `step`; None without a known training."""
        images, seconds = self._timed
        if not seconds:  # There was only one loop, which includes tracing.
            images, seconds = step * self._config.batch_size, self._seconds
        return {
            'train_seconds': round(self._seconds, 3) if self._seconds else None,
            'train_images_per_second': round(images / seconds, 3) if seconds else None,
        }
