"""Instances in flat arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_PIECE = 65_536  # Rows.


class Instances(NamedTuple):
    """All instances of a data set in flat arrays, image by image.

    The mask of an instance is given by its runs, or by outlines, which are drawn when the image is loaded.

    Attributes:
      splits: int64 [images + 1]: the instances of image i are number `splits[i]` to `splits[i + 1]` - 1.
      boxes: float32 [N, 4], y0, x0, y1, x1 in pixels, within the image; NaN for the box of the drawn mask.
      classes: int32 [N], 0 to K - 1.
      is_crowd: bool [N].
      area: float32 [N], in pixels; NaN for the area of the drawn mask.
      ends: int32, the runs of all masks, see `seg.masks.runs.Runs`.
      run_splits: int64 [N + 1].
      points: uint16 [P, 2], the points of all outlines, see `outlines.Outlines`.
      point_splits: int64 [R + 1].
      outline_splits: int64 [N + 1]: the outlines of each instance.
    """

    splits: Any
    boxes: Any
    classes: Any
    is_crowd: Any
    area: Any
    ends: Any
    run_splits: Any
    points: Any
    point_splits: Any
    outline_splits: Any


def taken(instances: Instances, index: np.ndarray) -> Instances:
    """The instances at some positions; `splits` stays."""
    parts = rows(instances.outline_splits, index)
    return Instances(
        splits=instances.splits,
        boxes=instances.boxes[index],
        classes=instances.classes[index],
        is_crowd=instances.is_crowd[index],
        area=instances.area[index],
        ends=_values(instances.ends, instances.run_splits, index),
        run_splits=splits_of(np.diff(instances.run_splits)[index]),
        points=_values(instances.points, instances.point_splits, parts),
        point_splits=splits_of(np.diff(instances.point_splits)[parts]),
        outline_splits=splits_of(np.diff(instances.outline_splits)[index]),
    )


def rows(splits: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Positions of the values of some rows, one row after the other."""
    lengths = np.diff(splits)[index]
    offset = splits[:-1][index] - (np.cumsum(lengths) - lengths)
    return np.repeat(offset, lengths) + np.arange(lengths.sum())


def _values(values: np.ndarray, splits: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The values of some rows. A piece at a time: their positions take more memory than they do."""
    pieces = [values[rows(splits, index[start : start + _PIECE])] for start in range(0, len(index), _PIECE)]
    return np.concatenate([values[:0], *pieces])


def splits_of(lengths: np.ndarray) -> np.ndarray:
    """Splits of rows with these lengths, int64 [rows + 1]."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
