"""Pictures of labels and predictions: palette PNGs, and strips for TensorBoard. Host side, numpy and Pillow only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

Color = tuple[int, int, int]

_IGNORED = (224, 224, 192)  # As VOC shows it; grey is one of its classes.
_GAP = 4


def palette_png(classes: np.ndarray, colors: Sequence[Color]) -> Image.Image:
    """An 8-bit palette picture of class ids.

    Args:
      classes: [H, W] integer class ids below 256.
      colors: one per class.
    """
    picture = Image.fromarray(classes.astype(np.uint8), 'P')
    flat = [channel for color in colors for channel in color]
    picture.putpalette(flat + [0] * (768 - len(flat)))
    return picture


def colorize(classes: np.ndarray, colors: Sequence[Color], ignore_label: int) -> np.ndarray:
    """Class ids [H, W] as uint8 [H, W, 3]; ignored pixels are grey."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    table[ignore_label] = _IGNORED
    return table[np.clip(classes, 0, 255)]


def overlay(image: np.ndarray, classes: np.ndarray, colors: Sequence[Color], opacity: float = 0.5) -> np.ndarray:
    """Lays the classes' colours over a picture.

    Args:
      image: uint8 [H, W, 3].
      classes: [H, W] integer class ids; ids without a colour leave the picture as it is.
      colors: one per class.
      opacity: of the colours, 0 to 1.

    Returns:
      uint8 [H, W, 3].
    """
    table = np.zeros((256, 4), np.float32)
    table[: len(colors), :3], table[: len(colors), 3] = colors, opacity
    painted = table[np.clip(classes, 0, 255)]
    alpha = painted[..., 3:]
    return np.round(image * (1 - alpha) + painted[..., :3] * alpha).astype(np.uint8)


def strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures of one size, uint8 [H, W, 3] each, side by side."""
    height = pictures[0].shape[0]
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    return np.concatenate(parts, axis=1)
