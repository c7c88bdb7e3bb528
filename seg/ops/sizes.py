"""Sizes of scaled pictures: the same for training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def fitted_size(size: Any, limit: tuple[int, int], clip: Callable[[Any, int, int], Any] | None = None) -> tuple:
    """Returns the size of a picture that is scaled, up or down, so that it fills `limit` as far as its shape allows.

    Sides are rounded to the nearest whole number, halves up, in whole numbers: no precision decides.

    Args:
      size: (height, width) of the picture: Python's whole numbers, or int64 tensors.
      limit: (height, width) that the result has at most; each side is at least 1.
      clip: limits a value to [low, high]; for tensors the backend's.
    """
    clip = clip or (lambda value, low, high: min(max(value, low), high))
    height, width = size
    # The side that does not limit the scale would be longer than `limit` here, and is clipped to it.
    rows = (2 * height * limit[1] + width) // (2 * width)
    columns = (2 * width * limit[0] + height) // (2 * height)
    return clip(rows, 1, limit[0]), clip(columns, 1, limit[1])


def rounded(length: Any) -> Any:
    """Returns a length, float64 or Python's, rounded to the nearest whole number, halves up, in its own dtype."""
    return (length + 0.5) // 1
