"""Evaluation and prediction: every example exactly once, totals on the host.

A metric has one of two forms. Most sum: `update(batch, predictions)` gives a dict of tensors on the device, which are
summed over replicas and go to `add(sums)`. One with an attribute `gathers = True` compares on the host, image by image:
its `update` gives tensors of one row per example, of which `add(values, truth)` gets the rows that count, and for each
of them the picture's objects.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from seg.errors import UserError
from seg.executor import unread
from seg.executor.gallery import Gallery
from seg.executor.hardware import batches
from seg.executor.progress import Progress
from seg.structures import Hardware, Input, Picture


class Evaluation(NamedTuple):
    """Result of one pass over a data set.

    Attributes:
      metrics: by name; includes `loss` and `loss/<term>`, where the task has losses at evaluation.
      examples: images that counted.
      seconds: of the pass, tracing included.
      images_per_second: after the first batch, which holds the tracing; over all where there is only one.
      pictures: of fixed images, the worst and the best ones, and the metrics' charts.
      details: what metrics tell beside numbers, by name; to be kept as JSON.
    """

    metrics: dict[str, float]
    examples: int
    seconds: float
    images_per_second: float
    pictures: list[Picture]
    details: dict[str, Any]


class Evaluator:
    """Runs a task's inference over finite inputs. Its graphs are traced once and kept."""

    def __init__(self, task, hardware: Hardware):
        self._task = task
        self._strategy = hardware.strategy
        self._metrics = task.metrics()
        jit = hardware.jit_compile or None
        self._evaluate = tf.function(
            lambda batch, draws: self._on_replicas(
                tf.function(functools.partial(self._replica, draws=draws), jit_compile=jit), batch
            )
        )
        self._predict = tf.function(lambda batch: self._on_replicas(tf.function(task.predict, jit_compile=jit), batch))

    def evaluate(self, source: Input, num_pictures: int = 0) -> Evaluation:
        """Computes all metrics and the losses over the whole input.

        Args:
          source: evaluation data.
          num_pictures: how many images of each kind (fixed, worst, best) to draw; 0 for no pictures and no charts.

        Raises:
          UserError: if no image could be read, the data set's labels are none, or a metric compares with objects that
            the input does not tell.
        """
        gathering = [metric for metric in self._metrics if _gathers(metric)]
        summing = [metric for metric in self._metrics if not _gathers(metric)]
        if gathering and source.truth is None:
            raise UserError(
                f'{source.name}: {type(gathering[0]).__name__} compares with the objects of each picture, and this '
                'input has none. Evaluate it with a task for instances.'
            )
        for metric in self._metrics:
            metric.reset()
        sums: dict[str, np.ndarray] = {}
        gallery = Gallery(num_pictures, source.num_examples)
        stream: list[int] = []  # Indices of all images, as they come; -1 for padding.
        missing: list[int] = []  # Places in it.
        examples = counted = 0
        start = first_done = time.perf_counter()
        progress = Progress(f'evaluating {source.name}', source.num_examples, 'images')
        for number, batch in enumerate(batches(source, self._strategy)):
            device_sums, gathered, predictions, scores = self._evaluate(batch, num_pictures > 0)
            *parts, losses = [{key: value.numpy() for key, value in part.items()} for part in device_sums]
            for metric, part in zip(summing, parts, strict=True):
                metric.add(part)
            sums = {key: sums.get(key, 0) + value.astype(np.float64) for key, value in losses.items()}
            host = self._to_host({key: batch[key] for key in ('index', 'weight')} | scores)
            real = host['index'] >= 0
            missing += list(len(stream) + np.flatnonzero(real & (host['weight'] == 0)))
            stream += list(host['index'])
            counting = np.flatnonzero(host['weight'] > 0)
            examples += len(counting)
            indices = [int(index) for index in host['index'][counting]]
            truth = [source.truth(index) if source.truth else None for index in indices]
            for metric, values in zip(gathering, gathered, strict=True):
                metric.add({key: value[counting] for key, value in self._to_host(values).items()}, truth)
            if num_pictures:
                for n in gallery.choose(host['index'][counting], host['score'][counting]):
                    example, prediction = self._one(batch, counting[n]), self._one(predictions, counting[n])
                    drawing = self._task.picture(example, prediction, source.image_name(indices[n]), truth[n])
                    gallery.keep(indices[n], drawing)
            if number == 0:
                first_done, counted = time.perf_counter(), int(np.sum(real))
            progress.update(examples)
        end = time.perf_counter()
        progress.close()
        unread.report(source, 0, missing, stream)
        metrics = _losses(sums)
        for metric in self._metrics:
            metrics |= metric.result()
        timed, seconds = (examples - counted, end - first_done) if examples > counted else (examples, end - start)
        return Evaluation(
            metrics,
            examples,
            end - start,
            timed / max(seconds, 1e-9),
            [*gallery.pictures(), *self._charts()] if num_pictures else [],
            {name: value for m in self._metrics if hasattr(m, 'details') for name, value in m.details().items()},
        )

    def predict(self, source: Input) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Yields (batch, predictions) on the host, padding included (`index` -1)."""
        for batch in batches(source, self._strategy):
            yield self._to_host(batch), self._to_host(self._predict(batch))

    def _charts(self) -> list[Picture]:
        return [picture for metric in self._metrics if hasattr(metric, 'pictures') for picture in metric.pictures()]

    def _replica(self, batch, draws: bool):
        """Per replica: the sums of each summing metric, those of the losses last; the rows of each gathering metric;
        for drawing, predictions and scores."""
        predictions, terms = self._task.evaluate_batch(batch)
        sums = [metric.update(batch, predictions) for metric in self._metrics if not _gathers(metric)]
        rows = [metric.update(batch, predictions) for metric in self._metrics if _gathers(metric)]
        counts = batch['weight'] > 0
        losses = {}
        for name, term in terms.items():
            losses[f'{name}/total'] = tf.reduce_sum(tf.where(counts, term.total, 0))
            losses[f'{name}/weight'] = tf.reduce_sum(tf.where(counts, term.weight, 0))
        if not draws:
            return [*sums, losses], rows, {}, {}
        return [*sums, losses], rows, predictions, {'score': self._task.image_scores(batch, predictions)}

    def _on_replicas(self, function, batch):
        result = self._strategy.run(function, args=(batch,))
        if isinstance(result, tuple):
            sums, *others = result
            sums = tf.nest.map_structure(
                lambda v: self._strategy.reduce(tf.distribute.ReduceOp.SUM, v, axis=None), sums
            )
            return sums, *others
        return result

    def _to_host(self, values: dict[str, Any]) -> dict[str, np.ndarray]:
        local = self._strategy.experimental_local_results
        return {key: np.concatenate([part.numpy() for part in local(value)]) for key, value in values.items()}

    def _one(self, values: dict[str, Any], position: int) -> dict[str, np.ndarray]:
        """A single example of a batch on the host; the others stay on the device."""
        found = {}
        for key, value in values.items():
            shares = self._strategy.experimental_local_results(value)
            replica, i = divmod(int(position), shares[0].shape[0])
            found[key] = shares[replica][i].numpy()
        return found


def _gathers(metric) -> bool:
    return getattr(metric, 'gathers', False)


def _losses(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """The losses and their sum; nothing where there is no loss."""
    names = [key.removesuffix('/total') for key in sums if key.endswith('/total')]
    losses = {
        f'loss/{name}': float(sums[f'{name}/total'] / sums[f'{name}/weight']) if sums[f'{name}/weight'] else 0.0
        for name in names
    }
    return {'loss': sum(losses.values()), **losses} if losses else {}
