"""Evaluation: every example counts exactly once; sums are accumulated on the host."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from seg.engine.base import Engine
from seg.errors import UserError, as_user_error, shown
from seg.executor import unreadable
from seg.executor.gallery import Gallery
from seg.executor.image_table import ImageTable
from seg.executor.progress import Progress
from seg.metrics.base import Metric, RowMetric, SumMetric
from seg.run.evaluated_images import EvaluatedImage
from seg.structures import Figure, ImageSummary, Input, LossTerm


class Evaluation(NamedTuple):
    """Result of one pass over a data set.

    Attributes:
      metrics: values by name; includes `loss` and `loss/<term>` if the task has losses in evaluation.
      examples: number of images that count.
      seconds: duration of the pass, including tracing.
      images_per_second: without drawing and the first batch, which includes tracing; of all images if there is only
        one batch.
      figures: figures of the fixed, the worst and the best images, and the metrics' charts.
      details: results of metrics that are not numbers, by name; values for JSON.
      images: all images with their scores, most with a picture; empty without figures.
    """

    metrics: dict[str, float]
    examples: int
    seconds: float
    images_per_second: float
    figures: list[ImageSummary]
    details: dict[str, Any]
    images: Sequence[EvaluatedImage] = ()


class Evaluator:
    """Runs a task's inference over finite inputs, and keeps the engine's graphs."""

    def __init__(self, task, engine: Engine):
        self._task = task
        self._metrics = task.metrics()
        self._summing = [metric for metric in self._metrics if isinstance(metric, SumMetric)]
        self._by_row = [metric for metric in self._metrics if isinstance(metric, RowMetric)]
        self._batches = engine.evaluator(task, self._summing, self._by_row)
        self._new = True  # Whether nothing is compiled yet.

    def evaluate(self, source: Input, num_pictures: int = 0, last: bool = True) -> Evaluation:
        """Computes all metrics and the losses over the whole input.

        Args:
          source: evaluation data.
          num_pictures: number of images of each kind (fixed, worst, best) to draw; 0 for no figures and no charts.
          last: whether this is the run's last evaluation, of which more images have a picture in the report.

        Raises:
          UserError: if no image could be read, or the data set's labels are invalid.
        """
        for metric in self._metrics:
            with _calling(metric, 'reset'):
                metric.reset()
        losses: dict[str, LossTerm] = {}
        gallery = Gallery(num_pictures, source.num_examples)
        table = ImageTable(source.num_examples, source.image_name, last)
        stream: list[int] = []  # Indices of all images, in the order of the input; -1 for padding.
        missing: list[int] = []  # Positions in the stream.
        examples = counted = 0
        drawing = 0.0  # Seconds; without the first batch, which is not timed.
        start = first_done = time.perf_counter()
        progress = Progress(f'evaluating {source.name}', source.num_examples, 'images')
        if self._new:
            progress.update(0, 'compiling', force=True)
            self._new = False
        for number, batch in enumerate(self._batches(source, num_pictures > 0)):
            for metric, sums in zip(self._summing, batch.sums, strict=True):
                with _calling(metric, 'add'):
                    metric.add(sums)
            losses = {name: _added(losses.get(name), term) for name, term in batch.losses.items()}
            real = batch.index >= 0
            missing += list(len(stream) + np.flatnonzero(real & (batch.weight == 0)))
            stream += list(batch.index)
            counting = np.flatnonzero(batch.weight > 0)
            examples += len(counting)
            indices = [int(index) for index in batch.index[counting]]
            truth = [source.truth(index) if source.truth else None for index in indices]
            for metric, rows in zip(self._by_row, batch.rows, strict=True):
                with _calling(metric, 'add'):
                    metric.add({key: value[counting] for key, value in rows.items()}, truth)
            if num_pictures:
                begun, scores = time.perf_counter(), batch.scores[counting]
                chosen = gallery.choose(indices, scores)
                for n, (index, score) in enumerate(zip(indices, scores, strict=True)):
                    if not table.add(index, float(score)) and n not in chosen:
                        continue
                    example, prediction = batch.example(counting[n])
                    figure = self._figure(example, prediction, source.image_name(index), truth[n])
                    table.picture(index, figure)
                    if n in chosen:
                        gallery.keep(index, figure)
                drawing += time.perf_counter() - begun if number else 0.0
            if number == 0:
                first_done, counted = time.perf_counter(), int(np.sum(real))
            progress.update(examples)
        end = time.perf_counter()
        progress.close()
        unreadable.report(source, 0, missing, stream)
        metrics = _losses(losses)
        for metric in self._metrics:
            with _calling(metric, 'result'):
                result = metric.result()
            if not isinstance(result, Mapping) or not all(isinstance(value, Real) for value in result.values()):
                raise UserError(f'{_origin(metric)}: result() returned {shown(result)}; expected a dict of numbers.')
            if unlisted := sorted(set(result) - set(metric.names())):
                raise UserError(
                    f'{_origin(metric)}: result() has {", ".join(unlisted)}, which names() does not list. Expected no '
                    'other names.'
                )
            metrics |= result
        timed, seconds = (
            (examples - counted, end - first_done - drawing) if examples > counted else (examples, end - start)
        )
        return Evaluation(
            metrics,
            examples,
            end - start,
            timed / max(seconds, 1e-9),
            [*gallery.figures(), *self._charts()] if num_pictures else [],
            {name: value for metric in self._metrics for name, value in metric.details().items()},
            table.images(gallery.chosen()) if num_pictures else (),
        )

    def _figure(self, *arguments: Any) -> Figure:
        figure = self._task.figure(*arguments)
        if not isinstance(figure, Figure):
            raise UserError(
                f'{_named(self._task)}.figure returned {shown(figure)}; expected an object with the methods draw() and '
                'panels(), such as a seg.drawing.PlainFigure.'
            )
        return figure

    def _charts(self) -> list[ImageSummary]:
        return [chart for metric in self._metrics for chart in metric.charts()]


def _named(part: Any) -> str:
    return f'{type(part).__module__}.{type(part).__name__}'


def _calling(metric: Metric, method: str) -> contextlib.AbstractContextManager[None]:
    """Context around a call of a metric on the host."""
    return as_user_error(f'{_origin(metric)}: {method}', metric)


def _origin(metric: Metric) -> str:
    return metric.origin or _named(metric)


def _added(sums: LossTerm | None, term: LossTerm) -> LossTerm:
    """Adds in double precision, because there may be many batches."""
    sums = sums or LossTerm(0, 0)
    return LossTerm(sums.total + np.float64(term.total), sums.weight + np.float64(term.weight))


def _losses(sums: dict[str, LossTerm]) -> dict[str, float]:
    """Returns the losses and their sum; an empty dict without losses."""
    losses = {f'loss/{name}': float(term.total / term.weight) if term.weight else 0.0 for name, term in sums.items()}
    return {'loss': sum(losses.values()), **losses} if losses else {}
