"""Colours of instances: one hue per class, and a shade of it for each instance of the class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from seg.drawing.labels import Color

# Changes of a class's colour: (rotation of the hue, change of the lightness). The first one keeps the colour.
_SHADES = ((0.0, 0.0), (0.06, 0.14), (-0.06, -0.06), (0.1, -0.05), (-0.1, 0.1), (0.0, 0.25))
_DARKEST, _LIGHTEST = 0.5, 0.62  # Lightness of a class's own shade: visible on dark images and on bright ones.
_NEAR = 0.1  # Instances are neighbours when their boxes, grown by this fraction of their sides, meet.


def vivid(color: Color) -> Color:
    """The colour in which instances of a class are drawn: neither very dark nor very light."""
    return shade(color, 0)


def shade(color: Color, number: int) -> Color:
    """One of the shades of a class's colour; they repeat after a few."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in color))
    turn, change = _SHADES[number % len(_SHADES)]
    hue = (hue + turn) % 1
    blue = saturation * max(0.0, 1 - abs(hue - 2 / 3) / 0.11)  # Blue looks darker at the same lightness.
    lightness = float(np.clip(np.clip(lightness, _DARKEST, _LIGHTEST) + change + 0.14 * blue, 0, 0.9))
    return tuple(round(255 * channel) for channel in colorsys.hls_to_rgb(hue, lightness, saturation))


def spread(boxes: np.ndarray, classes: Sequence[int], given: Sequence[int]) -> list[int]:
    """Chooses numbers of shades, so that neighbours of one class differ where possible.

    Args:
      boxes: [N, 4], y0, x0, y1, x1.
      classes: [N] class ids.
      given: [N] numbers that are fixed; -1 for those to choose.

    Returns:
      N numbers.
    """
    boxes, classes, chosen = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(classes), np.array(given, int)
    margin = _NEAR * (boxes[:, 2:] - boxes[:, :2])
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    for i in np.flatnonzero(chosen < 0):
        near = np.all((low[i] <= high) & (low <= high[i]), axis=1) & (classes == classes[i]) & (chosen >= 0)
        taken = np.bincount(chosen[near] % len(_SHADES), minlength=len(_SHADES))
        used = np.bincount(chosen[(classes == classes[i]) & (chosen >= 0)] % len(_SHADES), minlength=len(_SHADES))
        chosen[i] = min(range(len(_SHADES)), key=lambda number: (taken[number], used[number], number))
    return chosen.tolist()


def readable_on(color: Color) -> Color:
    """White or black, whichever stands out more on a colour."""
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (part / 255 for part in color)
    )
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else (255, 255, 255)
