"""Convolutions of decoders and heads: with a bias, or with a normalisation instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from seg.layers.conv import ACTIVATIONS, ConvNorm
from seg.layers.norm import NormFactory
from seg.ops.conv import conv2d


class ConvBias(keras.layers.Conv2D):
    """Convolution padded by equally many zeros at both ends (`seg.ops.conv.conv2d`), bias and activation."""

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        strides: int = 1,
        activation: str | None = 'relu',
        kernel_initializer: Any = 'glorot_uniform',
        dtype: Any = None,
        name: str,
    ):
        """Makes the layer.

        Args:
          filters: channels of the output.
          kernel_size: odd side of the kernel.
          strides: stride of both axes.
          activation: 'relu' or None.
          kernel_initializer: initializer of the kernel; the bias starts at 0.
          dtype: policy of the layer; None for the global one.
          name: the layer's name.
        """
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding='same',
            kernel_initializer=kernel_initializer,
            dtype=dtype,
            name=name,
        )
        self.after = ACTIVATIONS[activation]

    def call(self, x: Any) -> Any:
        """Maps [B, H, W, C] to [B, ceil(H / strides), ceil(W / strides), filters]."""
        # The bias as [filters]: oneDNN then fuses it and the activation with the convolution.
        return self.after(ops.add(conv2d(x, self.kernel, self.strides[0]), self.bias))


class ConvStack(keras.layers.Layer):
    """3x3 convolutions with ReLU, one after the other, each with a bias or with a normalisation."""

    def __init__(self, widths: Sequence[int], norm: NormFactory | None, *, kernel_initializer: Any, name: str):
        """Makes the layers `conv1`, `conv2`, …

        Args:
          widths: channels of each convolution; may be empty.
          norm: makes the normalisation layers; None for biases.
          kernel_initializer: initializer of kernels that have a bias.
          name: the layer's name.
        """
        super().__init__(name=name)
        self.convs = [
            ConvNorm(width, 3, norm=norm, name=f'conv{i}')
            if norm
            else ConvBias(width, 3, kernel_initializer=kernel_initializer, name=f'conv{i}')
            for i, width in enumerate(widths, start=1)
        ]

    def build(self, x_shape: tuple) -> None:
        for conv in self.convs:
            conv.build(x_shape)
            x_shape = conv.compute_output_shape(x_shape)

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        for conv in self.convs:
            x_shape = conv.compute_output_shape(x_shape)
        return x_shape

    def call(self, x: Any, training: bool = False) -> Any:
        """Maps [B, H, W, C] to [B, H, W, widths[-1]]."""
        for conv in self.convs:
            x = conv(x, training=training) if isinstance(conv, ConvNorm) else conv(x)
        return x
