"""What one replica's batch gives before the gradient: losses, and counts. In `keras.ops`, for all engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from keras import ops

from seg.engine.base import checked_terms
from seg.ops.replicas import sum_over_replicas


class Measured(NamedTuple):
    """Losses and counts of one replica's images. Over the replicas, `losses` and `sums` have yet to be summed.

    Attributes:
      terms: names of the T losses.
      counted: names of the C counts.
      totals: [b, T] float, each image's contribution to the losses over the global batch.
      losses: [T] float, sums of the totals.
      sums: [T + C] float, the losses, and the counts summed over the images.
    """

    terms: tuple[str, ...]
    counted: tuple[str, ...]
    totals: Any
    losses: Any
    sums: Any


def measure(task, batch: Mapping[str, Any], step: Any) -> Measured:
    """Measures a batch, in the context of its replica.

    Args:
      task: a `seg.tasks.base.Task`.
      batch: a replica's piece of a training batch.
      step: int32 scalar, number of steps taken before.

    Raises:
      UserError: if the task's losses are not a dict of terms by name.
    """
    terms = checked_terms(task, task.loss_terms(batch, step))
    example = ops.cast(batch['weight'], next(iter(terms.values())).total.dtype)
    # Blank images replace unreadable ones. Their losses are finite; here they get weight 0.
    totals = ops.stack([ops.where(example > 0, term.total, 0) for term in terms.values()], -1)
    weights = ops.stack([ops.where(example > 0, term.weight, 0) for term in terms.values()], -1)
    weight = sum_over_replicas(ops.stop_gradient(ops.sum(weights, 0)))
    shares = ops.divide_no_nan(totals, weight)
    losses = ops.sum(shares, 0)
    counts = dict(task.counts(batch))
    for term in terms.values():
        counts |= term.counts
    watched = [ops.sum(ops.where(example > 0, ops.cast(value, losses.dtype), 0)) for value in counts.values()]
    sums = ops.concatenate([losses, ops.stack(watched)], 0) if watched else losses
    return Measured(tuple(terms), tuple(counts), shares, losses, sums)
