"""Outlines of masks as polygons."""

from __future__ import annotations

import contourpy
import numpy as np

_TO_EDGES = 0.5  # contourpy counts from the centre of the first pixel, images from its edge.


def polygons(mask: np.ndarray) -> list[list[list[float]]]:
    """Polygons around the set pixels of a mask, in the nesting of GeoJSON's MultiPolygon, but for its pairs.

    An outline passes half a pixel from the centres of the pixels inside it, and cuts the corners. So the centres of all
    set pixels lie inside, and no others.

    Args:
      mask: bool [H, W].

    Returns:
      For each polygon its rings: the outer one, then its holes. A ring is [x0, y0, x1, y1, …] in pixels, with the edge
      of the image at 0, and its last point is its first.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = rows[0], columns[0]
    padded = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.float32)
    filled = contourpy.contour_generator(z=padded, fill_type=contourpy.FillType.OuterOffset).filled(0.5, np.inf)
    found = []
    for points, offsets in zip(*filled, strict=True):
        points = points + (left - 1 + _TO_EDGES, top - 1 + _TO_EDGES)
        found.append([points[a:b].round(2).ravel().tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)])
    return found
