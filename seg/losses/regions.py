"""Functions for the losses of boxes and masks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def exact(x: Any) -> Any:
    """Returns `x` in float32, or in float64 if it has that type."""
    return ops.cast(x, keras.backend.result_type(keras.backend.standardize_dtype(x.dtype), 'float32'))


def sigmoid_cross_entropy(logits: Any, targets: Any) -> Any:
    """Cross-entropy of the probability sigmoid(logits) against targets 0..1 of the same shape.

    Its gradient is sigmoid(logits) - targets, even if a logit is exactly 0: softplus is smooth there, unlike relu and
    abs in the form `relu(x) - x t + log1p(exp(-|x|))`.
    """
    return targets * ops.softplus(-logits) + (1 - targets) * ops.softplus(logits)


def smooth_l1(difference: Any, beta: float) -> Any:
    """|x| - beta / 2, and x^2 / (2 beta) where |x| < beta (Girshick, "Fast R-CNN", 2015, has beta = 1)."""
    size = ops.abs(difference)
    return ops.where(size < beta, ops.square(difference) / (2 * beta), size - beta / 2)


def of_class(values: Any, classes: Any) -> Any:
    """Selects the channel of each ROI's class.

    Args:
      values: [B, R, ..., C]; C = K, or 1 of a head with `class_agnostic`.
      classes: int32 [B, R], 1 to K; for other values the result is any finite number.

    Returns:
      [B, R, ...].
    """
    channels = values.shape[-1]
    if channels == 1:
        return values[..., 0]
    chosen = ops.one_hot(classes - 1, channels, dtype=values.dtype)
    return ops.einsum('brnc,brc->brn', values, chosen) if len(values.shape) == 4 else ops.sum(values * chosen, -1)
