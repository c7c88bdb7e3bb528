"""Convolutions with symmetric padding, alone and with normalisation and ReLU."""

from __future__ import annotations

from typing import Any

import keras

from seg.layers.norm import Norm
from seg.ops.conv import conv2d, depthwise_conv2d


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
    """Convolution, normalisation and activation."""

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        norm: Norm,
        strides: int = 1,
        dilation_rate: int = 1,
        activation: str | None = 'relu',
        gamma_initializer: str = 'ones',
        name: str,
    ):
        """Makes the layer.

        Args:
          filters: channels of the output.
          kernel_size: odd side of the kernel.
          norm: maker of the normalisation layer.
          strides: of both axes.
          dilation_rate: of both axes; more than 1 only with stride 1.
          activation: 'relu', 'relu6', or None for none.
          gamma_initializer: of the normalisation's scale.
          name: the layer's name.
        """
        super().__init__(name=name)
        self.conv = Conv2D(filters, kernel_size, strides=strides, dilation_rate=dilation_rate, name='conv')
        self.norm = norm(name='norm', gamma_initializer=gamma_initializer)
        self.activation = keras.activations.get(activation)

    def build(self, x_shape: tuple) -> None:
        self.conv.build(x_shape)
        self.norm.build(self.conv.compute_output_shape(x_shape))

    def call(self, x: Any, training: bool = False) -> Any:
        return self.activation(self.norm(self.conv(x), training=training))

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        return self.conv.compute_output_shape(x_shape)


class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Depthwise convolution padded by equally many zeros at both ends (`seg.ops.conv`), without a bias."""

    def __init__(self, kernel_size: int, *, strides: int = 1, dilation_rate: int = 1, name: str):
        """Makes the layer; arguments as `Conv2D` has them."""
        super().__init__(
            kernel_size,
            strides=strides,
            padding='same',
            dilation_rate=dilation_rate,
            use_bias=False,
            # Each output has kernel_size^2 inputs and outputs; Keras' fans of a depthwise kernel count all channels.
            depthwise_initializer=keras.initializers.TruncatedNormal(stddev=2**0.5 / kernel_size),
            name=name,
        )

    def call(self, x: Any) -> Any:
        return depthwise_conv2d(x, self.kernel, self.strides[0], self.dilation_rate[0])


class DepthwiseConvNorm(keras.layers.Layer):
    """Depthwise convolution, normalisation and activation."""

    def __init__(
        self,
        kernel_size: int,
        *,
        norm: Norm,
        strides: int = 1,
        dilation_rate: int = 1,
        activation: str | None = 'relu',
        name: str,
    ):
        """Makes the layer; arguments as `ConvNorm` has them."""
        super().__init__(name=name)
        self.conv = DepthwiseConv2D(kernel_size, strides=strides, dilation_rate=dilation_rate, name='conv')
        self.norm = norm(name='norm')
        self.activation = keras.activations.get(activation)

    def build(self, x_shape: tuple) -> None:
        self.conv.build(x_shape)
        self.norm.build(self.conv.compute_output_shape(x_shape))

    def call(self, x: Any, training: bool = False) -> Any:
        return self.activation(self.norm(self.conv(x), training=training))

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        return self.conv.compute_output_shape(x_shape)


class SeparableConvNorm(keras.layers.Layer):
    """Depthwise convolution, normalisation, ReLU; then 1x1 convolution, normalisation, ReLU.

    Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018.
    """

    def __init__(self, filters: int, kernel_size: int, *, norm: Norm, dilation_rate: int = 1, name: str):
        super().__init__(name=name)
        self.depthwise = DepthwiseConvNorm(kernel_size, norm=norm, dilation_rate=dilation_rate, name='depthwise')
        self.pointwise = ConvNorm(filters, 1, norm=norm, name='pointwise')

    def build(self, x_shape: tuple) -> None:
        self.depthwise.build(x_shape)
        self.pointwise.build(x_shape)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.pointwise(self.depthwise(x, training=training), training=training)

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        return self.pointwise.compute_output_shape(x_shape)
