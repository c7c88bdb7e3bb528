"""Masks of instances, resampled over other boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from seg.ops.boxes import at_least_float32


def crop_masks(masks: Any, boxes: Any, index: Any, rois: Any, size: int) -> Any:
    """Samples instances' masks at the bin centres of regions of interest.

    Args:
      masks: uint8 [B, N, M, M], 0..255, over each instance's box.
      boxes: [B, N, 4], the instances' boxes in pixels.
      index: int32 [B, P], the instance of each region.
      rois: [B, P, 4] in pixels.
      size: bins per side of a region.

    Returns:
      float32 [B, P, size, size]: 1 where the mask, interpolated between the centres of its cells, is at least half of
      255; 0 elsewhere and outside of the instance's box. An instance without area is 0 everywhere.
    """
    batch, count, side, _ = masks.shape
    batch = batch or ops.shape(masks)[0]
    rois, boxes = at_least_float32(ops.stop_gradient(rois)), at_least_float32(ops.stop_gradient(boxes))
    item = index + count * ops.arange(batch, dtype='int32')[:, None]
    box = ops.take(ops.reshape(boxes, (-1, 4)), item, axis=0)
    steps = ops.convert_to_tensor((np.arange(size) + 0.5) / size, dtype=rois.dtype)
    points = rois[..., :2, None] + (rois[..., 2:] - rois[..., :2])[..., None] * steps  # [B, P, 2, size]
    extent = (box[..., 2:] - box[..., :2])[..., None]
    # Position in the box, 0..1.
    place = (points - box[..., :2, None]) / ops.where(extent > 0, extent, 1)
    inside = ops.logical_and(ops.logical_and(place >= 0, place <= 1), extent > 0)
    place = ops.clip(place * side - 0.5, 0, side - 1)
    low = ops.floor(place)
    fraction = place - low
    low = ops.cast(low, 'int32')
    high = ops.minimum(low + 1, side - 1)

    pixels = ops.reshape(masks, (-1,))

    def read(rows: Any, columns: Any) -> Any:
        cells = ((item[..., None] * side + rows[:, :, 0])[..., None]) * side + columns[:, :, 1][:, :, None]
        return ops.cast(ops.take(pixels, cells), rois.dtype)

    down, across = fraction[:, :, 0][..., None], fraction[:, :, 1][:, :, None]
    upper = read(low, low) * (1 - across) + read(low, high) * across
    lower = read(high, low) * (1 - across) + read(high, high) * across
    value = upper * (1 - down) + lower * down
    inside = ops.logical_and(inside[:, :, 0][..., None], inside[:, :, 1][:, :, None])
    # A bin is often exactly halfway between a set cell and an unset one; rounding must not decide there.
    return ops.cast(ops.logical_and(inside, value >= 127.5 - 0.01), 'float32')
