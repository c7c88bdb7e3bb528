"""Non-maximum suppression with static shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from seg.ops import sampling
from seg.ops.boxes import at_least_float32, iou
from seg.ops.gathering import batched_gather

# Boxes that are processed together: enough to keep a device busy, few enough for all pairs of them.
TILE = 512


def nms(boxes: Any, scores: Any, iou_threshold: float, max_output: int, groups: Any = None) -> tuple:
    """Greedy non-maximum suppression: by decreasing score, keeps each box that overlaps no box kept before.

    Boxes are processed in tiles: boxes that a kept box suppresses are dropped, then the best of the rest are kept.

    Args:
      boxes: [B, N, 4].
      scores: [B, N]; a box with a score of -inf or NaN is never kept. Equal scores keep their order.
      iou_threshold: of two boxes whose IoU exceeds it, the one with the lower score is suppressed.
      max_output: rows per image.
      groups: int32 [B, N], small numbers from 0 on: boxes suppress each other within a group (a class, a level) only.
        None: all are in one group.

    Returns:
      `(index int32 [B, max_output], valid bool [B, max_output])`; valid rows come first, the others have index 0.
    """
    boxes, scores = at_least_float32(ops.stop_gradient(boxes)), at_least_float32(ops.stop_gradient(scores))
    start, end = boxes[..., :2], boxes[..., 2:]
    boxes = ops.concatenate([start, ops.maximum(start, end)], axis=-1)
    scores = ops.where(scores > -float('inf'), scores, -float('inf'))
    batch, count = ops.shape(boxes)[0], boxes.shape[1]
    tile = min(TILE, count)
    tiles = -(-count // tile)
    scores, order = ops.top_k(scores, count)
    order = ops.cast(order, 'int32')
    group = ops.zeros_like(order) if groups is None else batched_gather(groups, order)
    columns = []
    for x in (batched_gather(boxes, order), group, scores > -float('inf'), order):
        rest = tuple(x.shape[2:])
        # The last tile is padded with boxes that are never kept.
        x = ops.pad(x, ((0, 0), (0, tiles * tile - count), *((0, 0) for _ in rest)))
        columns.append(ops.reshape(x, (-1, tiles, tile, *rest)))
    places = ops.arange(max_output, dtype='int32')[None]
    before = np.arange(tile)[:, None] < np.arange(tile)

    def goes_on(number: Any, boxes: Any, groups: Any, valid: Any, index: Any) -> Any:
        return ops.logical_and(number < tiles, ops.logical_not(ops.all(valid)))

    def step(number: Any, boxes: Any, groups: Any, valid: Any, index: Any) -> tuple:
        own_boxes, own_groups, there, own_index = (ops.take(x, number, axis=1) for x in columns)

        def excludes(boxes: Any, groups: Any, chosen: Any) -> Any:
            """[B, R, tile]: which of the given boxes suppresses which box of the tile, if `chosen`."""
            same = ops.logical_and(groups[..., None] == own_groups[:, None], chosen[..., None])
            return ops.logical_and(same, iou(boxes, own_boxes) > iou_threshold)

        there = ops.logical_and(there, ops.logical_not(ops.any(excludes(boxes, groups, valid), axis=1)))
        kept = _settle(ops.logical_and(excludes(own_boxes, own_groups, there), before), there)
        # They are appended, in their order, to those kept before.
        order, _ = sampling.first(ops.where(kept, 1, -1), tile)
        earlier, now = (ops.sum(ops.cast(x, 'int32'), axis=1, keepdims=True) for x in (valid, kept))
        rank = places - earlier
        new = ops.logical_and(rank >= 0, rank < now)
        source = batched_gather(order, ops.clip(rank, 0, tile - 1))
        return (
            number + 1,
            ops.where(new[..., None], batched_gather(own_boxes, source), boxes),
            ops.where(new, batched_gather(own_groups, source), groups),
            ops.logical_or(valid, new),
            ops.where(new, batched_gather(own_index, source), index),
        )

    none = ops.zeros((batch, max_output), 'int32')
    nowhere = ops.zeros((batch, max_output, 4), boxes.dtype)
    state = (ops.convert_to_tensor(0, 'int32'), nowhere, none, ops.cast(none, 'bool'), none)
    _, _, _, valid, index = ops.while_loop(goes_on, step, state)
    return index, valid


def _settle(excludes: Any, there: Any) -> Any:
    """Decides which boxes are kept: those that no other kept box suppresses.

    Greedy suppression is sequential, but a box depends only on higher-scoring boxes that overlap it, and such chains
    are short. So all boxes are decided in parallel, and again until nothing changes: a few rounds give the same result.

    Args:
      excludes: bool [B, T, T], whether the first box suppresses the second, which comes after it.
      there: bool [B, T], false for padding.

    Returns:
      bool [B, T].
    """

    def decide(kept: Any, _: Any) -> tuple:
        beaten = ops.any(ops.logical_and(excludes, kept[..., None]), axis=1)
        now = ops.logical_and(there, ops.logical_not(beaten))
        return now, ops.any(now != kept)

    kept, _ = ops.while_loop(lambda _, changed: changed, decide, (there, ops.convert_to_tensor(True)))
    return kept
