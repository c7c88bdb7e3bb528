"""Pastes predicted masks: from a small map over a box to pixels of the image, and to COCO's run lengths.

No array of the image's size is made: the work grows with the instance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from seg.masks import runs
from seg.structures import Detections


def paste(
    mask: np.ndarray, box: Sequence[float], height: int, width: int, threshold: float = 0.5
) -> tuple[int, int, np.ndarray]:
    """Pixels of an instance, from probabilities over its box.

    The cells of the map divide the box evenly. A pixel whose centre lies in the box gets the bilinear value between the
    centres of the four nearest cells; beyond the outermost centres, the value of the outermost cell. A box with an area
    but no pixel centre inside sets the pixel that holds its middle, so that no tiny instance is lost. A map whose
    cells are pixels comes out unchanged.

    Args:
      mask: [m, n] probabilities, any float type.
      box: (y0, x0, y1, x1) in pixels of the image; may reach beyond it.
      height: height of the image in pixels.
      width: width of the image in pixels.
      threshold: lowest probability at which a pixel is set.

    Returns:
      (top, left, patch): `patch` is bool [h, w], the pixels from row `top` and column `left` on; no other pixel is set.
      It is empty if the box has no area, is not finite or lies outside the image.
    """
    y0, x0, y1, x1 = (float(side) for side in box)
    if not (np.isfinite((y0, x0, y1, x1)).all() and y1 > y0 and x1 > x0):
        return 0, 0, np.zeros((0, 0), bool)
    top, *rows = _places(y0, y1, height, mask.shape[0])
    left, *columns = _places(x0, x1, width, mask.shape[1])
    # Columns last, and the patch in memory column by column, in the order of run lengths.
    values = _interpolate(np.asarray(mask, np.float32), *rows).T
    return top, left, (_interpolate(np.ascontiguousarray(values), *columns) >= np.float32(threshold)).T


def detections(
    prediction: Mapping[str, np.ndarray], size: Sequence[int], native: Sequence[int], threshold: float = 0.5
) -> Detections:
    """Detections at an image's native size, from a prediction on the resized image.

    Args:
      prediction: `boxes` [D, 4] (y0, x0, y1, x1 in pixels of the resized image), `scores` [D], `classes` [D] (-1 for an
        empty row) and `masks` [D, m, n], probabilities over each box.
      size: (height, width) of the resized image without padding.
      native: (height, width) of the image.
      threshold: lowest probability at which a pixel is set.

    Returns:
      The detections by decreasing score, boxes clipped to the image.
    """
    height, width = (int(side) for side in native)
    classes = np.asarray(prediction['classes'], np.int32)
    scores = np.asarray(prediction['scores'], np.float32)
    order = np.argsort(-scores, kind='stable')
    order = order[classes[order] >= 0]
    scale = np.array([height / size[0], width / size[1]] * 2)
    boxes = np.asarray(prediction['boxes'], np.float64)[order] * scale
    patches = [
        paste(np.asarray(prediction['masks'][i], np.float32), box, height, width, threshold)
        for i, box in zip(order, boxes, strict=True)
    ]
    masks = [runs.patch_to_coco(*patch, height, width) for patch in patches]
    inside = np.clip(boxes, 0, [height, width, height, width]).astype(np.float32)
    return Detections(inside, scores[order], classes[order], masks)


def _places(start: float, end: float, size: int, cells: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Positions of a box's pixels among the cells of its map, along one axis.

    Args:
      start: lower edge of the box, in pixels.
      end: upper edge of the box, above `start`.
      size: size of the image in pixels.
      cells: number of cells of the map.

    Returns:
      (first, cell, fraction): the first pixel; for each pixel the cell whose centre precedes its own, int64, and the
      fraction of the way to the next cell's centre, float32 in [0, 1).
    """
    first, stop = math.ceil(start - 0.5), math.ceil(end - 0.5)  # Centres in [start, end).
    if stop == first:
        first = math.floor((start + end) / 2)
        stop = first + 1
    first, stop = max(first, 0), min(stop, size)
    if stop <= first:
        return 0, np.zeros(0, np.int64), np.zeros(0, np.float32)
    place = (np.arange(first, stop) + 0.5 - start) * (cells / (end - start)) - 0.5
    place = np.clip(place, 0, cells - 1)
    cell = place.astype(np.int64)
    return first, cell, (place - cell).astype(np.float32)


def _interpolate(values: np.ndarray, cell: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Linear interpolation along the first axis. Gathering rows is faster here than a matrix product, whose threads
    compete with the caller's."""
    steps = np.zeros_like(values)
    np.subtract(values[1:], values[:-1], out=steps[:-1])
    found, towards = values[cell], steps[cell]
    towards *= fraction[:, None]
    found += towards
    return found
