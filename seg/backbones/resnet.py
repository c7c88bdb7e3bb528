"""ResNet v1, strides in the 3x3 convolutions, with dilation in place of strides where the output stride asks for it.

Decisions:

- Padding is symmetric and explicit (`seg.ops.conv`): cell i of a stride-s map is centred on pixel s * i for every image
  size, and ImageNet weights of torchvision and Keras, which both pad so, give the numbers that they were trained for.
- The last normalisation of every residual branch starts with a scale of zero, so that a new network begins as a chain
  of shortcuts (Goyal et al., arXiv:1706.02677). Loading published weights overwrites it.
- Where a stage gives up its stride, its first block keeps the dilation from before and the others take the doubled
  one. The dilated network then computes, at every second cell, exactly what the strided one does, borders included, so
  that weights move between output strides. `multi_grid` departs from that as its paper does (arXiv:1706.05587): block i
  of the last stage dilates by the stage's rate times multi_grid[i].
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from seg.errors import UserError
from seg.layers.conv import Conv2D
from seg.layers.norm import Norm
from seg.registry import backbones
from seg.structures import PAD_PIXEL

PIXEL_STD = (58.395, 57.12, 57.375)  # ImageNet's, RGB, 0..255.
STEMS = ('conv7', 'beta')
OUTPUT_STRIDES = (8, 16, 32)


@backbones.register('resnet18')
def resnet18(
    *,
    output_stride: int,
    norm: Norm,
    multi_grid: tuple[int, ...] | None = None,
    stem: str = 'conv7',
    width: float = 1.0,
) -> keras.Model:
    """ResNet-18: 11.2 M weights, basic blocks.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Args:
      output_stride: 8, 16 or 32: stride of c5; strides beyond it become dilation.
      norm: maker of the normalisation layers.
      multi_grid: dilation factors of the two blocks of the last stage, or None.
      stem: 'conv7' (one 7x7) or 'beta' (three 3x3), both followed by a max pool.
      width: multiplies all channels, rounded to multiples of 8.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (stride 2), c2 (4), c3, c4, c5.

    Raises:
      UserError: if a setting is not one of the above.
    """
    return _resnet('resnet18', (2, 2, 2, 2), _basic_block, output_stride, norm, multi_grid, stem, width)


@backbones.register('resnet50')
def resnet50(
    *,
    output_stride: int,
    norm: Norm,
    multi_grid: tuple[int, ...] | None = None,
    stem: str = 'conv7',
    width: float = 1.0,
) -> keras.Model:
    """ResNet-50: 23.5 M weights, bottleneck blocks.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with the stride in the 3x3 convolution.

    Args:
      output_stride: 8, 16 or 32: stride of c5; strides beyond it become dilation.
      norm: maker of the normalisation layers.
      multi_grid: dilation factors of the three blocks of the last stage, such as (1, 2, 4), or None.
      stem: 'conv7' (one 7x7) or 'beta' (three 3x3), both followed by a max pool.
      width: multiplies all channels, rounded to multiples of 8.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (stride 2), c2 (4), c3, c4, c5.

    Raises:
      UserError: if a setting is not one of the above.
    """
    return _resnet('resnet50', (3, 4, 6, 3), _bottleneck_block, output_stride, norm, multi_grid, stem, width)


@backbones.register('resnet101')
def resnet101(
    *,
    output_stride: int,
    norm: Norm,
    multi_grid: tuple[int, ...] | None = None,
    stem: str = 'conv7',
    width: float = 1.0,
) -> keras.Model:
    """ResNet-101: 42.5 M weights, bottleneck blocks.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with the stride in the 3x3 convolution.

    Args:
      output_stride: 8, 16 or 32: stride of c5; strides beyond it become dilation.
      norm: maker of the normalisation layers.
      multi_grid: dilation factors of the three blocks of the last stage, such as (1, 2, 4), or None.
      stem: 'conv7' (one 7x7) or 'beta' (three 3x3), both followed by a max pool.
      width: multiplies all channels, rounded to multiples of 8.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (stride 2), c2 (4), c3, c4, c5.

    Raises:
      UserError: if a setting is not one of the above.
    """
    return _resnet('resnet101', (3, 4, 23, 3), _bottleneck_block, output_stride, norm, multi_grid, stem, width)


class PixelNorm(layers.Layer):
    """Subtracts ImageNet's mean pixel and divides by its deviation, in float32 or better, then casts.

    Pixels of `structures.PAD_PIXEL` become 0, which is what convolutions pad with.
    """

    def __init__(self, name: str):
        # Without autocast: bfloat16 would round the pixels before the mean is taken off.
        super().__init__(name=name, autocast=False)

    def call(self, image: Any) -> Any:
        exact = keras.backend.result_type(image.dtype, 'float32')
        mean, std = (ops.convert_to_tensor(pixel, dtype=exact) for pixel in (PAD_PIXEL, PIXEL_STD))
        return ops.cast((ops.cast(image, exact) - mean) / std, self.compute_dtype)

    def compute_output_shape(self, image_shape: tuple) -> tuple:
        return image_shape


def _resnet(
    name: str,
    depths: tuple[int, ...],
    block: Any,
    output_stride: int,
    norm: Norm,
    multi_grid: tuple[int, ...] | None,
    stem: str,
    width: float,
) -> keras.Model:
    _check(name, depths, output_stride, multi_grid, stem, width)

    def scaled(channels: int) -> int:
        return max(8, round(channels * width / 8) * 8)

    image = keras.Input((None, None, 3), name='image')
    x = _stem(PixelNorm(name='pixel_norm')(image), stem, norm, scaled)
    outputs = {'c1': x}
    # ReLU came before, so that zeros are as good a padding as minus infinity.
    x = layers.ZeroPadding2D(1, name='stem_pool_pad')(x)
    x = layers.MaxPooling2D(3, strides=2, name='stem_pool')(x)

    stride, dilation = 4, 1
    for stage, depth in enumerate(depths, start=2):
        first_stride, first_dilation = (1 if stage == 2 else 2), dilation
        if stride * first_stride > output_stride:
            dilation *= first_stride
            first_stride = 1
        stride *= first_stride
        for i in range(depth):
            rates = (first_dilation, dilation) if i == 0 else (dilation, dilation)
            if multi_grid is not None and stage == len(depths) + 1:
                rates = (dilation * multi_grid[i],) * 2
            strides = first_stride if i == 0 else 1
            x = block(x, scaled(64 * 2 ** (stage - 2)), strides, rates, norm, f'stage{stage}_block{i + 1}')
        outputs[f'c{stage}'] = x
    return keras.Model(image, outputs, name=name)


def _check(
    name: str, depths: tuple[int, ...], output_stride: int, multi_grid: tuple | None, stem: str, width: float
) -> None:
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(f'output_stride: {name} has 8, 16 and 32, received {output_stride!r}.')
    if stem not in STEMS:
        raise UserError(f'{name}.stem: expected one of {", ".join(map(repr, STEMS))}, received {stem!r}.')
    if not width > 0:
        raise UserError(f'{name}.width: expected a factor above 0, such as 1.0, received {width!r}.')
    if multi_grid is None:
        return
    if len(multi_grid) != depths[-1] or any(rate < 1 for rate in multi_grid):
        raise UserError(
            f'multi_grid: the last stage of {name} has {depths[-1]} blocks, so {depths[-1]} factors of at least 1 are '
            f'expected, received {tuple(multi_grid)!r}.'
        )
    if output_stride == 32 and multi_grid[0] != 1:
        raise UserError(
            f'multi_grid: at output stride 32 the first block of the last stage of {name} has a stride and cannot '
            f'dilate, so that the first factor must be 1; received {tuple(multi_grid)!r}.'
        )


def _stem(x: Any, stem: str, norm: Norm, scaled: Any) -> Any:
    if stem == 'conv7':
        x = Conv2D(scaled(64), 7, strides=2, name='stem_conv')(x)
        return layers.ReLU(name='stem_relu')(norm(name='stem_norm')(x))
    for i, (channels, stride) in enumerate(((64, 2), (64, 1), (128, 1)), start=1):
        x = Conv2D(scaled(channels), 3, strides=stride, name=f'stem_conv{i}')(x)
        x = layers.ReLU(name=f'stem_relu{i}')(norm(name=f'stem_norm{i}')(x))
    return x


def _basic_block(x: Any, channels: int, stride: int, rates: tuple[int, int], norm: Norm, name: str) -> Any:
    """Two 3x3 convolutions around a shortcut; `rates` are their dilations."""
    shortcut = _shortcut(x, channels, stride, norm, name)
    x = Conv2D(channels, 3, strides=stride, dilation_rate=rates[0], name=f'{name}_conv1')(x)
    x = layers.ReLU(name=f'{name}_relu1')(norm(name=f'{name}_norm1')(x))
    x = Conv2D(channels, 3, dilation_rate=rates[1], name=f'{name}_conv2')(x)
    x = norm(name=f'{name}_norm2', gamma_initializer='zeros')(x)
    return layers.ReLU(name=f'{name}_relu2')(layers.Add(name=f'{name}_add')([shortcut, x]))


def _bottleneck_block(x: Any, channels: int, stride: int, rates: tuple[int, int], norm: Norm, name: str) -> Any:
    """1x1, 3x3 and 1x1 convolutions around a shortcut; the 3x3 dilates by the first of `rates`."""
    shortcut = _shortcut(x, 4 * channels, stride, norm, name)
    x = Conv2D(channels, 1, name=f'{name}_conv1')(x)
    x = layers.ReLU(name=f'{name}_relu1')(norm(name=f'{name}_norm1')(x))
    x = Conv2D(channels, 3, strides=stride, dilation_rate=rates[0], name=f'{name}_conv2')(x)
    x = layers.ReLU(name=f'{name}_relu2')(norm(name=f'{name}_norm2')(x))
    x = Conv2D(4 * channels, 1, name=f'{name}_conv3')(x)
    x = norm(name=f'{name}_norm3', gamma_initializer='zeros')(x)
    return layers.ReLU(name=f'{name}_relu3')(layers.Add(name=f'{name}_add')([shortcut, x]))


def _shortcut(x: Any, channels: int, stride: int, norm: Norm, name: str) -> Any:
    if stride == 1 and x.shape[-1] == channels:
        return x
    x = Conv2D(channels, 1, strides=stride, name=f'{name}_shortcut_conv')(x)
    return norm(name=f'{name}_shortcut_norm')(x)
