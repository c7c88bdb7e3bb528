"""Finds polygons that need not be drawn before their image is loaded: it is certain that they have pixels.

Numbers alone decide, for many instances at once. Polygons that they do not decide are drawn, with the usual messages.
"""

from __future__ import annotations

import array
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seg.datasets.instances import outlines, segmentations
from seg.masks.matching import paired_iou

_GRID = outlines.GRID
_LARGEST = np.iinfo(np.uint16).max // _GRID  # Pixels of an image's side; outlines in larger ones are drawn at once.
_GAP = 2 * _GRID  # On the grid. The rows that are drawn differ from the exact crossings by less than half of it each.


class Plain(NamedTuple):
    """Instances whose polygons are ordinary.

    Attributes:
      places: int64 [N], their positions among all.
      points: uint16 [P, 2], the points of all outlines on the grid of `outlines`, instance by instance.
      point_counts: int32 [R], the points of each outline.
      outline_counts: int32 [N], the outlines of each instance.
      bounds: float64 [N, 4], y0, x0, y1, x1 in pixels.
      area: float64 [N], the sum of the areas of the outlines, in pixels.
      sure: bool [N], whether it is certain that the polygons have pixels. Where they are not, the points may be wrong.
    """

    places: np.ndarray
    points: np.ndarray
    point_counts: np.ndarray
    outline_counts: np.ndarray
    bounds: np.ndarray
    area: np.ndarray
    sure: np.ndarray

    def part(self, kept: np.ndarray) -> Plain:
        """Some of the instances; `kept` is bool [N]."""
        outline = np.repeat(kept, self.outline_counts)
        point = np.repeat(outline, self.point_counts)
        counts = self.outline_counts[kept]
        points = self.points if point.all() else self.points[point]
        bounds, area, sure = self.bounds[kept], self.area[kept], self.sure[kept]
        return Plain(self.places[kept], points, self.point_counts[outline], counts, bounds, area, sure)


def find(polygons: Sequence[Sequence[Sequence[float]] | None], sizes: np.ndarray) -> Plain:
    """Finds the ordinary ones, and those that certainly have pixels.

    The outlines of a sure instance have three points or more, lie within the image, and are not too long; at least one
    of them certainly has a pixel.

    Args:
      polygons: for each instance its outlines, lists of numbers x0, y0, x1, y1, … in pixels; None for other forms.
      sizes: int64 [instances, 2], (height, width) of the images.
    """
    counts = np.array([len(parts) if parts else 0 for parts in polygons], np.int32)
    parts = list(itertools.chain.from_iterable(parts for parts in polygons if parts))
    lengths = np.fromiter(map(len, parts), np.int32, len(parts))
    owner = np.repeat(np.arange(len(counts)), counts)
    kept = counts > 0
    kept[owner[(lengths < 6) | (lengths % 2 == 1)]] = False
    if not kept[owner].all():
        parts = list(itertools.compress(parts, kept[owner]))
        lengths, owner = lengths[kept[owner]], owner[kept[owner]]
    places, counts = np.flatnonzero(kept), counts[kept]
    if not len(places):
        empty = np.zeros([0, 2], np.uint16)
        return Plain(places, empty, lengths, counts, np.zeros([0, 4]), np.zeros(0), np.zeros(0, bool))
    numbers = array.array('d')  # Takes lists in half the time that numpy takes.
    for part in parts:
        numbers.fromlist(part)
    points = np.frombuffer(numbers).reshape(-1, 2)
    lengths //= 2
    starts, first = np.cumsum(lengths) - lengths, np.cumsum(counts) - counts
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    # Not for NaN either. (Coordinates from 0 to 1 are a mistake that has a message.)
    limits = np.minimum(sizes, _LARGEST)[owner][:, ::-1]
    sound = (low >= 0).all(axis=1) & (high <= limits).all(axis=1) & (high.max(axis=1) > 1)
    if not sound.all():
        # Coordinates far outside of the image are not converted.
        points = np.where(np.repeat(sound, lengths)[:, None], points, 0)
    points = outlines.to_grid(points).astype(np.uint16)
    low, high = np.minimum.reduceat(low, first), np.maximum.reduceat(high, first)
    sure = np.logical_and.reduceat(sound, first) & np.logical_or.reduceat(_have_pixels(points, lengths), first)
    sure &= 2 * np.add.reduceat(lengths, first) * high.max(axis=1) <= segmentations.longest(*sizes[places].T)
    bounds = np.concatenate([low, high], axis=1)[:, [1, 0, 3, 2]]
    area = np.add.reduceat(_areas(points, lengths), first)
    return Plain(places, points, lengths, counts, bounds, area, sure)


