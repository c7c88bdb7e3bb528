"""One example of the data: the image beside its annotations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from seg.drawing import text
from seg.drawing.comparison import panel_size, resize_image
from seg.drawing.instance_colors import shade, spread, vivid
from seg.drawing.labels import IGNORED, Color
from seg.drawing.legends import Entry
from seg.drawing.mask_overlay import Shape, paint
from seg.drawing.panels import draw_panels
from seg.structures import Annotations

_LONGEST, _COMFORTABLE = 420, 320  # Pixels of a panel's longer side: the largest, and that of magnified ones.
_OPACITY = 0.55
UNKNOWN: Color = (255, 0, 220)  # For values that are not class ids; no palette has it.


def label_map(
    name: str,
    image: np.ndarray,
    label: np.ndarray,
    *,
    class_names: Sequence[str],
    colors: Sequence[Color],
    ignore_label: int,
) -> np.ndarray:
    """Draws an image, and the image under its label map, with a legend.

    Args:
      name: name of the image.
      image: uint8 [H, W, 3].
      label: int [H, W]; values that are neither a class nor `ignore_label` are drawn in a colour of their own.
      class_names: one per class.
      colors: one per class.
      ignore_label: value of ignored pixels.

    Returns:
      uint8 [h, w, 3].
    """
    count, size = len(class_names), panel_size(*image.shape[:2], _LONGEST, _COMFORTABLE)
    place = np.where((label >= 0) & (label < count), label, count + 1)
    place = np.where(label == ignore_label, count, place).astype(np.int32)
    pixels = np.bincount(place.ravel(), minlength=count + 2)
    table = np.asarray([*colors, IGNORED, UNKNOWN], np.float32)
    drawn = resize_image(image, size)
    small = np.asarray(Image.fromarray(place).resize(size[::-1], Image.Resampling.NEAREST))
    under = np.round(drawn * (1 - _OPACITY) + table[small] * _OPACITY).astype(np.uint8)
    under[small == count + 1] = UNKNOWN
    names = [*(text.class_label(n, i) for i, n in enumerate(class_names)), 'ignored', 'no class']
    legend = [
        Entry(tuple(map(int, table[i])), names[i], f'{100 * pixels[i] / label.size:.1f} %')
        for i in np.flatnonzero(pixels)
    ]
    return _drawn(name, image, [('image', drawn), ('labels', under)], legend)


def instances(
    name: str, image: np.ndarray, truth: Annotations, *, class_names: Sequence[str], colors: Sequence[Color]
) -> np.ndarray:
    """Draws an image, and the image with its instances: masks, boxes and class names; crowds are hatched.

    Args:
      name: name of the image.
      image: uint8 [H, W, 3].
      truth: its instances.
      class_names: one per class.
      colors: one per class.

    Returns:
      uint8 [h, w, 3].
    """
    drawn = resize_image(image, panel_size(*image.shape[:2], _LONGEST, _COMFORTABLE))
    classes = np.asarray(truth.classes)
    known = (classes >= 0) & (classes < len(class_names))
    numbers = spread(np.asarray(truth.boxes).reshape(-1, 4), classes, [-1] * len(classes))
    shapes = [
        Shape(
            truth.boxes[i],
            truth.masks[i],
            shade(colors[c], numbers[i]) if known[i] else UNKNOWN,
            text.class_label(class_names[c], c) if known[i] else f'class {c}',
            hatched=bool(truth.is_crowd[i]),
        )
        for i, c in enumerate(classes.tolist())
    ]
    legend = [
        Entry(vivid(colors[c]), text.class_label(class_names[c], c), str(int(np.sum(classes == c))))
        for c in sorted(set(classes[known].tolist()))
    ]
    return _drawn(name, image, [('image', drawn), ('instances', paint(drawn.copy(), shapes, 0.4))], legend)


def alone(name: str, image: np.ndarray) -> np.ndarray:
    """Draws an image without annotations; arguments and result as above."""
    return _drawn(
        name, image, [('image', resize_image(image, panel_size(*image.shape[:2], _LONGEST, _COMFORTABLE)))], []
    )


def _drawn(name: str, image: np.ndarray, panels: list[tuple[str, np.ndarray]], legend: list[Entry]) -> np.ndarray:
    height, width = image.shape[:2]
    numbers = f'  ·  {height} x {width} pixels'
    return draw_panels(name, numbers, panels, [legend], font_size=13, narrowest=0, gap=8)
