"""Normalisation of pixels for a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from seg.structures import PAD_PIXEL

IMAGENET_STD = (58.395, 57.12, 57.375)  # RGB, 0..255; its mean is PAD_PIXEL.


class PixelNorm(keras.layers.Layer):
    """Subtracts a mean pixel and divides by a deviation, in float32 or better, then casts.

    Pixels equal to `structures.PAD_PIXEL` become 0 for any mean, the value with which convolutions pad. No pixel of a
    file is equal to it, because its values are not whole numbers. Later layers handle the outside of an image by
    `seg.ops.valid_cells`.
    """

    def __init__(self, mean: Sequence[float] = PAD_PIXEL, std: Sequence[float] = IMAGENET_STD, *, name: str):
        """Makes the layer.

        Args:
          mean: one value per channel, in 0..255.
          std: one value per channel, in 0..255.
          name: the layer's name.
        """
        # Without autocast: bfloat16 would round the pixels before the mean is subtracted.
        super().__init__(name=name, autocast=False)
        self.mean, self.std = tuple(mean), tuple(std)

    def call(self, image: Any) -> Any:
        exact = keras.backend.result_type(image.dtype, 'float32')
        mean, std, pad = (ops.convert_to_tensor(pixel, dtype=exact) for pixel in (self.mean, self.std, PAD_PIXEL))
        image = ops.cast(image, exact)
        x = (image - mean) / std
        if self.mean != PAD_PIXEL:
            x = ops.where(ops.all(image == pad, axis=-1, keepdims=True), ops.zeros_like(x), x)
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, image_shape: tuple) -> tuple:
        return image_shape