def _areas(points: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Areas of outlines in pixels, float64 [R], by the trapezoids below their edges."""
    ends = np.cumsum(counts)
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = ends - counts
    (x, y), (next_x, next_y) = points.T.astype(np.int64), points[following].T.astype(np.int64)
    return np.abs(np.add.reduceat(x * next_y - next_x * y, ends - counts)) / (2 * _GRID**2)


def _have_pixels(points: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Whether outlines certainly have a pixel, in the column in their middle; bool [R]."""
    ends = np.cumsum(counts)
    starts = ends - counts
    points = points.astype(np.int32)
    low, high = np.minimum.reduceat(points[:, 0], starts), np.maximum.reduceat(points[:, 0], starts)
    middle = (low + high) // (2 * _GRID) * _GRID + _GRID // 2  # The middle of a column is half a cell right of it.
    outline = np.repeat(np.arange(len(counts)), counts)
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = starts
    is_left = points[:, 0] <= middle[outline]
    edge = np.flatnonzero(is_left != is_left[following])
    outline = outline[edge]
    (x, y), (next_x, next_y) = points[edge].T.astype(np.float64), points[following[edge]].T.astype(np.float64)
    row = y + (middle[outline] + 0.5 - x) * (next_y - y) / (next_x - x)
    order = np.lexsort([row, outline])
    row, outline = row[order], outline[order]
    found = np.zeros(len(counts), bool)
    found[outline[::2][row[1::2] - row[::2] > _GAP]] = True  # An outline crosses the column an even number of times.
    return found


def boxes(given: np.ndarray, bounds: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of instances that were not drawn.

    Args:
      given: float64 [N, 4], x, y, width, height in the file; NaN if there is none.
      bounds: float64 [N, 4], bounds of the outlines, y0, x0, y1, x1.
      sizes: int64 [N, 2], (height, width) of the images.

    Returns:
      float32 [N, 4], y0, x0, y1, x1, within the image, NaN where the box of the mask is to be used; bool [N], whether
      there is no box; and bool [N], whether it is certain that a box fits its mask, or that there is none.
    """
    clipped, as_corners, lacking = corners(given, sizes)
    near, swapped = paired_iou(clipped, bounds), paired_iou(as_corners, bounds)
    # In small boxes, the pixels that are set differ more from the bounds.
    large = (bounds[:, 2:] - bounds[:, :2]).min(axis=1) >= 8
    fits = (near >= 0.9) & (large | (swapped < 0.3))
    return np.where(lacking[:, None], np.nan, clipped).astype(np.float32), lacking, fits | lacking


def corners(given: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of the file as y0, x0, y1, x1, clipped to the image; read as two corners as well; and which are lacking."""
    limit = np.concatenate([sizes, sizes], axis=1)
    x, y, width, height = given.T
    clipped = np.clip(np.stack([y, x, y + height, x + width], axis=1), 0, limit)
    as_corners = np.clip(np.stack([y, x, height, width], axis=1), 0, limit)
    lacking = ~((width > 0) & (height > 0) & np.isfinite(given).all(axis=1))
    return clipped, as_corners, lacking
