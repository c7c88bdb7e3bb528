"""Which true box each anchor or proposal stands for."""

from __future__ import annotations

from typing import Any

from keras import ops


def match(iou: Any, valid: Any, positive: float, negative: float, force_best: bool) -> tuple:
    """Assigns to every anchor the true box that it overlaps most, and says whether it counts for it.

    With `force_best`, every anchor that has the highest overlap with some truth (above 0, ties included) is positive,
    but keeps the truth that it overlaps most itself: the rule of Faster R-CNN (Ren et al. 2015,
    https://arxiv.org/abs/1506.01497) as torchvision reads it.

    Args:
      iou: [B, A, N] overlaps of anchors with true boxes.
      valid: bool [B, N], false for padding. An image without any valid box has negatives only.
      positive: overlap from which on an anchor is positive.
      negative: overlap below which an anchor is negative.
      force_best: see above.

    Returns:
      `(index, kind)`, both int32 [B, A]: the best truth (0 if there is none), and 1 for positive, 0 for negative, -1
      for neither.
    """
    overlap = ops.where(valid[:, None], iou, -1)
    best = ops.max(overlap, axis=-1)
    index = ops.cast(ops.argmax(overlap, axis=-1), 'int32')
    kind = ops.where(best >= positive, 1, ops.where(best < negative, 0, -1))
    if force_best:
        highest = ops.max(overlap, axis=1, keepdims=True)
        # Nothing overlaps by 2, so that truths without any overlap force no anchor.
        highest = ops.where(highest > 0, highest, 2)
        kind = ops.where(ops.any(overlap == highest, axis=-1), 1, kind)
    return index, ops.cast(kind, 'int32')
