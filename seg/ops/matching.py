"""Matching of anchors and proposals with ground-truth boxes."""

from __future__ import annotations

from typing import Any

from keras import ops


def match(iou: Any, valid: Any, positive: float, negative: float, force_best: bool) -> tuple:
    """Matches every anchor with the ground-truth box that it overlaps most: positive, negative or neither.

    With `force_best`, every anchor that has the highest IoU with some ground-truth box (above 0, ties included) is
    positive, but still matches the box that it overlaps most itself: the rule of Faster R-CNN (Ren et al. 2015,
    https://arxiv.org/abs/1506.01497) as torchvision implements it.

    Args:
      iou: [B, A, N], IoU of anchors and ground-truth boxes.
      valid: bool [B, N], false for padding. In an image without valid boxes all anchors are negative.
      positive: lowest IoU at which an anchor is positive.
      negative: IoU below which an anchor is negative.
      force_best: see above.

    Returns:
      `(index, kind)`, both int32 [B, A]: the matched box (0 if there is none), and 1 for positive, 0 for negative, -1
      for neither.
    """
    overlap = ops.where(valid[:, None], iou, -1)
    best = ops.max(overlap, axis=-1)
    index = ops.cast(ops.argmax(overlap, axis=-1), 'int32')
    kind = ops.where(best >= positive, 1, ops.where(best < negative, 0, -1))
    if force_best:
        highest = ops.max(overlap, axis=1, keepdims=True)
        # No IoU is 2, so that boxes without any overlap force no anchor.
        highest = ops.where(highest > 0, highest, 2)
        kind = ops.where(ops.any(overlap == highest, axis=-1), 1, kind)
    return index, ops.cast(kind, 'int32')
