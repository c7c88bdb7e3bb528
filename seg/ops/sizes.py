"""Sizes of scaled images: the same for training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def fitted_size(size: Any, limit: tuple[int, int], clip: Callable[[Any, int, int], Any] | None = None) -> tuple:
    """Returns the largest size within `limit` of an image that is scaled, up or down, with its aspect ratio kept.

    Sides are rounded to the nearest whole number, halves up, by integer arithmetic: no precision matters.

    Args:
      size: (height, width) of the image: Python integers, or int64 tensors.
      limit: largest (height, width) of the result; each side is at least 1.
      clip: limits a value to [low, high]; for tensors, the backend's function.
    """
    clip = clip or (lambda value, low, high: min(max(value, low), high))
    height, width = size
    # The other side may come out longer than `limit` here, and is clipped to it.
    rows = (2 * height * limit[1] + width) // (2 * width)
    columns = (2 * width * limit[0] + height) // (2 * height)
    return clip(rows, 1, limit[0]), clip(columns, 1, limit[1])


def rounded(length: Any) -> Any:
    """Returns a length, float64 or Python's, rounded to the nearest whole number, halves up, in its own dtype."""
    return (length + 0.5) // 1
