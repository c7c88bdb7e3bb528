"""Where the names of objects stand in a picture: beside them, never over each other, only where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# The share of a tag that may lie on other objects, and of the picture that all tags together may take.
_HIDES, _ALL = 0.3, 0.07
# An object of so many times a tag's area is little hidden by it, and counts by this much.
_MUCH_LARGER, _LARGE_COUNTS = 8, 0.15


class Tag(NamedTuple):
    """A tag to be placed.

    Attributes:
      box: y0, x0, y1, x1 of its object.
      height: of the tag, in pixels.
      width: of the tag.
      owner: number of its object in the map of `place`.
    """

    box: Sequence[float]
    height: int
    width: int
    owner: int


def place(tags: Sequence[Tag], objects: np.ndarray) -> list[tuple[int, int] | None]:
    """Finds a place for each tag.

    Args:
      tags: the important ones first.
      objects: [H, W] integers, the number of the object that is seen at each pixel, or -1.

    Returns:
      (top, left) of each, or None where there is no room for it.
    """
    free = np.ones(objects.shape, bool)
    areas = np.bincount(objects.ravel() + 1)
    budget = _ALL * objects.size
    places: list[tuple[int, int] | None] = []
    for tag in tags:
        best, least = None, _HIDES
        if tag.height * tag.width <= budget:
            for number, (top, left) in enumerate(_candidates(tag, objects.shape)):
                here = slice(top, top + tag.height), slice(left, left + tag.width)
                if not free[here].all():
                    continue
                under = objects[here]
                other = (under >= 0) & (under != tag.owner)
                large = areas[under + 1] >= _MUCH_LARGER * tag.height * tag.width
                hidden = np.mean(other * np.where(large, _LARGE_COUNTS, 1)) + 0.01 * number
                if hidden < least:
                    best, least = (top, left), hidden
        if best:
            budget -= tag.height * tag.width
            free[best[0] : best[0] + tag.height, best[1] : best[1] + tag.width] = False
        places.append(best)
    return places


def _candidates(tag: Tag, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Places beside and in the box, the usual ones first, moved into the picture."""
    y0, x0, y1, x1 = (round(float(side)) for side in tag.box)
    height, width = tag.height, tag.width
    if height > shape[0] or width > shape[1]:
        return []
    places = [(y0 - height, x0), (y0 - height, x1 - width), (y1, x0), (y1, x1 - width), (y0, x1), (y0, x0 - width)]
    if y1 - y0 >= 2 * height and x1 - x0 >= width:  # In the object, where it is large.
        places[1:1] = [(y0, x0)]
        places += [(y1 - height, x0)]
    return [(min(max(top, 0), shape[0] - height), min(max(left, 0), shape[1] - width)) for top, left in places]
