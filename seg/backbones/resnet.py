"""ResNet v1, with dilation in place of strides beyond the output stride.

Decisions:

- Padding is symmetric and explicit (`seg.ops.conv`): cell i of a stride-s map is centred on pixel s * i for every image
  size. torchvision and Keras pad in the same way, so that their ImageNet weights give the same numbers here.
- The last normalisation of every residual branch starts with a scale of zero, so that a new network begins as a chain
  of shortcuts (Goyal et al., arXiv:1706.02677). Loading published weights overwrites it.
- If a stage's stride is replaced by dilation, its first block keeps the previous dilation rate and the others have
twice that rate. The dilated network then computes, at every second cell, exactly what the strided one does, borders
included, so that weights can be used at any output stride. `multi_grid` differs, as in its paper (arXiv:1706.05587):
block i of the last stage dilates by the stage's rate times multi_grid[i].
- Two bottleneck networks have published weights. torchvision's has a block's stride in the 3x3 convolution and divides
  pixels by their standard deviation. Keras Applications' is the paper's: the stride is in the first 1x1 convolution, so
  that the 3x3 convolution works on the coarser grid, and only the mean is subtracted from pixels.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import layers

from seg.backbones import resnet_weights
from seg.backbones.stages import plan
from seg.errors import UserError, shown
from seg.layers.conv import ConvNorm
from seg.layers.norm import NormFactory
from seg.layers.outside import ZeroOutside
from seg.layers.pixel_norm import PixelNorm
from seg.number_checks import check_number
from seg.registry import backbones

KERAS_MEAN = (123.68, 116.779, 103.939)  # RGB, 0..255.
KERAS_EPSILON = 1.001e-5
VARIANTS = ('torchvision', 'keras')
STEMS = ('conv7', 'beta')


@backbones.register('resnet18')
def resnet18(
    *,
    output_stride: int,
    norm: NormFactory,
    multi_grid: tuple[int, ...] | None = None,
    stem: str = 'conv7',
    width: float = 1.0,
) -> keras.Model:
    """ResNet-18: 11.2 M weights, basic blocks.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Args:
      output_stride: 8, 16 or 32: stride of c5; larger strides become dilation.
      norm: makes the normalisation layers.
      multi_grid: dilation factors of the two blocks of the last stage, or None.
      stem: 'conv7' (one 7x7) or 'beta' (three 3x3), both followed by a max pool.
      width: multiplies all channels, rounded to multiples of 8.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (stride 2), c2 (4), c3, c4, c5.

    Raises:
      UserError: if a setting is not one of the above.
    """
    return _resnet('resnet18', (2, 2, 2, 2), 'torchvision', output_stride, norm, multi_grid, stem, width)


@backbones.register('resnet50')
def resnet50(
    *,
    output_stride: int,
    norm: NormFactory,
    multi_grid: tuple[int, ...] | None = None,
    variant: str = 'torchvision',
    stem: str = 'conv7',
    width: float = 1.0,
) -> keras.Model:
    """ResNet-50: 23.5 M weights, bottleneck blocks.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Args:
      output_stride: 8, 16 or 32: stride of c5; larger strides become dilation.
      norm: makes the normalisation layers.
      multi_grid: dilation factors of the three blocks of the last stage, such as (1, 2, 4), or None.
      variant: 'torchvision' (stride in the 3x3 convolution) or 'keras' (stride in the first 1x1, epsilon 1.001e-5
        for any norm): which ImageNet weights fit.
      stem: 'conv7' (one 7x7) or 'beta' (three 3x3), both followed by a max pool.
      width: multiplies all channels, rounded to multiples of 8.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (stride 2), c2 (4), c3, c4, c5.

    Raises:
      UserError: if a setting is not one of the above.
    """
    return _resnet('resnet50', (3, 4, 6, 3), variant, output_stride, norm, multi_grid, stem, width)


@backbones.register('resnet101')
def resnet101(
    *,
    output_stride: int,
    norm: NormFactory,
    multi_grid: tuple[int, ...] | None = None,
    variant: str = 'torchvision',
    stem: str = 'conv7',
    width: float = 1.0,
) -> keras.Model:
    """ResNet-101: 42.5 M weights, bottleneck blocks.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Args:
      output_stride: 8, 16 or 32: stride of c5; larger strides become dilation.
      norm: makes the normalisation layers.
      multi_grid: dilation factors of the three blocks of the last stage, such as (1, 2, 4), or None.
      variant: 'torchvision' (stride in the 3x3 convolution) or 'keras' (stride in the first 1x1, epsilon 1.001e-5
        for any norm): which ImageNet weights fit.
      stem: 'conv7' (one 7x7) or 'beta' (three 3x3), both followed by a max pool.
      width: multiplies all channels, rounded to multiples of 8.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (stride 2), c2 (4), c3, c4, c5.

    Raises:
      UserError: if a setting is not one of the above.
    """
    return _resnet('resnet101', (3, 4, 23, 3), variant, output_stride, norm, multi_grid, stem, width)


def _resnet(
    name: str,
    depths: tuple[int, ...],
    variant: str,
    output_stride: int,
    norm: NormFactory,
    multi_grid: tuple[int, ...] | None,
    stem: str,
    width: float,
) -> keras.Model:
    _check(name, depths, variant, output_stride, multi_grid, stem, width)
    stages = plan(name, 4, (1, 2, 2, 2), output_stride)
    block = _basic_block if name == 'resnet18' else _bottleneck_block

    def scaled(channels: int) -> int:
        return max(8, round(channels * width / 8) * 8)

    image = keras.Input((None, None, 3), name='image')
    if variant == 'keras':
        norm = dataclasses.replace(norm, epsilon=KERAS_EPSILON)
        x = PixelNorm(KERAS_MEAN, (1.0, 1.0, 1.0), name='pixel_norm')(image)
    else:
        x = PixelNorm(name='pixel_norm')(image)
    x = _stem(x, stem, norm, scaled)
    outputs = {'c1': x}
    # After a ReLU, padding with zeros is the same as padding with minus infinity.
    x = ZeroOutside(name='stem_pool_outside')(x)
    x = layers.ZeroPadding2D(1, name='stem_pool_pad')(x)
    x = layers.MaxPooling2D(3, strides=2, name='stem_pool')(x)

    for stage, depth in enumerate(depths, start=2):
        first_stride, first_dilation, dilation = stages[stage - 2]
        if variant == 'keras':  # The layers after the block's stride work on the coarser grid.
            first_dilation = dilation
        for i in range(depth):
            rates = (first_dilation, dilation) if i == 0 else (dilation, dilation)
            if multi_grid is not None and stage == len(depths) + 1:
                rates = (dilation * multi_grid[i],) * 2
            # Strides of the first and the second convolution: one of them has the stride of the block.
            strides = (first_stride, 1) if variant == 'keras' or block is _basic_block else (1, first_stride)
            strides = strides if i == 0 else (1, 1)
            x = block(x, scaled(64 * 2 ** (stage - 2)), strides, rates, norm, f'stage{stage}_block{i + 1}')
        outputs[f'c{stage}'] = x
    model = keras.Model(image, outputs, name=name)
    if stem == 'conv7':
        model.published = resnet_weights.published(name, variant, depths, width)
    return model


def _check(
    name: str,
    depths: tuple[int, ...],
    variant: str,
    output_stride: int,
    multi_grid: tuple | None,
    stem: str,
    width: float,
) -> None:
    for setting, value, choices in (('variant', variant, VARIANTS), ('stem', stem, STEMS)):
        if value not in choices:
            expected = ', '.join(map(repr, choices))
            raise UserError(f'backbones.{name}.{setting} = {shown(value)}: expected one of {expected}.')
    check_number(f'backbones.{name}.width', width, above=True)
    if multi_grid is None:
        return
    if len(multi_grid) != depths[-1] or any(rate < 1 for rate in multi_grid):
        raise UserError(
            f'multi_grid = {tuple(multi_grid)!r}: the last stage of backbones.{name} has {depths[-1]} blocks; expected '
            f'{depths[-1]} factors of at least 1.'
        )
    if output_stride == 32 and multi_grid[0] != 1:
        raise UserError(
            f'multi_grid = {tuple(multi_grid)!r}: at output stride 32 the first block of the last stage of '
            f'backbones.{name} has a stride and cannot dilate; expected 1 as the first factor.'
        )


def _stem(x: Any, stem: str, norm: NormFactory, scaled: Any) -> Any:
    if stem == 'conv7':
        return ConvNorm(scaled(64), 7, strides=2, norm=norm, name='stem_conv')(x)
    for i, (channels, stride) in enumerate(((64, 2), (64, 1), (128, 1)), start=1):
        x = ConvNorm(scaled(channels), 3, strides=stride, norm=norm, name=f'stem_conv{i}')(x)
    return x


def _basic_block(
    x: Any, channels: int, strides: tuple[int, int], rates: tuple[int, int], norm: NormFactory, name: str
) -> Any:
    """Two 3x3 convolutions, with `strides` and dilation `rates`, and a shortcut."""
    shortcut = _shortcut(x, channels, max(strides), norm, name)
    x = ConvNorm(channels, 3, strides=strides[0], dilation_rate=rates[0], norm=norm, name=f'{name}_conv1')(x)
    x = _last(channels, 3, rates[1], norm, f'{name}_conv2')(x)
    return layers.ReLU(name=f'{name}_relu')(layers.Add(name=f'{name}_add')([shortcut, x]))


def _bottleneck_block(
    x: Any, channels: int, strides: tuple[int, int], rates: tuple[int, int], norm: NormFactory, name: str
) -> Any:
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the first two have `strides`, the 3x3 one dilation rates[0]."""
    shortcut = _shortcut(x, 4 * channels, max(strides), norm, name)
    x = ConvNorm(channels, 1, strides=strides[0], norm=norm, name=f'{name}_conv1')(x)
    x = ConvNorm(channels, 3, strides=strides[1], dilation_rate=rates[0], norm=norm, name=f'{name}_conv2')(x)
    x = _last(4 * channels, 1, 1, norm, f'{name}_conv3')(x)
    return layers.ReLU(name=f'{name}_relu')(layers.Add(name=f'{name}_add')([shortcut, x]))


def _last(channels: int, kernel_size: int, rate: int, norm: NormFactory, name: str) -> ConvNorm:
    """The last convolution of a residual branch."""
    return ConvNorm(
        channels, kernel_size, dilation_rate=rate, norm=norm, activation=None, gamma_initializer='zeros', name=name
    )


def _shortcut(x: Any, channels: int, stride: int, norm: NormFactory, name: str) -> Any:
    if stride == 1 and x.shape[-1] == channels:
        return x
    return ConvNorm(channels, 1, strides=stride, norm=norm, activation=None, name=f'{name}_shortcut')(x)
