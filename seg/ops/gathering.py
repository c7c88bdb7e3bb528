"""Gathering of items by image."""

from __future__ import annotations

from typing import Any

from keras import ops


def batched_gather(items: Any, index: Any) -> Any:
    """Returns items[b, index[b, i]] for each image b.

    Args:
      items: [B, N, ...], of static shape but for B.
      index: int [B, R], 0 to N - 1.

    Returns:
      [B, R, ...].
    """
    count, rest = items.shape[1], tuple(items.shape[2:])
    places = ops.cast(index, 'int32') + count * ops.arange(ops.shape(items)[0], dtype='int32')[:, None]
    return ops.take(ops.reshape(items, (-1, *rest)), places, axis=0)
