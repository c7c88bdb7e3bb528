"""Colours of class ids: those of PASCAL VOC, and vivid ones for instances."""

from __future__ import annotations

import colorsys


def voc_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Colours of the class ids 0 to `num_classes` - 1, as in the palette of PASCAL VOC's label files.

    The bits of an id go to red, green and blue in turn, lowest bit first, and each channel is filled from its highest
    bit down. So close ids get very different colours, and all 256 differ.

    Args:
      num_classes: 0 to 256.

    Returns:
      One (red, green, blue) per id, 0..255.
    """
    colors = []
    for class_id in range(num_classes):
        color = [0, 0, 0]
        for bit in range(8):
            color[bit % 3] |= (class_id >> bit & 1) << (7 - bit // 3)
        colors.append(tuple(color))
    return tuple(colors)


def instance_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Colours of the classes of instances, which are drawn over images: vivid, none near black, white or grey.

    Successive hues are a golden section of the circle apart, so the hues of the first classes differ much for any
    number of classes. Later classes differ from classes with similar hues by lightness and saturation.

    Args:
      num_classes: any number.

    Returns:
      One (red, green, blue) per class, 0..255.
    """
    colors = []
    for class_id in range(num_classes):
        hue = (0.4 + class_id * 0.618033988749895) % 1
        lightness, saturation = ((0.55, 1.0), (0.6, 0.75), (0.5, 0.85))[class_id // 8 % 3]
        colors.append(tuple(round(255 * channel) for channel in colorsys.hls_to_rgb(hue, lightness, saturation)))
    return tuple(colors)
