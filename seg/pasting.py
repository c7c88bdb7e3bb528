"""Masks of objects on the host: from a small map over a box to the picture's own pixels, and to COCO's run lengths.

Neither needs a frame of the picture's size: the work grows with the object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seg.structures import Detections

_GROUPS = 7  # Groups of 5 bits that a run length needs at most: below 2^34.


def paste(
    mask: np.ndarray, box: Sequence[float], height: int, width: int, threshold: float = 0.5
) -> tuple[int, int, np.ndarray]:
    """Pixels of an object, from probabilities over its box.

    The map's cells divide the box evenly; a pixel whose centre lies in the box has the bilinear value between the
    centres of the four nearest cells, and beyond the outermost centres that of the outermost cells. A box that has an
    area but no centre of a pixel in it stands for the pixel that holds its middle, so that a tiny object is not lost.
    A map whose cells are pixels comes out unchanged.

    Args:
      mask: [m, n] probabilities, any float type.
      box: (y0, x0, y1, x1) in pixels of the picture; may reach beyond it.
      height: of the picture, in pixels.
      width: of the picture.
      threshold: probability from which on a pixel belongs to the object.

    Returns:
      (top, left, patch): `patch` is bool [h, w], the pixels from row `top` and column `left` on; all others are not the
      object's. It has no pixel where the box has no area, is not finite or lies outside the picture.
    """
    y0, x0, y1, x1 = (float(side) for side in box)
    if not (np.isfinite((y0, x0, y1, x1)).all() and y1 > y0 and x1 > x0):
        return 0, 0, np.zeros((0, 0), bool)
    top, *rows = _places(y0, y1, height, mask.shape[0])
    left, *columns = _places(x0, x1, width, mask.shape[1])
    # Columns last, and the patch in memory column by column, as the run lengths go.
    values = _interpolate(np.asarray(mask, np.float32), *rows).T
    return top, left, (_interpolate(np.ascontiguousarray(values), *columns) >= np.float32(threshold)).T


def rle(top: int, left: int, patch: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """Run-length encoding of an object's pixels, as COCO has it.

    Args:
      top: row of the picture that the patch begins with.
      left: column that it begins with.
      patch: bool [h, w], within the picture.
      height: of the picture, in pixels.
      width: of the picture.

    Returns:
      `size` [height, width] and `counts`, bytes: what `pycocotools.mask.encode` gives for the whole picture.
    """
    # Column by column, each with an empty pixel above it: sets and gaps then alternate from column to column.
    padded = np.zeros((patch.shape[1], patch.shape[0] + 1), bool)
    padded[:, 1:] = patch.T
    padded = padded.ravel()
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    if len(changes) % 2:
        changes = np.append(changes, len(padded) - 1)
    column, row = np.divmod(changes, patch.shape[0] + 1)
    positions = (left + column) * height + top + row
    if patch.shape[0] == height:  # What ends at the bottom and begins again at the top of the next column is one run.
        joined = np.flatnonzero(positions[1:-1:2] == positions[2::2])
        positions = np.delete(positions, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    ends = [height * width] if not len(positions) or positions[-1] < height * width else []
    counts = np.diff(np.concatenate([[0], positions, ends]).astype(np.int64))
    return {'size': [int(height), int(width)], 'counts': _compressed(counts)}


def detections(
    prediction: Mapping[str, np.ndarray], size: Sequence[int], native: Sequence[int], threshold: float = 0.5
) -> Detections:
    """What a model found in one image, at the size of the picture that the image was made from.

    Args:
      prediction: of one image: `boxes` [D, 4] (y0, x0, y1, x1 in its pixels), `scores` [D], `classes` [D] (-1 for an
        empty place) and `masks` [D, m, n], probabilities over each box.
      size: (height, width) of the image, padding left out.
      native: (height, width) of the picture.
      threshold: probability from which on a pixel belongs to an object.

    Returns:
      The objects by falling score, boxes cut off at the picture's edges.
    """
    height, width = (int(side) for side in native)
    classes = np.asarray(prediction['classes'], np.int32)
    scores = np.asarray(prediction['scores'], np.float32)
    order = np.argsort(-scores, kind='stable')
    order = order[classes[order] >= 0]
    scale = np.array([height / size[0], width / size[1]] * 2)
    boxes = np.asarray(prediction['boxes'], np.float64)[order] * scale
    masks = [
        rle(*paste(np.asarray(prediction['masks'][i], np.float32), box, height, width, threshold), height, width)
        for i, box in zip(order, boxes, strict=True)
    ]
    inside = np.clip(boxes, 0, [height, width, height, width]).astype(np.float32)
    return Detections(inside, scores[order], classes[order], masks)


def _places(start: float, end: float, size: int, cells: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Where the pixels that a box covers lie among the cells of its map, along one axis.

    Args:
      start: of the box, in pixels.
      end: of the box, above `start`.
      size: of the picture, in pixels.
      cells: of the map over the box.

    Returns:
      (first, cell, share): the first pixel; of each pixel the cell whose centre comes before its own, int64, and how
      far it is towards the next one, float32 in [0, 1).
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


def _interpolate(values: np.ndarray, cell: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Linear interpolation along the first axis. Rows are gathered: for these shapes faster than a matrix product,
    whose threads get in the way of others."""
    steps = np.zeros_like(values)
    np.subtract(values[1:], values[:-1], out=steps[:-1])
    found, towards = values[cell], steps[cell]
    towards *= share[:, None]
    found += towards
    return found


def _compressed(counts: np.ndarray) -> bytes:
    """COCO's text form of run lengths: from the fourth on as the difference to the last but one, in groups of 5 bits,
    lowest first, each a character from '0' on whose sixth bit tells that another one follows."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    rest = values[:, None] >> (5 * np.arange(_GROUPS + 1))
    groups = rest[:, :-1] & 31
    # A group is the last one where all that is left is its own sign.
    last = rest[:, 1:] == np.where(groups & 16, -1, 0)
    needed = np.argmax(last, axis=1)[:, None]
    order = np.arange(_GROUPS)
    characters = groups + np.where(order < needed, 32, 0) + 48
    return characters[order <= needed].astype(np.uint8).tobytes()
