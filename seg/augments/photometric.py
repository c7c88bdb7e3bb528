"""Random changes of brightness, contrast, saturation and hue."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from seg.augments.base import change_colors
from seg.number_checks import check_number
from seg.registry import augments

# RGB to luma and two chroma axes (NTSC's YIQ): hue is the angle and saturation the length in the chroma plane.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float32)
_FROM_YIQ = np.linalg.inv(_TO_YIQ).astype(np.float32)


@augments.register('photometric')
def photometric(
    *,
    brightness: float = 0.125,
    contrast: float = 0.5,
    saturation: float = 0.5,
    hue: float = 0.05,
    probability: float = 0.5,
) -> Photometric:
    """Random brightness, contrast, saturation and hue, each with a probability; for every target.

    The kinds and default ranges are those of SSD (Liu et al., 2016, arXiv:1512.02325).

    Args:
      brightness: up to this fraction of the full range is added or subtracted, 0..1.
      contrast: distances from the image's mean grey are multiplied by up to 1 - this to 1 + this, 0..1.
      saturation: distances from a pixel's own grey are multiplied by up to 1 - this to 1 + this, 0..1.
      hue: hues are rotated by up to this fraction of the full circle in either direction, 0..0.5.
      probability: probability of each of the four changes, 0..1.

    Raises:
      UserError: if a setting is out of its range.
    """
    limits = (
        ('brightness', brightness, 1),
        ('contrast', contrast, 1),
        ('saturation', saturation, 1),
        ('hue', hue, 0.5),
    )
    for name, value, most in (*limits, ('probability', probability, 1)):
        check_number(f'augments.photometric.{name}', value, 0, most)
    return Photometric(brightness, contrast, saturation, hue, probability)


class Photometric:
    """The augment made by `photometric`.

    All four changes are linear in the colour of a pixel, so together they are one 3x3 matrix and one offset per image.
    Padding does not change, so the augment may come before or after a crop.
    """

    def __init__(self, brightness, contrast, saturation, hue, probability):
        self._ranges = np.array([brightness * 255, contrast, saturation, hue * 2 * math.pi], np.float32)
        self._probability = probability

    def __call__(self, example: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Augments one example.

        Args:
          example: `image` float32 [H, W, 3] in 0..255, `size` int32 [2], the valid region at the top left.
          seed: int32 [2]; determines all random numbers.

        Returns:
          The example with a changed `image`, within 0..255. Other keys are passed on.
        """
        draws = tf.random.stateless_uniform([2, 4], seed, alg='philox')
        amounts = tf.where(draws[0] < self._probability, (2 * draws[1] - 1) * self._ranges, 0.0)
        brightness, contrast, saturation, hue = tf.unstack(amounts)
        cos, sin = (1 + saturation) * tf.cos(hue), (1 + saturation) * tf.sin(hue)
        zero = tf.zeros([])
        chroma = tf.stack([tf.stack([zero + 1, zero, zero]), tf.stack([zero, cos, -sin]), tf.stack([zero, sin, cos])])
        matrix = (1 + contrast) * tf.matmul(_FROM_YIQ, tf.matmul(chroma, _TO_YIQ))

        def change(inside):
            color = tf.reduce_sum(tf.reduce_sum(inside, 0), 0) / tf.cast(tf.reduce_prod(example['size']), tf.float32)
            # Grey is a fixed point of hue and saturation: only the clipping depends on the order of the four changes.
            offset = brightness - contrast * tf.tensordot(_TO_YIQ[0], color, 1)
            return tf.matmul(tf.reshape(inside, [-1, 3]), matrix, transpose_b=True) + offset

        return change_colors(example, change)
