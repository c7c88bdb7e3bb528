"""Evaluation batch by batch: sums over the devices; single examples stay on them until the host requests them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from seg.engine.base import EvaluatedBatch
from seg.engine.tensorflow.devices import batches, graph
from seg.structures import Input, LossTerm


class _OfReplica(NamedTuple):
    """The results of one replica for its piece of a batch.

    Attributes:
      sums: one dict for each `SumMetric`.
      losses: total and weight of each loss, over the images that count.
      rows: one dict for each `RowMetric`.
      predictions: by name; empty if no images are drawn.
      scores: [b]; None if no images are drawn.
    """

    sums: list[dict[str, Any]]
    losses: dict[str, LossTerm]
    rows: list[dict[str, Any]]
    predictions: dict[str, Any]
    scores: Any


class Evaluation:
    """Graphs of a task's inference and of its metrics' device code, traced once."""

    def __init__(
        self,
        task,
        summing: Sequence[Any],
        by_row: Sequence[Any],
        strategy: tf.distribute.Strategy,
        jit_compile: bool,
    ):
        self._task, self._summing, self._by_row = task, summing, by_row
        self._strategy = strategy
        replica = lambda draws: graph(functools.partial(self._replica, draws=draws), jit_compile)  # noqa: E731
        self._run = graph(lambda batch, draws: self._on_replicas(replica(draws), batch))

    def __call__(self, source: Input, draws: bool) -> Iterator[EvaluatedBatch]:
        for batch in batches(source, self._strategy):
            found: _OfReplica = self._run(batch, draws)
            host = functools.partial(tf.nest.map_structure, self._joined)
            yield EvaluatedBatch(
                sums=tf.nest.map_structure(lambda value: value.numpy(), found.sums),
                rows=host(found.rows),
                losses=tf.nest.map_structure(lambda value: value.numpy(), found.losses),
                index=self._joined(batch['index']),
                weight=self._joined(batch['weight']),
                scores=self._joined(found.scores) if draws else None,
                example=functools.partial(self._example, batch, found.predictions),
            )

    def _replica(self, batch, draws: bool) -> _OfReplica:
        predictions, terms = self._task.evaluate_batch(batch)
        counts = batch['weight'] > 0
        return _OfReplica(
            sums=[metric.update(batch, predictions) for metric in self._summing],
            losses={
                name: LossTerm(*(tf.reduce_sum(tf.where(counts, value, 0)) for value in (term.total, term.weight)))
                for name, term in terms.items()
            },
            rows=[metric.rows(batch, predictions) for metric in self._by_row],
            predictions=predictions if draws else {},
            scores=self._task.image_scores(batch, predictions) if draws else None,
        )

    def _on_replicas(self, function, batch) -> _OfReplica:
        found = self._strategy.run(function, args=(batch,))
        add = lambda value: self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)  # noqa: E731
        return found._replace(
            sums=tf.nest.map_structure(add, found.sums), losses=tf.nest.map_structure(add, found.losses)
        )

    def _joined(self, value) -> np.ndarray:
        """Copies the rows of all replicas to the host."""
        return np.concatenate([part.numpy() for part in self._strategy.experimental_local_results(value)])

    def _example(self, batch, predictions, place: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        return self._one(batch, place), self._one(predictions, place)

    def _one(self, values: dict[str, Any], place: int) -> dict[str, np.ndarray]:
        """Copies a single row to the host."""
        found = {}
        for key, value in values.items():
            parts = self._strategy.experimental_local_results(value)
            replica, i = divmod(int(place), parts[0].shape[0])
            found[key] = parts[replica][i].numpy()
        return found
