"""Placement of the labels of instances: beside them, without overlap, only if there is room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# The fraction of a label that may cover other instances, and of the image that all labels together may cover.
_HIDES, _ALL = 0.3, 0.07
_OF_ONE = 0.15  # The fraction of an instance that a label may cover; its own one included.
# A label hides little of an instance this many times its area; such an instance counts by this factor.
_MUCH_LARGER, _LARGE_COUNTS = 8, 0.15


class Label(NamedTuple):
    """A label to be placed.

    Attributes:
      box: y0, x0, y1, x1 of its instance.
      height: height of the label in pixels.
      width: width of the label in pixels.
      owner: number of its instance in the map of `place`.
    """

    box: Sequence[float]
    height: int
    width: int
    owner: int


def place(labels: Sequence[Label], instances: np.ndarray) -> list[tuple[int, int] | None]:
    """Finds a place for each label.

    Args:
      labels: the important ones first.
      instances: [H, W] integers, the number of the topmost instance at each pixel, or -1.

    Returns:
      (top, left) of each label, or None if there is no room for it.
    """
    free = np.ones(instances.shape, bool)
    areas = np.bincount(instances.ravel() + 1)
    budget = _ALL * instances.size
    places: list[tuple[int, int] | None] = []
    for label in labels:
        best, least = None, _HIDES
        if label.height * label.width <= budget:
            for number, (top, left) in enumerate(_candidates(label, instances.shape)):
                here = slice(top, top + label.height), slice(left, left + label.width)
                if not free[here].all():
                    continue
                under = instances[here]
                other = (under >= 0) & (under != label.owner)
                large = areas[under + 1] >= _MUCH_LARGER * label.height * label.width
                if _hides_one(under, areas):
                    continue
                hidden = np.mean(other * np.where(large, _LARGE_COUNTS, 1)) + 0.01 * number
                if hidden < least:
                    best, least = (top, left), hidden
        if best:
            budget -= label.height * label.width
            free[best[0] : best[0] + label.height, best[1] : best[1] + label.width] = False
        places.append(best)
    return places


def _hides_one(under: np.ndarray, areas: np.ndarray) -> bool:
    """Whether too much of any instance is under a label, [h, w] numbers of instances, with the areas of all."""
    covered = np.bincount(under.ravel() + 1, minlength=len(areas))[1:]
    return bool(np.any(covered > _OF_ONE * areas[1:]))


def _candidates(label: Label, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Places beside and within the box, preferred ones first, moved into the image."""
    y0, x0, y1, x1 = (round(float(side)) for side in label.box)
    height, width = label.height, label.width
    if height > shape[0] or width > shape[1]:
        return []
    places = [(y0 - height, x0), (y0 - height, x1 - width), (y1, x0), (y1, x1 - width), (y0, x1), (y0, x0 - width)]
    if y1 - y0 >= 2 * height and x1 - x0 >= width:  # Within a large instance.
        places[1:1] = [(y0, x0)]
        places += [(y1 - height, x0)]
    return [(min(max(top, 0), shape[0] - height), min(max(left, 0), shape[1] - width)) for top, left in places]
