"""The first step of every pixel loss: selects the labelled pixels and the precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from seg.structures import LossTerm


class Pixels(NamedTuple):
    """Labels and logits of a batch with the pixels in one axis, N = H * W.

    Attributes:
      logits: [B, N, K], float32 at least (float64 stays float64).
      target: [B, N] int32 class ids; 0 for ignored pixels.
      valid: [B, N] bool, False for ignored pixels.
      count: [B] float, number of valid pixels.
      poison: [B] float, 0; NaN for an image with a label that is neither a class nor the ignore label. Added to the
        total, so that the executor's finite check stops at such an image and names it; a compiled step cannot raise.
    """

    logits: Any
    target: Any
    valid: Any
    count: Any
    poison: Any

    def one_hot(self):
        """[B, N, K] float, all zero for ignored pixels."""
        num_classes = self.logits.shape[-1]
        return ops.one_hot(ops.where(self.valid, self.target, -1), num_classes, dtype=self.logits.dtype)

    def term(self, total, divisor, coefficient: float) -> LossTerm:
        """Returns the LossTerm of [B] totals and their divisors."""
        return LossTerm(total=coefficient * total + self.poison, weight=divisor)


def read(outputs, batch, *, num_classes: int, ignore_label: int) -> Pixels:
    """Flattens a batch and finds the labelled pixels.

    Args:
      outputs: outputs of the model: `logits` [B, H, W, K] of any float type, K = num_classes.
      batch: `label` [B, H, W] integer.
      num_classes: number of classes.
      ignore_label: label value of ignored pixels.

    Raises:
      ValueError: if the shapes do not fit together.
    """
    logits, labels = outputs['logits'], batch['label']
    if len(logits.shape) != 4 or logits.shape[-1] != num_classes or tuple(labels.shape) != tuple(logits.shape[:3]):
        raise ValueError(
            f'A loss needs labels [B, H, W] and logits [B, H, W, {num_classes}] of one size; '
            f'received {tuple(labels.shape)} and {tuple(logits.shape)}.'
        )
    size = labels.shape[1] * labels.shape[2]
    dtype = keras.backend.result_type(keras.backend.standardize_dtype(logits.dtype), 'float32')
    logits = ops.reshape(ops.cast(logits, dtype), (-1, size, num_classes))
    labels = ops.reshape(ops.cast(labels, 'int32'), (-1, size))

    valid = labels != ignore_label
    known = ops.logical_and(labels >= 0, labels < num_classes)
    unknown = ops.any(ops.logical_and(valid, ops.logical_not(known)), axis=-1)
    return Pixels(
        logits=logits,
        target=ops.where(ops.logical_and(valid, known), labels, 0),
        valid=valid,
        count=ops.sum(ops.cast(valid, dtype), axis=-1),
        # log(1 - 2) is NaN. A NaN constant would stop every step under a numerics debugger.
        poison=ops.log1p(-2.0 * ops.cast(unknown, dtype)),
    )


def cross_entropy(pixels: Pixels, class_weights: np.ndarray | None = None) -> tuple[Any, Any]:
    """Returns the cross-entropy of each pixel and the weight of its class.

    Returns:
      `-log p[y]`, not yet weighted, and `w[y]` (1 without class weights); both [B, N] and 0 for ignored pixels.
    """
    # One-hot times log-softmax: twice as fast on the CPU as the fused sparse kernel, and without gathers on TPU.
    loss = -ops.sum(pixels.one_hot() * ops.log_softmax(pixels.logits, axis=-1), axis=-1)
    return loss, target_weights(pixels, class_weights)


def target_weights(pixels: Pixels, class_weights: np.ndarray | None):
    """Weight of each pixel's class, [B, N]; 0 for ignored pixels, 1 elsewhere without class weights."""
    dtype = pixels.logits.dtype
    valid = ops.cast(pixels.valid, dtype)
    if class_weights is None:
        return valid
    return valid * ops.take(ops.convert_to_tensor(class_weights, dtype), pixels.target, axis=0)
