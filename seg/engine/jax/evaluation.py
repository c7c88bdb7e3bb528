"""Evaluation batch by batch: sums over the devices; predictions stay on them until the host requests a row."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import keras
from keras import ops

from seg.engine.base import EvaluatedBatch, HostBatch
from seg.engine.jax.devices import ROWS, WHOLE, Devices
from seg.engine.jax.processes import reporting_loss
from seg.engine.jax.train_step import Named
from seg.ops.replicas import sum_over_replicas
from seg.structures import Input, LossTerm


class _Found(NamedTuple):
    """The results for a batch.

    Attributes:
      sums: one dict for each `SumMetric`, over all replicas.
      losses: [T, 2], total and weight of each loss over the images of all replicas that count.
      rows: one dict for each `RowMetric`.
      predictions: by name; empty if no images are drawn.
      scores: [b]; None if no images are drawn.
    """

    sums: Any
    losses: Any
    rows: Any
    predictions: Any
    scores: Any


class Evaluation:
    """Programs of a task's inference and of its metrics' device code, compiled once for each shape of batches.

    Attributes:
      variables: of the model.
      programs: functions of the variables' values and a batch; the one for True also rates the images for drawing.
    """

    def __init__(self, task, summing: Sequence[Any], by_row: Sequence[Any], devices: Devices):
        self._task, self._summing, self._by_row, self._devices = task, summing, by_row, devices
        self.variables = [variable for part in task.checkpoint_items.values() for variable in part.variables]
        specs = _Found(WHOLE, WHOLE, ROWS, ROWS, ROWS)
        self.programs = {
            draws: devices.compiled(functools.partial(self._replica, draws=draws), specs) for draws in (False, True)
        }

    def __call__(self, source: Input, draws: bool) -> Iterator[EvaluatedBatch]:
        values = [variable.value for variable in self.variables]
        devices = self._devices
        for batch in source.make(share=devices.share).as_numpy_iterator():
            with reporting_loss(devices.processes):
                placed = devices.divided(batch)
                found: _Found = self.programs[draws](values, placed)
                sums, losses, rows, scores = devices.to_host((found.sums, found.losses, found.rows, found.scores))
            of_rows = {'rows': rows, 'scores': scores, 'index': batch['index'], 'weight': batch['weight']}
            yield EvaluatedBatch(
                sums=sums,
                losses={name: LossTerm(*pair) for name, pair in zip(losses.names, losses.values, strict=True)},
                example=functools.partial(_example, devices, placed, found.predictions),
                **devices.rows_of_all(of_rows),
            )

    def _replica(self, values: list[jax.Array], batch: Mapping[str, jax.Array], draws: bool) -> _Found:
        counts = batch['weight'] > 0
        mapping = list(zip(self.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            predictions, terms = self._task.evaluate_batch(batch)
            sums = [metric.update(batch, predictions) for metric in self._summing]
            rows = [metric.rows(batch, predictions) for metric in self._by_row]
            scores = self._task.image_scores(batch, predictions) if draws else None
        pairs = [
            ops.stack([ops.sum(ops.where(counts, value, 0)) for value in (term.total, term.weight)])
            for term in terms.values()
        ]
        sums, losses = sum_over_replicas((sums, ops.stack(pairs) if pairs else ops.zeros((0, 2))))
        return _Found(sums, Named(tuple(terms), losses), rows, predictions if draws else {}, scores)


def _example(
    devices: Devices, batch: Mapping[str, jax.Array], predictions: Mapping[str, jax.Array], index: int
) -> tuple[HostBatch, HostBatch]:
    """Copies one row of the batch and of the predictions."""
    return devices.row(batch, index), devices.row(predictions, index)
