"""Class ids as colours: palette PNGs and overlays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from seg.errors import UserError, shown

Color = tuple[int, int, int]
_HEX = re.compile(r'#([0-9a-fA-F]{6})')

IGNORED: Color = (224, 224, 192)  # The colour in VOC's figures; grey is one of VOC's classes.


def color_of(slot: str, value: Any) -> Color:
    """Reads a colour of the setting `slot`: '#rrggbb' or (r, g, b).

    Raises:
      UserError: if it is neither.
    """
    if isinstance(value, str) and (match := _HEX.fullmatch(value.strip())):
        return tuple(bytes.fromhex(match[1]))
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        if all(isinstance(part, int) and 0 <= part <= 255 for part in value):
            return tuple(value)
    raise UserError(f"{slot} = {shown(value)}: expected a colour such as '#804080' or (128, 64, 128).")


def palette_png(classes: np.ndarray, colors: Sequence[Color]) -> Image.Image:
    """An 8-bit palette image of class ids.

    Args:
      classes: [H, W] integer class ids below 256.
      colors: one per class.
    """
    image = Image.fromarray(classes.astype(np.uint8), 'P')
    flat = [channel for color in colors for channel in color]
    image.putpalette(flat + [0] * (768 - len(flat)))
    return image


def overlay(image: np.ndarray, classes: np.ndarray, colors: Sequence[Color], opacity: float = 0.5) -> np.ndarray:
    """Blends the classes' colours over an image.

    Args:
      image: uint8 [H, W, 3].
      classes: [H, W] integer class ids; pixels of ids without a colour stay as they are.
      colors: one per class.
      opacity: opacity of the colours, 0 to 1.

    Returns:
      uint8 [H, W, 3].
    """
    table = np.zeros((256, 4), np.float32)
    table[: len(colors), :3], table[: len(colors), 3] = colors, opacity
    painted = table[np.clip(classes, 0, 255)]
    alpha = painted[..., 3:]
    return np.round(image * (1 - alpha) + painted[..., :3] * alpha).astype(np.uint8)
