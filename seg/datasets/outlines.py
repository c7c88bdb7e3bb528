"""Outlines of the drawn shapes, as signed distances."""

from __future__ import annotations

import numpy as np

REACH = 1.5  # The atlas covers [-REACH, REACH] in both directions; every outline lies in the disc of radius 1.
_CELLS = 96


def atlas() -> np.ndarray:
    """Signed distances to the outline of every shape of `NAMES`, below 0 inside, in units of the shape's radius.

    Returns:
      float32 [shapes, 96, 96, 1]; cell centres cover [-REACH, REACH].
    """
    axis = ((np.arange(_CELLS) + 0.5) / _CELLS * 2 - 1) * REACH
    y, x = np.meshgrid(axis, axis, indexing='ij')
    return np.stack([outline(y, x) for outline in _OUTLINES.values()])[..., None].astype(np.float32)


def _disc(y, x, radius=0.95, left=0.0):
    return np.hypot(y, x - left) - radius


def _ring(y, x):
    return np.abs(np.hypot(y, x) - 0.7) - 0.28


def _crescent(y, x):
    return np.maximum(_disc(y, x - 0.2, 1.0), -_disc(y, x - 0.2, 0.8, 0.6))


def _polygon(corners):
    """Returns the signed distance function of the polygon with these (y, x) corners, in order."""
    corners = np.asarray(corners, np.float64)

    def distance(y, x):
        points = np.stack([y, x], axis=-1)[..., None, :]
        edge = np.roll(corners, -1, axis=0) - corners
        away = points - corners
        along = np.clip((away * edge).sum(-1) / (edge * edge).sum(-1), 0, 1)
        nearest = np.linalg.norm(away - along[..., None] * edge, axis=-1).min(axis=-1)
        # Inside, a ray to the right crosses an odd number of edges.
        ends = np.roll(corners, -1, axis=0)
        spans = (corners[:, 0] > y[..., None]) != (ends[:, 0] > y[..., None])
        slope = edge[:, 1] / np.where(edge[:, 0] == 0, 1, edge[:, 0])
        crossed = spans & (x[..., None] < corners[:, 1] + slope * away[..., 0])
        return np.where(crossed.sum(-1) % 2 == 1, -nearest, nearest)

    return distance


def _around(radii, turn=0.0):
    """Corners at equal angles around the centre, with these radii in turn."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii) + turn
    return np.stack([radii * np.sin(angles), radii * np.cos(angles)], axis=1)


_ARM = 0.4  # Half the width of the arms of a cross.
_QUARTER = np.array([[_ARM, 0.93], [_ARM, _ARM], [0.93, _ARM]])

_OUTLINES = {
    'disc': _disc,
    # Sides parallel to the axes, so that stretching gives a rectangle, not a rhombus.
    'square': _polygon(_around(np.ones(4), np.pi / 4)),
    'triangle': _polygon(_around(np.ones(3), -np.pi / 2)),
    'ring': _ring,
    # The four quarters of a cross are rotations of one.
    'cross': _polygon(
        np.concatenate([_QUARTER @ np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, -1), (-1, 0), (0, 1))])
    ),
    'star': _polygon(_around(np.tile([1.0, 0.55], 5), -np.pi / 2)),
    'crescent': _crescent,
}
NAMES = tuple(_OUTLINES)
