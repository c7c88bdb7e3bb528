"""Colours of class ids: distinct ones, those of published data sets, and vivid ones for instances."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seg.drawing.labels import IGNORED, Color, color_of
from seg.errors import UserError, shown
from seg.known_classes import CAMVID_CLASS_NAMES, VOC_CLASS_NAMES

# Chosen by hand; the colours that follow are those that differ most from all earlier ones.
_FIRST: tuple[Color, ...] = (
    (66, 133, 244),
    (235, 120, 30),
    (52, 168, 83),
    (214, 56, 60),
    (148, 82, 200),
    (0, 180, 200),
    (240, 195, 40),
    (236, 110, 178),
    (122, 82, 52),
    (150, 200, 60),
    (38, 66, 140),
    (0, 112, 92),
)
_NOT_USED: tuple[Color, ...] = ((0, 0, 0), (255, 255, 255), (128, 128, 128), IGNORED)
_LEVELS = 9  # Of each channel of the colours to choose from.
_DARKEST, _LIGHTEST = 0.42, 0.9  # Lightness in OKLab: visible beside black and beside white.

# As CamVid's authors draw them.
_CAMVID = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip


def class_palette(class_names: Sequence[str]) -> tuple[Color, ...]:
    """Colours of the classes of label maps that bring none.

    VOC's and CamVid's classes have their published colours. A first class with the name background is black, and all
    others are distinct (`distinct_palette`).

    Args:
      class_names: one per class.

    Returns:
      One (red, green, blue) per class, 0..255.
    """
    for names, colors in _published():
        if len(class_names) > 1 and set(class_names) <= set(names):
            return tuple(colors[names.index(name)] for name in class_names)
    if class_names and class_names[0].lower() == 'background':
        return ((0, 0, 0), *distinct_palette(len(class_names) - 1))
    return distinct_palette(len(class_names))


def with_colors(slot: str, chosen: Any, class_names: Sequence[str], colors: Sequence[Color]) -> tuple[Color, ...]:
    """The colours of classes after the setting `slot`, which gives some of them others.

    Args:
      slot: the setting, for messages.
      chosen: a dict from class names to colours, '#rrggbb' or (r, g, b).
      class_names: one per class.
      colors: one (r, g, b) per class, of the classes that are not chosen.

    Raises:
      UserError: for an entry that is no colour, or names no class.
    """
    if not isinstance(chosen, Mapping):
        raise UserError(f"{slot} = {shown(chosen)}: expected a dict, such as {{{class_names[-1]!r}: '#804080'}}.")
    if unknown := [name for name in chosen if name not in class_names]:
        raise UserError(f'{slot}: there is no class {shown(unknown[0])}. Expected some of {", ".join(class_names)}.')
    given = {name: color_of(f'{slot}[{shown(name)}]', color) for name, color in chosen.items()}
    return tuple(given.get(name, tuple(color)) for name, color in zip(class_names, colors, strict=True))


def _published() -> tuple[tuple[tuple[str, ...], tuple[Color, ...]], ...]:
    return (VOC_CLASS_NAMES, voc_palette(len(VOC_CLASS_NAMES))), (CAMVID_CLASS_NAMES, _CAMVID)


@functools.cache
def distinct_palette(num_classes: int) -> tuple[Color, ...]:
    """Colours that differ as much as possible, none near black, white, grey or the colour of ignored pixels.

    The first colours are the same for any number of classes.

    Args:
      num_classes: any number; the colours repeat after 500.

    Returns:
      One (red, green, blue) per class, 0..255.
    """
    colors = list(_FIRST[:num_classes])
    levels = np.linspace(0, 255, _LEVELS).round().astype(int)
    choice = np.stack(np.meshgrid(levels, levels, levels, indexing='ij'), -1).reshape(-1, 3)
    places = _oklab(choice)
    choice, places = (each[(places[:, 0] > _DARKEST) & (places[:, 0] < _LIGHTEST)] for each in (choice, places))
    distance = lambda color: np.linalg.norm(places - _oklab(color), axis=-1)  # noqa: E731
    nearest = np.min([distance(color) for color in (*_NOT_USED, *_FIRST)], axis=0)
    while len(colors) < min(num_classes, 500):
        colors.append(tuple(int(level) for level in choice[nearest.argmax()]))
        nearest = np.minimum(nearest, distance(colors[-1]))
    return tuple(colors[i % len(colors)] for i in range(num_classes))


def _oklab(colors: np.ndarray | Color) -> np.ndarray:
    """Björn Ottosson's OKLab, in which equal distances look equally different: [..., 3] of RGB [..., 3], 0..255."""
    parts = np.asarray(colors, float) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ np.transpose([
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    ]))  # fmt: skip
    return cones @ np.transpose([
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    ])  # fmt: skip


def voc_palette(num_classes: int) -> tuple[Color, ...]:
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


def instance_palette(num_classes: int) -> tuple[Color, ...]:
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
