"""Feature pyramid network: one map per scale, all with the same number of channels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from seg.errors import UserError, shown
from seg.layers.conv import ConvNorm
from seg.layers.conv_bias import ConvBias
from seg.layers.norm import NormFactory
from seg.layers.torch_tensors import conv, under
from seg.number_checks import check_whole
from seg.registry import decoders
from seg.structures import BackboneSpec, Published

LEVELS = (2, 3, 4, 5)
EXTRA = ('pool', 'conv')


@decoders.register('fpn')
def fpn(
    *,
    backbone: BackboneSpec,
    norm: NormFactory,
    channels: int = 256,
    extra_level: str = 'pool',
    use_norm: bool = False,
) -> keras.layers.Layer:
    """Feature pyramid network: maps p2 to p6 of strides 4 to 64, for detectors.

    Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017.

    Args:
      backbone: strides and channels of the backbone's maps; reads c2 to c5, of strides 4, 8, 16 and 32.
      norm: makes the normalisation layers.
      channels: channels of all maps.
      extra_level: how p6 is made: 'pool' (every second cell of p5) or 'conv' (a 3x3 convolution of stride 2).
      use_norm: whether the convolutions have a normalisation in place of a bias.

    Returns:
      A layer from `(features, size, seed, training)` to `{'p2': [B, H/4, W/4, channels], …, 'p6': …}`.

    Raises:
      UserError: if a setting is out of range, or the backbone has other strides.
    """
    check_whole('decoders.fpn.channels', channels)
    if extra_level not in EXTRA:
        raise UserError(f"decoders.fpn.extra_level = {shown(extra_level)}: expected 'pool' or 'conv'.")
    strides = [backbone[f'c{level}'].stride for level in LEVELS]
    if strides != [2**level for level in LEVELS]:
        raise UserError(
            f'decoders.fpn: the maps c2 to c5 of the backbone have strides {strides}; expected 4, 8, 16 and 32. Build '
            'the backbone with output stride 32.'
        )
    layer = FPN(channels, extra_level, norm if use_norm else None)
    layer.published = Published(title='the FPN of a torchvision detector', convert=_from_torchvision)
    return layer


class FPN(keras.layers.Layer):
    """Lateral 1x1 convolutions, sums from the coarsest map to the finest, and a 3x3 convolution of each sum."""

    def __init__(self, channels: int, extra_level: str, norm: NormFactory | None):
        super().__init__(name='fpn')

        def make(kernel_size: int, name: str) -> keras.layers.Layer:
            if norm:
                return ConvNorm(channels, kernel_size, norm=norm, activation=None, name=name)
            return ConvBias(channels, kernel_size, activation=None, name=name)

        self.normed = norm is not None
        self.laterals = [make(1, f'lateral{level}') for level in LEVELS]
        self.smoothers = [make(3, f'output{level}') for level in LEVELS]
        self.extra = None
        if extra_level == 'conv':
            self.extra = ConvBias(channels, 3, strides=2, activation=None, name='output6')

    def build(self, features_shape: dict[str, tuple]) -> None:
        for level, lateral, smoother in zip(LEVELS, self.laterals, self.smoothers, strict=True):
            lateral.build(features_shape[f'c{level}'])
            smoother.build(lateral.compute_output_shape(features_shape[f'c{level}']))
        if self.extra is not None:
            self.extra.build(smoother.compute_output_shape(lateral.compute_output_shape(features_shape['c5'])))

    def call(self, features: dict[str, Any], size: Any = None, seed: Any = None, training: bool = False) -> dict:
        """Computes the pyramid.

        Args:
          features: the backbone's maps, [B, H/s, W/s, C] each.
          size: unused: padding is treated like the image.
          seed: unused.
          training: whether to use the batch's statistics.

        Returns:
          `{'p2': [B, H/4, W/4, channels], …, 'p6': [B, H/64, W/64, channels]}`, sides rounded up.
        """

        def apply(conv: keras.layers.Layer, x: Any) -> Any:
            return conv(x, training=training) if self.normed else conv(x)

        maps, above = {}, None
        for level, lateral, smoother in reversed(list(zip(LEVELS, self.laterals, self.smoothers, strict=True))):
            x = apply(lateral, features[f'c{level}'])
            if above is not None:
                x = x + _doubled(above, tuple(x.shape[1:3]))
            above = x
            maps[f'p{level}'] = apply(smoother, x)
        maps = dict(sorted(maps.items()))
        # Elsewhere this is called a max pool of kernel 1 and stride 2.
        maps['p6'] = maps['p5'][:, ::2, ::2] if self.extra is None else self.extra(maps['p5'])
        return maps


def _doubled(x: Any, size: tuple[int, int]) -> Any:
    """Nearest-neighbour upsampling by 2, [B, h, w, C] -> [B, *size, C]; a side of `size` is 2 h or 2 h - 1."""
    _, height, width, channels = x.shape
    x = ops.reshape(ops.concatenate([x, x], axis=-1), (-1, height, 2 * width * channels))
    x = ops.reshape(ops.concatenate([x, x], axis=-1), (-1, 2 * height, 2 * width, channels))
    return x[:, : size[0], : size[1]]


def _from_torchvision(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    arrays = {}
    for i, level in enumerate(LEVELS):
        arrays |= conv(tensors, f'backbone.fpn.inner_blocks.{i}', f'lateral{level}')
        arrays |= conv(tensors, f'backbone.fpn.layer_blocks.{i}', f'output{level}')
    return under('fpn', arrays)
