"""Convolutions with symmetric padding, alone and with normalisation and ReLU."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from seg.layers.norm import BatchNorm, NormFactory
from seg.ops import dispatch
from seg.ops.conv import conv2d, depthwise_conv2d
from seg.ops.valid_cells import zero_outside

ACTIVATIONS = {'relu': ops.relu, 'relu6': dispatch.relu6, None: lambda x: x}


class _ExactKernel:
    """A convolution whose kernel keeps its own precision until it has been scaled."""

    def add_weight(self, *args: Any, **settings: Any) -> Any:
        return super().add_weight(*args, **{**settings, 'autocast': False})

    def call(self, x: Any) -> Any:
        return self.convolve(x, ops.convert_to_tensor(self.kernel))


class AlignedConv2D(_ExactKernel, keras.layers.Conv2D):
    """Convolution padded by equally many zeros at both ends (`seg.ops.conv.conv2d`), without a bias."""

    def __init__(self, filters: int, kernel_size: int, *, strides: int = 1, dilation_rate: int = 1, name: str):
        """Makes the layer.

        Args:
          filters: channels of the output.
          kernel_size: odd side of the kernel.
          strides: stride of both axes.
          dilation_rate: dilation rate of both axes; more than 1 only with stride 1.
          name: the layer's name.
        """
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding='same',
            dilation_rate=dilation_rate,
            # He's initializer by fan out keeps the variance of gradients through ReLUs.
            kernel_initializer=keras.initializers.VarianceScaling(2.0, 'fan_out'),
            use_bias=False,
            name=name,
        )

    def convolve(self, x: Any, kernel: Any) -> Any:
        """Convolves [B, H, W, C], zero outside of the images, with a kernel of the layer's shape, in x's dtype."""
        x = x if self.kernel_size == (1, 1) else zero_outside(x)
        return conv2d(x, ops.cast(kernel, x.dtype), self.strides[0], self.dilation_rate[0])

    def scaled_kernel(self, scale: Any) -> Any:
        """Returns the kernel whose output channels are multiplied by `scale` [filters]."""
        return self.kernel * scale

    def can_scale(self, x_shape: tuple) -> bool:
        """Whether scaling the kernel is less work than scaling the map: not for large kernels on small maps."""
        rows, columns, channels, _ = self.kernel.shape
        return None in x_shape[1:3] or rows * columns * channels <= x_shape[1] * x_shape[2]


class AlignedDepthwiseConv2D(_ExactKernel, keras.layers.DepthwiseConv2D):
    """Depthwise convolution padded by equally many zeros at both ends (`seg.ops.conv`), without a bias."""

    def __init__(self, kernel_size: int, *, strides: int = 1, dilation_rate: int = 1, name: str):
        """Makes the layer; arguments as for `AlignedConv2D`."""
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

    def convolve(self, x: Any, kernel: Any) -> Any:
        """Convolves [B, H, W, C], zero outside of the images, with a kernel of the layer's shape, in x's dtype."""
        x = zero_outside(x)
        return depthwise_conv2d(x, ops.cast(kernel, x.dtype), self.strides[0], self.dilation_rate[0])

    def scaled_kernel(self, scale: Any) -> Any:
        """Returns the kernel whose channels are multiplied by `scale` [C]."""
        return self.kernel * scale[:, None]

    def can_scale(self, x_shape: tuple) -> bool:
        """Whether scaling the kernel saves work: not with dilation, where no kernel can add the offset."""
        return self.dilation_rate[0] == 1


class _Normalised(keras.layers.Layer):
    """A convolution, normalisation and activation.

    With stored statistics, batch normalisation is a factor and an offset per channel. Where that is less work, the
    factor is multiplied into the convolution's kernel: oneDNN then computes convolution, offset, activation and, in a
    residual block, the sum with the shortcut by one kernel, and the gradient in training needs fewer passes over the
    map.
    """

    def __init__(self, conv: Any, norm: Any, activation: str | None, name: str):
        super().__init__(name=name)
        self.conv = conv
        self.norm = norm
        self.activation = activation

    def build(self, x_shape: tuple) -> None:
        self.conv.build(x_shape)
        self.norm.build(self.conv.compute_output_shape(x_shape))

    def call(self, x: Any, training: bool = False) -> Any:
        stored = isinstance(self.norm, BatchNorm) and self.norm.is_stored(training)
        if not stored or not self.conv.can_scale(tuple(x.shape)):
            return ACTIVATIONS[self.activation](self.norm(self.conv(x), training=training))
        scale, offset = self.norm.affine()
        x = self.conv.convolve(x, self.conv.scaled_kernel(scale))
        x = ops.add(x, ops.cast(offset, x.dtype))
        # If no gradient is needed, Keras' own function, which TensorFlow can fuse with the convolution.
        return ops.relu6(x) if self.activation == 'relu6' and not training else ACTIVATIONS[self.activation](x)

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        return self.conv.compute_output_shape(x_shape)


class ConvNorm(_Normalised):
    """Convolution, normalisation and activation."""

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        norm: NormFactory,
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
          norm: makes the normalisation layer.
          strides: stride of both axes.
          dilation_rate: dilation rate of both axes; more than 1 only with stride 1.
          activation: 'relu', 'relu6', or None for none.
          gamma_initializer: initializer of the normalisation's scale.
          name: the layer's name.
        """
        conv = AlignedConv2D(filters, kernel_size, strides=strides, dilation_rate=dilation_rate, name='conv')
        super().__init__(conv, norm(name='norm', gamma_initializer=gamma_initializer), activation, name)


class DepthwiseConvNorm(_Normalised):
    """Depthwise convolution, normalisation and activation."""

    def __init__(
        self,
        kernel_size: int,
        *,
        norm: NormFactory,
        strides: int = 1,
        dilation_rate: int = 1,
        activation: str | None = 'relu',
        name: str,
    ):
        """Makes the layer; arguments as for `ConvNorm`."""
        conv = AlignedDepthwiseConv2D(kernel_size, strides=strides, dilation_rate=dilation_rate, name='conv')
        super().__init__(conv, norm(name='norm'), activation, name)


class SeparableConvNorm(keras.layers.Layer):
    """Depthwise convolution, normalisation, ReLU; then 1x1 convolution, normalisation, ReLU.

    Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018.
    """

    def __init__(self, filters: int, kernel_size: int, *, norm: NormFactory, dilation_rate: int = 1, name: str):
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
