"""Arithmetic of boxes (y0, x0, y1, x1) in pixels with continuous coordinates: a box is x1 - x0 wide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

# A decoded box is at most this many times as high or wide as its anchor.
MAX_SCALE = 1000 / 16
# Smallest side in pixels for logarithms and quotients.
_MIN_SIDE = 1e-8


def at_least_float32(x: Any) -> Any:
    """Returns `x`, in float32 if its dtype is a half precision or an integer: in bfloat16, 1023.3 is 1024."""
    x = ops.convert_to_tensor(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    return x if dtype in ('float32', 'float64') else ops.cast(x, 'float32')


def area(boxes: Any) -> Any:
    """Returns the area [...] of boxes [..., 4], in square pixels; 0 if an end lies before its start."""
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Any, b: Any) -> Any:
    """Intersection over union of every box of one set with every box of another.

    Args:
      a: [..., N, 4].
      b: [..., M, 4].

    Returns:
      [..., N, M] in 0..1; 0 if one of the two has no area.
    """
    a, b = at_least_float32(a), at_least_float32(b)

    def overlap(start: int, end: int) -> Any:
        last = ops.minimum(a[..., :, None, end], b[..., None, :, end])
        return ops.maximum(last - ops.maximum(a[..., :, None, start], b[..., None, :, start]), 0)

    intersection = overlap(0, 2) * overlap(1, 3)
    union = area(a)[..., :, None] + area(b)[..., None, :] - intersection
    # If the intersection is 0, so is the result, for any divisor.
    return intersection / ops.where(intersection > 0, union, 1)


def clip(boxes: Any, size: Any) -> Any:
    """Clips boxes to their images.

    Args:
      boxes: [B, N, 4].
      size: int32 [B, 2], height and width of the valid part of each image, in pixels.

    Returns:
      [B, N, 4]; boxes outside of the image have no area.
    """
    limits = ops.cast(ops.concatenate([size, size], axis=-1), boxes.dtype)[:, None]
    return ops.minimum(ops.maximum(boxes, 0), limits)


def _centres_and_sides(boxes: Any) -> tuple:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def encode(boxes: Any, anchors: Any, weights: Sequence[float] = (1, 1, 1, 1)) -> Any:
    """Encodes boxes relative to anchors: offsets of centres in units of the anchor's sides, logarithms of scales.

    The box code of R-CNN (Girshick et al. 2014, https://arxiv.org/abs/1311.2524). Sides shorter than 1e-8 pixels are
    treated as 1e-8 pixels, so that every result is finite.

    Args:
      boxes: [..., 4].
      anchors: [..., 4], broadcast against `boxes`.
      weights: factors of (dy, dx, dh, dw).

    Returns:
      [..., 4] (dy, dx, dh, dw).
    """
    boxes, anchors = at_least_float32(boxes), at_least_float32(anchors)
    centres, sides = _centres_and_sides(boxes)
    anchor_centres, anchor_sides = _centres_and_sides(anchors)
    sides, anchor_sides = ops.maximum(sides, _MIN_SIDE), ops.maximum(anchor_sides, _MIN_SIDE)
    offsets = (centres - anchor_centres) / anchor_sides
    scales = ops.log(sides / anchor_sides)
    return ops.concatenate([offsets, scales], axis=-1) * ops.convert_to_tensor(weights, dtype=boxes.dtype)


def decode(deltas: Any, anchors: Any, weights: Sequence[float] = (1, 1, 1, 1)) -> Any:
    """Inverse of `encode`; dh and dw are limited to log(1000 / 16).

    Args:
      deltas: [..., 4] (dy, dx, dh, dw).
      anchors: [..., 4], broadcast against `deltas`.
      weights: as for `encode`.

    Returns:
      [..., 4] boxes.
    """
    deltas, anchors = at_least_float32(deltas), at_least_float32(anchors)
    deltas = deltas / ops.convert_to_tensor(weights, dtype=deltas.dtype)
    centres, sides = _centres_and_sides(anchors)
    centres = centres + deltas[..., :2] * sides
    half = ops.exp(ops.minimum(deltas[..., 2:], math.log(MAX_SCALE))) * sides / 2
    return ops.concatenate([centres - half, centres + half], axis=-1)
