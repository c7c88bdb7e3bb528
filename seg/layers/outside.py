"""Zeros outside of the images, in front of Keras' own layers."""

from __future__ import annotations

from typing import Any

import keras

from seg.ops.valid_cells import zero_outside


class ZeroOutside(keras.layers.Layer):
    """Sets the cells outside of the images to zero, if a model sets the images' sizes (`seg.ops.valid_cells`).

    It is needed before every layer of Keras that mixes neighbouring cells: convolutions with kernels larger than 1 x 1,
    and pooling. The convolutions of `seg.layers.conv` do it themselves.
    """

    def call(self, x: Any) -> Any:
        """Maps [B, h, w, C] to the same shape and dtype."""
        return zero_outside(x)

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        return x_shape
