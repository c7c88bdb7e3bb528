"""ROIAlign on a feature pyramid: features of boxes, from the level that fits their size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from seg.ops import dispatch
from seg.ops.boxes import area, at_least_float32

_FINEST_LEVEL = 2
# A square box of this side, in pixels, is read from this level.
_CANONICAL_SIZE, _CANONICAL_LEVEL = 224, 4


def roi_align(
    features: Sequence[Any],
    boxes: Any,
    strides: Sequence[int],
    size: int,
    *,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Any:
    """Cuts each box into size x size bins and averages bilinear samples of the feature map in each.

    Mask R-CNN's ROIAlign (He et al. 2017, https://arxiv.org/abs/1703.06870) on a feature pyramid, where a box belongs
    to level floor(4 + log2(sqrt(area) / 224)) (Lin et al. 2017, https://arxiv.org/abs/1612.03144), limited to the given
    ones. A sample more than one cell outside of the map is 0, other samples outside read the cell at the edge.
    Gradients flow into the features only.

    Args:
      features: maps p2, p3, … [B, h, w, C], the finest first.
      boxes: [B, R, 4] in pixels.
      strides: pixels per cell of each map.
      size: bins per side.
      sampling_ratio: samples per side of a bin, evenly spaced within it; 1 in the TPU release.
      aligned: whether a cell's value is at its middle, pixel stride * (i + 1/2), instead of at stride * i, where
        convolutions with symmetric padding centre it. If not, boxes count as at least one cell high and wide.

    Returns:
      [B, R, size, size, C] in the features' dtype.
    """
    boxes = at_least_float32(ops.stop_gradient(boxes))
    boxes = ops.cast(boxes, keras.backend.result_type(boxes.dtype, features[0].dtype))
    level = _levels(boxes, len(features))
    return _gathered(features, _samples(boxes, level, strides, size * sampling_ratio, aligned), level, sampling_ratio)


def _levels(boxes: Any, count: int) -> Any:
    """Returns the index of each box's map among the features: int32 [B, R]."""
    level = ops.floor(_CANONICAL_LEVEL + ops.log2(ops.sqrt(area(boxes)) / _CANONICAL_SIZE) + 1e-6)
    place = ops.minimum(level - _FINEST_LEVEL, count - 1)
    return ops.cast(ops.where(place > 0, place, 0), 'int32')  # NaN gives 0.


def _samples(boxes: Any, level: Any, strides: Sequence[int], count: int, aligned: bool) -> Any:
    """Returns the rows and columns [B, R, 2, count] of the samples in cells of each box's own map."""
    stride = ops.take(ops.convert_to_tensor(strides, dtype=boxes.dtype), level)[..., None]
    boxes = boxes / stride
    if aligned:
        boxes = boxes - 0.5
    start, sides = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    if not aligned:
        sides = ops.maximum(sides, 1)
    steps = ops.convert_to_tensor((np.arange(count) + 0.5) / count, dtype=boxes.dtype)
    return start[..., None] + sides[..., None] * steps


def _gathered(features: Sequence[Any], samples: Any, level: Any, sampling_ratio: int) -> Any:
    """Interpolates at the samples, from all maps as one list of cells."""
    channels = features[0].shape[3]
    heights, widths = ([int(x.shape[axis]) for x in features] for axis in (1, 2))
    batch, boxes, _, count = samples.shape
    batch = batch or ops.shape(samples)[0]
    cells = ops.concatenate([ops.reshape(x, (-1, channels)) for x in features], axis=0)

    def of_level(values: list[int]) -> Any:
        return ops.take(ops.convert_to_tensor(values, dtype='int32'), level)

    sides = ops.stack([of_level(heights), of_level(widths)], axis=-1)[..., None]  # [B, R, 2, 1]
    span = ops.cast(sides, samples.dtype)
    inside = ops.logical_and(samples >= -1, samples <= span)
    samples = ops.where(inside, ops.clip(samples, 0, span - 1), 0)  # Also for NaN, which is not an index.
    low = ops.floor(samples)
    fraction = samples - low
    low = ops.cast(low, 'int32')
    index = ops.stack([low, ops.minimum(low + 1, sides - 1)], axis=-1)
    weight = ops.where(inside[..., None], ops.stack([1 - fraction, fraction], axis=-1), 0) / sampling_ratio
    # All rows and columns of one bin, [B, R, size, 2 * sampling_ratio] each. No tensor has a rank above 5: TensorFlow
    # Lite slices none of a higher one.
    size, taps = count // sampling_ratio, 2 * sampling_ratio
    (row_index, column_index), (row_weight, column_weight) = (
        [ops.reshape(x[:, :, axis], (-1, boxes, size, taps)) for axis in (0, 1)] for x in (index, weight)
    )

    sizes = [height * width for height, width in zip(heights, widths, strict=True)]
    first = batch * of_level([0, *np.cumsum(sizes)[:-1].tolist()])
    first = first + ops.arange(batch, dtype='int32')[:, None] * of_level(sizes)
    row_index = first[..., None, None] + row_index * sides[:, :, 1, :, None]

    def rows(x: Any) -> Any:
        return ops.reshape(x, (-1, size, 1, taps, 1))

    def columns(x: Any) -> Any:
        return ops.reshape(x, (-1, 1, size, 1, taps))

    # One row per bin, one column per pair of a row and a column of cells.
    index = ops.reshape(rows(row_index) + columns(column_index), (-1, taps**2))
    weight = ops.reshape(rows(row_weight) * columns(column_weight), (-1, taps**2))
    out = dispatch.weighted_rows(cells, index, weight, _weighted_rows)
    return ops.reshape(out, (batch, boxes, size, size, channels))


def _weighted_rows(cells: Any, index: Any, weight: Any) -> Any:
    """Returns the sum over t of weight[k, t] * cells[index[k, t]], tap by tap: all at once takes much memory."""
    total = 0
    for tap in range(index.shape[1]):
        row = ops.cast(ops.take(cells, index[:, tap], axis=0), weight.dtype)
        total = total + row * weight[:, tap : tap + 1]
    return ops.cast(total, cells.dtype)
