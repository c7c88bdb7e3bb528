"""Dropout whose noise depends on the example."""

from __future__ import annotations

import math
import zlib
from typing import Any

import keras
import numpy as np
from keras import ops

from seg.ops.random import random_bits


class Dropout(keras.layers.Layer):
    """Sets entries to zero at random, and scales the others so that the expected value stays.

    The noise of an example depends on its seed, this layer's name and the position only: one and many replicas, and an
    interrupted run, draw the same.

    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
    """

    def __init__(self, rate: float, *, name: str):
        """Makes the layer.

        Args:
          rate: probability that an entry is dropped, 0 <= rate < 1.
          name: the layer's name, unique in its model: two layers of one name draw the same noise.
        """
        super().__init__(name=name)
        if not 0 <= rate < 1:
            raise ValueError(f'{name}: a dropout rate lies in [0, 1), received {rate}.')
        self.rate = rate
        self.built = True

    def call(self, x: Any, seed: Any = None, training: bool = False) -> Any:
        """Drops entries when training.

        Args:
          x: [B, ...] float, static shape but for B.
          seed: [B, 2] int32; may be None when not training.
          training: whether to drop anything.

        Returns:
          x's shape and dtype.

        Raises:
          ValueError: if training without a seed.
        """
        if not training or not self.rate:
            return x
        if seed is None:
            raise ValueError(f'{self.name}: dropout in training needs the seed [B, 2] of each example.')
        shape = tuple(x.shape[1:])
        bits = random_bits(seed, zlib.crc32(self.name.encode()), math.prod(shape))
        keep = ops.greater_equal(bits, ops.convert_to_tensor(np.uint32(round(self.rate * 2**32))))
        mask = ops.reshape(ops.cast(keep, x.dtype), (-1, *shape))
        return x * mask * (1 / (1 - self.rate))

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        return x_shape
