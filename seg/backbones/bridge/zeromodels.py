"""Backbones of ZeroModels (the extra `zoo`): timm's and Hugging Face's vision models in Keras 3."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras

from seg.backbones.bridge import hub, vit, zeromodels_weights
from seg.backbones.bridge.layers import scaling
from seg.backbones.bridge.names import catalogue, choose, installed
from seg.backbones.bridge.rewrite import Source, fresh_names, rewritten
from seg.errors import UserError, reason, shown
from seg.layers.norm import NormFactory
from seg.registry import backbones

_SLOT = 'backbones.zeromodels'


class Family(NamedTuple):
    """The models of one module of `zeromodels.models`.

    Attributes:
      model: the class.
      names: of its models.
      patch: side of the patches of a plain transformer, in pixels; None for models with several strides.
      multiple: of which the sides of the images must be, where they have one size but the library does not ask for it;
        None: of a patch, or of 32, if a size is given.
      settings: by name, where the library has no table of them.
    """

    model: str
    names: tuple[str, ...]
    patch: int | None = None
    settings: dict[str, dict[str, Any]] = {}
    multiple: int | None = None


def _regnet(kind: str, widths: tuple, depths: tuple, group: int) -> dict[str, Any]:
    return {'layer_type': kind, 'hidden_sizes': widths, 'depths': depths, 'groups_width': group}


# Radosavovic et al., "Designing Network Design Spaces", CVPR 2020; the numbers are those of timm 1.0.31.
_REGNETS = {
    'regnet_x_002': _regnet('x', (24, 56, 152, 368), (1, 1, 4, 7), 8),
    'regnet_x_004': _regnet('x', (32, 64, 160, 384), (1, 2, 7, 12), 16),
    'regnet_x_008': _regnet('x', (64, 128, 288, 672), (1, 3, 7, 5), 16),
    'regnet_x_016': _regnet('x', (72, 168, 408, 912), (2, 4, 10, 2), 24),
    'regnet_x_032': _regnet('x', (96, 192, 432, 1008), (2, 6, 15, 2), 48),
    'regnet_y_002': _regnet('y', (24, 56, 152, 368), (1, 1, 4, 7), 8),
    'regnet_y_004': _regnet('y', (48, 104, 208, 440), (1, 3, 6, 6), 8),
    'regnet_y_008': _regnet('y', (64, 128, 320, 768), (1, 3, 8, 2), 16),
    'regnet_y_016': _regnet('y', (48, 120, 336, 888), (2, 6, 17, 2), 24),
    'regnet_y_032': _regnet('y', (72, 216, 576, 1512), (2, 5, 13, 1), 24),
    'regnet_y_040': _regnet('y', (128, 192, 512, 1088), (2, 6, 12, 2), 64),
}
_DINOV3 = {
    'dinov3_vits16': {'embed_dim': 384, 'depth': 12, 'num_heads': 6},
    'dinov3_vitb16': {'embed_dim': 768, 'depth': 12, 'num_heads': 12},
    'dinov3_vitl16': {'embed_dim': 1024, 'depth': 24, 'num_heads': 16},
}
_VITS = ('tiny', 'small', 'base', 'large')
# Without MiT: its attention takes the square root of the number of tokens as it runs, so JAX cannot compile it.
FAMILIES: dict[str, Family] = {
    'convnext': Family('ConvNeXtModel', tuple(
        f'convnext_{size}' for size in ('atto', 'femto', 'pico', 'nano', 'tiny', 'small', 'base', 'large', 'xlarge'))),
    'convnextv2': Family('ConvNeXtV2Model', tuple(
        f'convnextv2_{size}' for size in ('atto', 'femto', 'pico', 'nano', 'tiny', 'base', 'large', 'huge'))),
    'deit': Family('DeiTModel', tuple(f'deit_{size}_patch16_224' for size in _VITS[:3])
                   + tuple(f'deit3_{size}_patch16_224' for size in ('small', 'medium', 'base', 'large')), 16),
    'densenet': Family('DenseNetModel', tuple(f'densenet{depth}' for depth in (121, 161, 169, 201))),
    'dino_v3': Family('DinoV3ViTModel', tuple(_DINOV3), 16, _DINOV3),
    'efficientformer': Family('EfficientFormerModel', tuple(f'efficientformer_l{i}' for i in (1, 3, 7))),
    'efficientnet': Family('EfficientNetModel', tuple(f'efficientnet_b{i}' for i in range(9))),
    'efficientnet_lite': Family('EfficientNetLiteModel', tuple(f'efficientnet_lite_b{i}' for i in range(5))),
    'efficientnetv2': Family('EfficientNetV2Model', tuple(
        f'efficientnetv2_{size}' for size in ('b0', 'b1', 'b2', 'b3', 's', 'm', 'l', 'xl'))),
    'inception_next': Family('InceptionNextModel', tuple(
        f'inception_next_{size}' for size in ('atto', 'tiny', 'small', 'base'))),
    'inceptionv3': Family('InceptionV3Model', ('inception_v3',)),
    'inceptionv4': Family('InceptionV4Model', ('inception_v4',)),
    'inception_resnetv2': Family('InceptionResNetV2Model', ('inception_resnet_v2',)),
    'maxvit': Family('MaxViTModel', tuple(f'maxvit_{size}_224' for size in ('tiny', 'small', 'base', 'large')),
                     multiple=224),
    'mobilenetv2': Family('MobileNetV2Model', tuple(f'mobilenetv2_{i}' for i in ('050', '100', '110d', '120d', '140'))),
    'mobilenetv3': Family('MobileNetV3Model', (
        'mobilenetv3_small_050', 'mobilenetv3_small_075', 'mobilenetv3_small_100', 'mobilenetv3_large_100',
        'mobilenetv3_large_150d', 'mobilenetv3_rw')),
    'mobilenetv4': Family('MobileNetV4Model', tuple(f'mobilenetv4_{size}' for size in (
        'conv_small', 'conv_medium', 'conv_large', 'hybrid_medium', 'hybrid_large'))),
    'mobilevit': Family('MobileViTModel', ('mobilevit_xxs', 'mobilevit_xs', 'mobilevit_s')),
    'mobilevitv2': Family('MobileViTV2Model', tuple(
        f'mobilevitv2_{i:03}' for i in (50, 75, 100, 125, 150, 175, 200))),
    'nextvit': Family('NextViTModel', tuple(f'nextvit_{size}' for size in ('small', 'base', 'large')), multiple=32),
    'poolformer': Family('PoolFormerModel', tuple(
        f'poolformer_{size}' for size in ('s12', 's24', 's36', 'm36', 'm48'))),
    'pvt': Family('PvtModel', tuple(f'pvt_{size}' for size in ('tiny', 'small', 'medium', 'large'))),
    'pvt_v2': Family('PvtV2Model', tuple(f'pvt_v2_b{i}' for i in range(6))),
    'regnet': Family('RegNetModel', tuple(_REGNETS), None, _REGNETS),
    'res2net': Family('Res2NetModel', (
        'res2net50_14w_8s', 'res2net50_26w_4s', 'res2net50_26w_6s', 'res2net50_26w_8s', 'res2net50_48w_2s',
        'res2net101_26w_4s', 'res2next50')),
    'resnet': Family('ResNetModel', ('resnet50', 'resnet101', 'resnet152')),
    'resnetv2': Family('ResNetV2Model', ('resnetv2_50x1_in1k', 'resnetv2_101x1_in1k', 'resnetv2_152x2_in1k')),
    'resnext': Family('ResNeXtModel', ('resnext50_32x4d', 'resnext101_32x4d', 'resnext101_32x8d')),
    'senet': Family('SENetModel', ('seresnet50', 'seresnext50_32x4d', 'seresnext101_32x4d', 'seresnext101_32x8d')),
    'swin': Family('SwinModel', ('swin_tiny', 'swin_small', 'swin_base_224', 'swin_large_224')),
    'swinv2': Family('SwinV2Model', ('swinv2_tiny_window8_256', 'swinv2_small_window8_256', 'swinv2_base_window8_256')),
    'vgg': Family('VGGModel', tuple(f'vgg{depth}{kind}' for depth in (11, 13, 16, 19) for kind in ('', '_bn'))),
    'vit': Family('ViTModel', tuple(f'vit_{size}_patch16_224' for size in _VITS), 16),
    'xception': Family('XceptionModel', ('xception41', 'xception65', 'xception71')),
}  # fmt: skip
NAMES = {name: family for family, each in FAMILIES.items() for name in each.names}


@backbones.register('zeromodels')
def zeromodels(
    *,
    output_stride: int,
    norm: NormFactory,
    name: str,
    image_size: int | tuple[int, int] | None = None,
    pyramid_channels: int = 256,
) -> keras.Model:
    """A model of ZeroModels: ConvNeXt, MobileNetV3 and V4, EfficientNet, RegNet, Swin, DINOv3 and thirty families more.

    Needs the extra `zoo`.

    Args:
      output_stride: 8, 16 or 32: stride of c5; larger strides become dilation, except in transformers of one size.
      norm: makes the layers of batch normalisation; their epsilon stays the model's own.
      name: such as 'mobilenetv3_large_100'; --list backbones shows all.
      image_size: height and width in pixels that all images have, for transformers of one size, such as %CROP; None
        for models of any size.
      pyramid_channels: channels of the maps that a plain transformer (ViT, DeiT, DINOv3) gets by ViTDet's simple
        feature pyramid.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (if it has stride 2), c2 (4), c3, c4, c5.

    Raises:
      UserError: if there is no such model, the extra is not installed, or the model does not fit the output stride or
        the image size.
    """
    slot = f'{_SLOT}.name = {name!r}'
    key = NAMES[choose(name, NAMES, f'{_SLOT}.name')]
    installed('zeromodels', slot)
    if not isinstance(pyramid_channels, int) or pyramid_channels < 1:
        raise UserError(
            f'{_SLOT}.pyramid_channels = {shown(pyramid_channels)}: expected a number of channels, such as 256.'
        )
    model = source_model(name, image_size)
    module = importlib.import_module(f'zeromodels.models.{key}')
    source = Source(model, name, slot, tuple(model.outputs))
    if patch := FAMILIES[key].patch:
        net = vit.with_pyramid(source, _pixels(module, name), output_stride, norm, patch, pyramid_channels)
    else:
        net = rewritten(source, _pixels(module, name), output_stride, norm)
    make = partial(source_model, name, image_size)
    loaders = zeromodels_weights.loaders(make)
    default = partial(zeromodels_weights.default, name, key)
    net.published = hub.published(name, loaders, default, vit.NAME if patch else '')
    return net


zeromodels.catalogue = partial(catalogue, 'zeromodels', NAMES)


def source_model(name: str, image_size: Any = None, kind: str = '') -> keras.Model:
    """The model itself, without its classifier; or another class of its family with the same settings.

    Raises:
      UserError: if it needs an image size, or does not fit the one that is set.
    """
    family = FAMILIES[NAMES[name]]
    module = importlib.import_module(f'zeromodels.models.{NAMES[name]}')
    model = getattr(module, kind or family.model)
    tables = (values for table, values in zeromodels_weights.tables(NAMES[name]) if table.endswith('_MODEL_CONFIG'))
    own = dict(family.settings.get(name) or next(values[name] for values in tables if name in values))
    for other in ('image_size', 'num_classes'):
        own.pop(other, None)
    slot = f'{_SLOT}.image_size = {shown(image_size)}'
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else (image_size, image_size)
    if image_size is not None and not (len(sides) == 2 and all(isinstance(n, int) and n > 0 for n in sides)):
        raise UserError(f'{slot}: expected a number of pixels, or height and width, such as 224 or (224, 320).')
    multiple = family.multiple or family.patch or 32
    if image_size is not None and any(side % multiple for side in sides):
        raise UserError(f'{slot}: {name} needs a height and a width that are multiples of {multiple}.')
    try:
        if family.multiple and image_size is None:
            raise TypeError
        with fresh_names():
            return model(**own, image_size=sides, **({} if kind else {'as_backbone': True}))
    except (TypeError, ValueError, ArithmeticError) as error:
        if image_size is None:
            raise UserError(
                f'{slot}: {name} is made for images of one size. Set it to the size of your crops, and let evaluation '
                'and prediction use the same size.'
            ) from error
        raise UserError(
            f'{slot}: {name} cannot be made for it: {reason(error)}. Try the size '
            'that is part of its name or paper, such as 224, or a multiple.'
        ) from error


# Mean and deviation, of pixels in 0..1, with which timm 1.0.31 trained the weights that the library converts: where the
# library's image processor states others. MobileViT's processor also reverses the channels, as Apple's files expect;
# those of timm read RGB, with which they reach the paper's accuracy (78.3 of 78.4 % for mobilevit_s).
_HALF = ((0.5,) * 3, (0.5,) * 3)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PIXELS = {
    r'efficientnet_b8|efficientnet_lite_b\d|resnetv2_\w+': _HALF,
    r'efficientnetv2_b\d|inception_next_\w+|mobilenetv3_(?!large_150d)\w+': _IMAGENET,
    r'mobilevit\w+': ((0.0,) * 3, (1.0,) * 3),
}


def _pixels(module: Any, name: str) -> Callable[[Any], Any]:
    """The scaling of pixels for a model: timm's, or the one that the family's image processor states."""
    processor = next(value for key, value in vars(module).items() if key.endswith('ImageProcessor'))()
    stated = processor.image_mean, processor.image_std
    mean, std = next((pair for pattern, pair in _PIXELS.items() if re.fullmatch(pattern, name)), stated)
    reverse = getattr(processor, 'do_flip_channel_order', False)
    return scaling([255 * value for value in mean], [255 * value for value in std], reverse)
