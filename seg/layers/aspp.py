"""Atrous spatial pyramid pooling."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from seg.layers.conv import ConvNorm, SeparableConvNorm
from seg.layers.dropout import Dropout
from seg.layers.norm import NormFactory


def valid_mean(x: Any, size: Any, stride: int) -> Any:
    """Averages a feature map over the cells of the image, without those of its padding.

    Cell i is centred on pixel `stride * i`; it counts if that pixel lies within the image. An image of h pixels thus
    has ceil(h / stride) rows, as many as its map would have without padding.

    Args:
      x: [B, h, w, C] float, static shape but for B.
      size: [B, 2] int32, height and width of each image in pixels.
      stride: pixels per cell.

    Returns:
      [B, 1, 1, C] in x's dtype, summed in float32 or better; 0 if the size is 0.
    """
    height, width, channels = x.shape[1:]
    rows = ops.arange(height, dtype='int32') * stride < size[:, :1]
    columns = ops.arange(width, dtype='int32') * stride < size[:, 1:]
    mask = ops.logical_and(rows[:, :, None], columns[:, None, :])
    exact = keras.backend.result_type(x.dtype, 'float32')
    mask = ops.reshape(ops.cast(mask, exact), (-1, 1, height * width))
    total = ops.matmul(mask, ops.reshape(ops.cast(x, exact), (-1, height * width, channels)))
    mean = total / ops.maximum(ops.sum(mask, axis=-1, keepdims=True), 1)
    return ops.cast(ops.reshape(mean, (-1, 1, 1, channels)), x.dtype)


class ASPP(keras.layers.Layer):
    """Atrous spatial pyramid pooling: convolutions at several dilation rates, and the mean over the image.

    The branches (1x1 convolution, a 3x3 convolution per rate, the mean of the whole image) are concatenated and
    projected by a 1x1 convolution with dropout.

    Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587.
    """

    def __init__(
        self,
        channels: int,
        rates: tuple[int, ...],
        *,
        stride: int,
        norm: NormFactory,
        separable: bool,
        dropout: float,
        image_pooling: bool,
        name: str,
    ):
        """Makes the layer.

        Args:
          channels: channels of each branch, and of the result.
          rates: dilation rate of each 3x3 branch, in cells.
          stride: stride of the map in pixels.
          norm: makes the normalisation layers.
          separable: whether the 3x3 convolutions are depthwise separable.
          dropout: dropout rate after the projection.
          image_pooling: whether there is a branch for the mean over the image.
          name: the layer's name.
        """
        super().__init__(name=name)
        self.stride = stride
        conv = SeparableConvNorm if separable else ConvNorm
        self.branches = [ConvNorm(channels, 1, norm=norm, name='conv1x1')]
        for i, rate in enumerate(rates, start=1):
            self.branches.append(conv(channels, 3, norm=norm, dilation_rate=rate, name=f'atrous{i}'))
        # In a single cell, a group of one channel would be normalised to 0: groups of at least 8 channels.
        wide = dataclasses.replace(norm, groups=max(1, min(norm.groups, channels // 8)))
        self.pooling = ConvNorm(channels, 1, norm=wide, name='image_pooling') if image_pooling else None
        self.projection = ConvNorm(channels, 1, norm=norm, name='projection')
        self.dropout = Dropout(dropout, name='aspp_dropout')

    def build(self, x_shape: tuple) -> None:
        for branch in self.branches:
            branch.build(x_shape)
        joined = sum(branch.compute_output_shape(x_shape)[-1] for branch in self.branches)
        if self.pooling:
            self.pooling.build((x_shape[0], 1, 1, x_shape[-1]))
            joined += self.pooling.compute_output_shape(x_shape)[-1]
        self.projection.build((*x_shape[:-1], joined))

    def call(self, x: Any, size: Any, seed: Any = None, training: bool = False) -> Any:
        """Maps [B, h, w, C] to [B, h, w, channels]; `size` and `seed` as for a decoder."""
        maps = [branch(x, training=training) for branch in self.branches]
        if self.pooling:
            pooled = self.pooling(valid_mean(x, size, self.stride), training=training)
            maps.append(ops.broadcast_to(pooled, ops.shape(maps[0])))
        x = self.projection(ops.concatenate(maps, axis=-1), training=training)
        return self.dropout(x, seed=seed, training=training)
