"""Convolutions with symmetric padding, alone and with normalisation and ReLU."""

from __future__ import annotations

from typing import Any

import keras

from seg.layers.norm import Norm
from seg.ops.conv import conv2d


class Conv2D(keras.layers.Conv2D):
    """Convolution padded by equally many zeros at both ends (`seg.ops.conv.conv2d`), without a bias."""

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        strides: int = 1,
        dilation_rate: int = 1,
        kernel_initializer: Any = None,
        use_bias: bool = False,
        name: str,
    ):
        """Makes the layer.

        Args:
          filters: channels of the output.
          kernel_size: odd side of the kernel.
          strides: of both axes.
          dilation_rate: of both axes; more than 1 only with stride 1.
          kernel_initializer: None for He's by fan out, which keeps the variance of gradients through ReLUs.
          use_bias: only where no normalisation follows.
          name: the layer's name.
        """
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding='same',
            dilation_rate=dilation_rate,
            kernel_initializer=kernel_initializer or keras.initializers.VarianceScaling(2.0, 'fan_out'),
            use_bias=use_bias,
            name=name,
        )

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return conv2d(inputs, kernel, self.strides[0], self.dilation_rate[0])


class ConvNorm(keras.layers.Layer):
    """Convolution, normalisation and ReLU."""

    def __init__(self, filters: int, kernel_size: int, *, norm: Norm, dilation_rate: int = 1, name: str):
        super().__init__(name=name)
        self.conv = Conv2D(filters, kernel_size, dilation_rate=dilation_rate, name='conv')
        self.norm = norm(name='norm')

    def build(self, x_shape: tuple) -> None:
        self.conv.build(x_shape)
        self.norm.build(self.conv.compute_output_shape(x_shape))

    def call(self, x: Any, training: bool = False) -> Any:
        return keras.ops.relu(self.norm(self.conv(x), training=training))

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        return self.conv.compute_output_shape(x_shape)


class SeparableConvNorm(keras.layers.Layer):
    """Depthwise convolution, normalisation, ReLU; then 1x1 convolution, normalisation, ReLU.

    Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018.
    """

    def __init__(self, filters: int, kernel_size: int, *, norm: Norm, dilation_rate: int = 1, name: str):
        super().__init__(name=name)
        self.depthwise = keras.layers.DepthwiseConv2D(
            kernel_size,
            padding='same',
            dilation_rate=dilation_rate,
            use_bias=False,
            # Each output has kernel_size^2 inputs and outputs; Keras' fans of a depthwise kernel count all channels.
            depthwise_initializer=keras.initializers.TruncatedNormal(stddev=2**0.5 / kernel_size),
            name='depthwise',
        )
        self.depthwise_norm = norm(name='depthwise_norm')
        self.pointwise = ConvNorm(filters, 1, norm=norm, name='pointwise')

    def build(self, x_shape: tuple) -> None:
        self.depthwise.build(x_shape)
        self.depthwise_norm.build(x_shape)
        self.pointwise.build(x_shape)

    def call(self, x: Any, training: bool = False) -> Any:
        x = keras.ops.relu(self.depthwise_norm(self.depthwise(x), training=training))
        return self.pointwise(x, training=training)

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        return self.pointwise.compute_output_shape(x_shape)
