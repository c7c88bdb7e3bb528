"""The colours that label files bring: the palette of their PNGs."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from PIL import Image

from seg.datasets.label_maps import decoding
from seg.drawing import Color
from seg.drawing.palette import voc_palette

_PALETTE = 3  # PNG's colour type.


def read(labels: Sequence[str], names: Sequence[str], stored: Sequence[int]) -> tuple[Color, ...] | None:
    """Reads the colours of the classes from the palette of the first label file.

    Args:
      labels: paths of the label files.
      names: class names.
      stored: the stored value of each class.

    Returns:
      One (r, g, b) per class. None if the file has no palette, or none that was chosen for these classes: two classes
      share a colour, all are grey, or it is VOC's, in which tools write labels by default and whose first colour is
      black, and the first class is no background.
    """
    if not labels:
        return None
    try:
        if decoding.read_header(labels[0]).color_type != _PALETTE:
            return None
        with Image.open(labels[0]) as image:
            entries = image.getpalette('RGB') or []
    except (ValueError, OSError, SyntaxError, tf.errors.OpError):
        return None
    if min(stored) < 0 or 3 * max(stored) + 3 > len(entries):
        return None
    colors = tuple(tuple(entries[3 * value : 3 * value + 3]) for value in stored)
    by_default = names[0].lower() != 'background' and colors == voc_palette(len(colors))
    if by_default or len(set(colors)) < len(colors) or all(r == g == b for r, g, b in colors):
        return None
    return colors
