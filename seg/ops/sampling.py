"""Random sampling of positives and negatives in a fixed proportion, and their gathering into fixed rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from seg.ops.random import random_bits


def balanced(positive: Any, negative: Any, seed: Any, total: int, fraction: float, salt: int = 0x5A3D) -> Any:
    """Samples up to `total` items of each image, of which at most the fraction `fraction` is positive.

    Negatives fill the places of missing positives; the places of missing negatives stay empty.

    Args:
      positive: bool [B, A].
      negative: bool [B, A], nowhere true together with `positive`.
      seed: int32 [B, 2], seed of each image.
      total: number of items to sample.
      fraction: largest fraction of positives among `total`; their number is rounded down.
      salt: different for each sampling with the same seed.

    Returns:
      int32 [B, A]: 1 for sampled positives, 0 for sampled negatives, -1 for all others.
    """
    count = int(positive.shape[1])
    # 31 random bits, so that they are positive as int32, where top_k is fast.
    keys = ops.cast(ops.right_shift(random_bits(seed, salt, count), ops.convert_to_tensor(np.uint32(1))), 'int32')

    def highest(mask: Any, limit: int) -> tuple:
        """Returns the indices of the `limit` highest keys under the mask, and which of them are valid."""
        values, places = ops.top_k(ops.where(mask, keys, -1), min(limit, count))
        return places, values >= 0

    positives, found = highest(positive, int(total * fraction))
    taken = ops.sum(ops.cast(found, 'int32'), axis=1, keepdims=True)
    negatives, spare = highest(negative, total)
    spare = ops.logical_and(spare, ops.arange(spare.shape[1], dtype='int32')[None] < total - taken)
    # From -1, a sampled positive is 2 steps up and a sampled negative is 1.
    steps = ops.concatenate([2 * ops.cast(found, 'int32'), ops.cast(spare, 'int32')], axis=1)
    places = ops.cast(ops.concatenate([positives, negatives], axis=1), 'int32')
    batch = ops.shape(keys)[0]
    places = places + count * ops.arange(batch, dtype='int32')[:, None]
    chosen = ops.scatter(ops.reshape(places, (-1, 1)), ops.reshape(steps, (-1,)), (batch * count,))
    return ops.reshape(chosen, (-1, count)) - 1


def first(kinds: Any, total: int) -> tuple:
    """Gathers the sample of `balanced`: positives first, then negatives, each in their order.

    Args:
      kinds: int32 [B, A], 1, 0 or -1.
      total: rows per image.

    Returns:
      `(index, kind)`, both int32 [B, total]: positions in `kinds`, and 1, 0, or -1 for empty rows (their index is 0).
    """
    count = int(kinds.shape[1])
    # Keys order by kind first, then by position, and are all different.
    backwards = np.arange(count - 1, -1, -1, dtype=np.int32)[None]
    keys = (kinds + 1) * count + backwards
    values, index = ops.top_k(keys, min(total, count))
    kind = values // count - 1
    index = ops.where(kind < 0, 0, ops.cast(index, 'int32'))
    if total > count:
        empty = ((0, 0), (0, total - count))
        index, kind = ops.pad(index, empty), ops.pad(kind, empty, constant_values=-1)
    return index, ops.cast(kind, 'int32')
