"""Random choice of positives and negatives in a fixed proportion, and their gathering into fixed places."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from seg.ops.random import random_bits


def balanced(positive: Any, negative: Any, seed: Any, total: int, fraction: float, salt: int = 0x5A3D) -> Any:
    """Chooses up to `total` items of each image at random, of which at most the share `fraction` is positive.

    Missing positives are made up for by negatives, missing negatives by nothing.

    Args:
      positive: bool [B, A].
      negative: bool [B, A], nowhere true together with `positive`.
      seed: int32 [B, 2], of each image.
      total: how many to choose.
      fraction: largest share of positives among `total`; their number is rounded down.
      salt: tells apart choices that share a seed.

    Returns:
      int32 [B, A]: 1 for chosen positives, 0 for chosen negatives, -1 for all others.
    """
    count = int(positive.shape[1])
    # 31 random bits, so that they are positive as int32, where top_k is fast.
    keys = ops.cast(ops.right_shift(random_bits(seed, salt, count), ops.convert_to_tensor(np.uint32(1))), 'int32')

    def highest(mask: Any, limit: int) -> tuple:
        """Returns the places of the `limit` highest keys under the mask, and which of them there are."""
        values, places = ops.top_k(ops.where(mask, keys, -1), min(limit, count))
        return places, values >= 0

    positives, found = highest(positive, int(total * fraction))
    taken = ops.sum(ops.cast(found, 'int32'), axis=1, keepdims=True)
    negatives, spare = highest(negative, total)
    spare = ops.logical_and(spare, ops.arange(spare.shape[1], dtype='int32')[None] < total - taken)
    # From -1, a chosen positive is 2 steps up and a chosen negative is 1.
    steps = ops.concatenate([2 * ops.cast(found, 'int32'), ops.cast(spare, 'int32')], axis=1)
    places = ops.cast(ops.concatenate([positives, negatives], axis=1), 'int32')
    batch = ops.shape(keys)[0]
    places = places + count * ops.arange(batch, dtype='int32')[:, None]
    chosen = ops.scatter(ops.reshape(places, (-1, 1)), ops.reshape(steps, (-1,)), (batch * count,))
    return ops.reshape(chosen, (-1, count)) - 1


def first(kinds: Any, total: int) -> tuple:
    """Gathers what `balanced` chose: positives first, then negatives, each in their order.

    Args:
      kinds: int32 [B, A], 1, 0 or -1.
      total: places per image.

    Returns:
      `(index, kind)`, both int32 [B, total]: positions in `kinds`, and 1, 0, or -1 for places that stay empty (their
      index is 0).
    """
    count = int(kinds.shape[1])
    # Keys tell kinds apart first, then positions, and are all different.
    backwards = np.arange(count - 1, -1, -1, dtype=np.int32)[None]
    keys = (kinds + 1) * count + backwards
    values, index = ops.top_k(keys, min(total, count))
    kind = values // count - 1
    index = ops.where(kind < 0, 0, ops.cast(index, 'int32'))
    if total > count:
        empty = ((0, 0), (0, total - count))
        index, kind = ops.pad(index, empty), ops.pad(kind, empty, constant_values=-1)
    return index, ops.cast(kind, 'int32')
