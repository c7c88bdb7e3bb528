"""Non-maximum suppression with static shapes."""

from __future__ import annotations

from typing import Any

from keras import ops

from seg.ops import dispatch_detection
from seg.ops.boxes import area, at_least_float32


def nms(boxes: Any, scores: Any, iou_threshold: float, max_output: int, groups: Any = None) -> tuple:
    """Chooses boxes by falling score, each unless it overlaps one chosen before it.

    Args:
      boxes: [B, N, 4].
      scores: [B, N]; what has a score of -inf or NaN is never chosen. Of equal scores the first comes first.
      iou_threshold: boxes whose intersection over union exceeds it exclude each other.
      max_output: places per image.
      groups: int32 [B, N], small numbers from 0 on: only boxes of one group (a class, a level) exclude each other.
        None: all are of one.

    Returns:
      `(index int32 [B, max_output], valid bool [B, max_output])`; valid places come first, the others have index 0.
    """
    boxes, scores = at_least_float32(ops.stop_gradient(boxes)), at_least_float32(ops.stop_gradient(scores))
    start, end = boxes[..., :2], boxes[..., 2:]
    boxes = ops.concatenate([start, ops.maximum(start, end)], axis=-1)
    scores = ops.where(scores > -float('inf'), scores, -float('inf'))
    return dispatch_detection.nms(boxes, scores, iou_threshold, max_output, groups, _one_after_another)


def _one_after_another(boxes: Any, scores: Any, iou_threshold: float, max_output: int, groups: Any) -> tuple:
    """Takes the highest score and removes what overlaps it, `max_output` times."""
    batch, count = ops.shape(boxes)[0], boxes.shape[1]
    images = ops.arange(batch, dtype='int32')
    flat, flat_areas = ops.reshape(boxes, (-1, 4)), ops.reshape(area(boxes), (-1,))
    areas = area(boxes)
    columns = ops.arange(count, dtype='int32')[None]

    def step(place: Any, state: tuple) -> tuple:
        scores, index, valid = state
        best = ops.cast(ops.argmax(scores, axis=1), 'int32')
        found = ops.max(scores, axis=1) > -float('inf')
        at = best + images * count
        box = ops.take(flat, at, axis=0)[:, None]
        sides = ops.maximum(ops.minimum(boxes[..., 2:], box[..., 2:]) - ops.maximum(boxes[..., :2], box[..., :2]), 0)
        intersection = sides[..., 0] * sides[..., 1]
        union = areas + ops.take(flat_areas, at)[:, None] - intersection
        excluded = intersection / ops.where(intersection > 0, union, 1) > iou_threshold
        if groups is not None:
            group = ops.take(ops.reshape(groups, (-1,)), at)[:, None]
            excluded = ops.logical_and(excluded, groups == group)
        excluded = ops.logical_or(excluded, columns == best[:, None])
        scores = ops.where(excluded, -float('inf'), scores)
        here = ops.arange(max_output, dtype='int32')[None] == place
        index = ops.where(ops.logical_and(here, found[:, None]), best[:, None], index)
        valid = ops.logical_or(valid, ops.logical_and(here, found[:, None]))
        return scores, index, valid

    index = ops.zeros((batch, max_output), 'int32')
    valid = ops.zeros((batch, max_output), 'bool')
    _, index, valid = ops.fori_loop(0, max_output, step, (scores, index, valid))
    return index, valid
