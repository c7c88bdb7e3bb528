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
    """Records of one run. The chief writes; every process counts the time, and reports unreadable images.

    Attributes:
      step: the last step that was added.
    """

    def __init__(self, config: RunConfig, task, engine: Engine, folder: RunFolder, log: MetricsLog):
        self._config, self._task, self._engine, self._folder, self._log = config, task, engine, folder, log
        self._events: Events | None = None
        self._progress: Progress | None = None
        self.step = 0
        self._seconds = 0.0
        self._timed = [0, 0.0]  # Images and seconds, without the first step of each process, which is compiled.
        self._shown = False  # Whether progress has been shown.

    def open(self, step: int, last: int, text: str) -> None:
        """Begins the records of the steps after `step`.

        Args:
          step: steps taken before.
          last: last step of the training.
          text: Markdown of the settings, for TensorBoard; empty for none.
        """
        self._progress = Progress('training', last, 'steps')
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

    def start(self, step: int, seconds: float) -> None:
        """Counts the time of the first step of this process, which ended with this step and includes compilation."""
        logging.info('The first step took %.0f s with its compilation.', seconds)
        self._seconds += seconds
        self._progress.begin(step)

    def add(self, result: LoopResult, step: int, steps: int, seconds: float, source: Input) -> None:
        """Writes the means of one loop, and reports unreadable images.

        Args:
          result: results of the loop.
          step: last step of the loop.
          steps: steps of the loop without the first step of the process; 0 if that was its only one.
          seconds: their duration.
          source: the training data.

        Raises:
          UserError: if no image could be read, an augmentation failed, or a file cannot be written.
        """
        self.step = step
        images = steps * source.batch_size
        self._timed = [self._timed[0] + images, self._timed[1] + seconds]
        self._seconds += seconds
        losses = result.losses.mean(0)
        counts = result.counts.sum(0) / max(np.count_nonzero(result.weight), 1)
        measures = not self._engine.deterministic
        values = {
            'loss': float(losses.sum()),
            **{f'loss/{name}': float(value) for name, value in zip(result.terms, losses, strict=True)},
            **{f'counts/{name}': float(value) for name, value in zip(result.counted, counts, strict=True)},
            'learning_rate': float(result.learning_rate[-1]),
            'gradient_norm': float(result.gradient_norm.mean()),
            **({'images_per_second': images / seconds} if steps else {}),
            **({'data_wait': float(min(result.wait[-steps:].sum() / seconds, 1.0))} if steps and measures else {}),
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
        speed = f', {values["images_per_second"]:.1f} images/s' if steps else ''
        self._progress.update(step, f'loss {values["loss"]:.4f}{speed}', force=not self._shown)
        self._shown = True

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
        """`train_seconds` of all steps up to `step`, `train_images_per_second`, and `compile_seconds`.

        The rest of `train_seconds`, times the speed, are all images. None without a known training, or without another
        step than the first one.
        """
        (images, seconds), total = self._timed, self._seconds
        speed = images / seconds if seconds else None
        compiling = max(total - step * self._config.batch_size / speed, 0.0) if speed else None
        values = {'train_seconds': total or None, 'compile_seconds': compiling, 'train_images_per_second': speed}
        return {name: None if value is None else round(value, 3) for name, value in values.items()}
