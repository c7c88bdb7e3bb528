"""The colours that PASCAL VOC gives to class ids."""

from __future__ import annotations


def voc_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Colours of the class ids 0 to `num_classes` - 1, as in the palette of PASCAL VOC's label files.

    The bits of an id are dealt out to red, green and blue in turn, lowest bit first, and each colour fills its byte
    from the highest bit down. So ids that are close get colours that are far apart, and all 256 differ.

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
