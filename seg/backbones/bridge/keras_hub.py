"""Backbones of KerasHub (the extra `zoo`): the models for which the library knows timm's settings and weights."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import tempfile
from functools import partial
from typing import Any

import keras
from keras.src.ops.numpy import Pad

from seg.backbones.bridge import hub
from seg.backbones.bridge.layers import scaling
from seg.backbones.bridge.names import catalogue, choose, installed
from seg.backbones.bridge.rewrite import Source, fresh_names, rewritten
from seg.layers.norm import NormFactory
from seg.layers.pixel_norm import IMAGENET_STD
from seg.registry import backbones
from seg.structures import PAD_PIXEL

# By name in timm: the library's own weights of ImageNet, '' if it has none.
MODELS: dict[str, str] = {
    'cspdarknet53': 'csp_darknet_53_ra_imagenet',
    'cspresnet50': 'csp_resnet_50_ra_imagenet',
    'cspresnext50': 'csp_resnext_50_ra_imagenet',
    'darknet53': 'darknet_53_imagenet',
    **{f'densenet{depth}': f'densenet_{depth}_imagenet' for depth in (121, 169, 201)},
    'efficientnet_b0': 'efficientnet_b0_ra_imagenet',
    'efficientnet_b1': 'efficientnet_b1_ft_imagenet',
    'efficientnet_b2': 'efficientnet_b2_ra_imagenet',
    'efficientnet_b3': 'efficientnet_b3_ra2_imagenet',
    'efficientnet_b4': 'efficientnet_b4_ra2_imagenet',
    'efficientnet_b5': 'efficientnet_b5_sw_ft_imagenet',
    'efficientnet_el': 'efficientnet_el_ra_imagenet',
    'efficientnet_em': 'efficientnet_em_ra2_imagenet',
    'efficientnet_es': 'efficientnet_es_ra_imagenet',
    'efficientnet_lite0': 'efficientnet_lite0_ra_imagenet',
    **{f'efficientnetv2_rw_{size}': f'efficientnet2_rw_{size}_{recipe}_imagenet'
       for size, recipe in (('t', 'ra2'), ('s', 'ra2'), ('m', 'agc'))},
    **{f'hgnetv2_b{i}': f'hgnetv2_b{i}_ssld_stage2_ft_in1k' for i in (4, 5, 6)},
    'mobilenetv3_large_100': 'mobilenet_v3_large_100_imagenet',
    **{f'mobilenetv3_small_{width}': f'mobilenet_v3_small_{width}_imagenet' for width in ('050', '100')},
    'resnet18': 'resnet_18_imagenet',
    'resnet26': '',
    'resnet34': '',
    **{f'resnet{depth}': f'resnet_{depth}_imagenet' for depth in (50, 101, 152)},
    **{f'resnetv2_{depth}': f'resnet_v2_{depth}_imagenet' for depth in (50, 101)},
    **{f'vgg{depth}': f'vgg_{depth}_imagenet' for depth in (11, 13, 16, 19)},
}  # fmt: skip


@backbones.register('keras_hub')
def keras_hub(*, output_stride: int, norm: NormFactory, name: str) -> keras.Model:
    """A model of KerasHub: CSPNet, DenseNet, EfficientNet, HGNetV2, MobileNetV3, ResNet, VGG.

    Needs the extra `zoo`.

    Args:
      output_stride: 8, 16 or 32: stride of c5; larger strides become dilation.
      norm: makes the layers of batch normalisation; their epsilon stays the model's own.
      name: timm's, such as 'mobilenetv3_large_100'; --list backbones shows all.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (if it has stride 2), c2 (4), c3, c4, c5.

    Raises:
      UserError: if there is no such model, the extra is not installed, or the model does not fit the output stride.
    """
    slot = f'backbones.keras_hub.name = {name!r}'
    preset = MODELS[choose(name, MODELS, 'backbones.keras_hub.name')]
    installed('keras_hub', slot)
    model = source_model(name)
    source = Source(model, name, slot, tuple(model.outputs))
    net = rewritten(source, scaling(PAD_PIXEL, IMAGENET_STD), output_stride, norm)
    loaders = {
        'hf': hub.Loader('model.weights.h5', lambda path: source_model(name, own=path)),
        'timm': hub.Loader('model.safetensors', lambda path: source_model(name, timm=path)),
    }
    net.published = hub.published(name, loaders, lambda: f'hf:keras/{preset}' if preset else '')
    return net


keras_hub.catalogue = partial(catalogue, 'keras_hub', MODELS)


def source_model(name: str, own: str = '', timm: str = '') -> keras.Model:
    """The model itself, without its classifier, as one graph of layers; see `library_model`."""
    with fresh_names():
        return laid_out(library_model(name, own, timm))


def library_model(name: str, own: str = '', timm: str = '') -> keras.Model:
    """The model as the library builds it.

    Args:
      name: one of `MODELS`.
      own: file of weights of the library; '' for none.
      timm: file of timm's weights, which the library converts; '' for none.
    """
    loaders = importlib.import_module('keras_hub.src.utils.timm.preset_loader')
    # From the second setting the library reads whether there are affine layers: here, as in timm, there are none.
    settings = {'architecture': name, 'pretrained_cfg': {'tag': 'ssld'}}
    with tempfile.TemporaryDirectory() as folder:
        if timm:
            os.symlink(os.path.abspath(timm), os.path.join(folder, 'model.safetensors'))
        loader = loaders.TimmPresetLoader(folder, settings)
        with contextlib.redirect_stdout(io.StringIO()):  # The conversion prints a line for each tensor.
            model = loader.load_backbone(loader.check_backbone_class(), load_weights=bool(timm))
    if own:
        model.load_weights(own)
    return model


def laid_out(model: keras.Model) -> keras.Model:
    """The same graph, with the layers of blocks that hold convolutions or normalisation in place of the blocks."""

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_idle(layer, **kwargs):
            return args[0]
        if not _is_block(layer):
            return layer(*args, **kwargs)
        for each in layer._layers:
            each.name = each.name if each.name.startswith(layer.name) else f'{layer.name}_{each.name}'
        return layer.call(*args, **kwargs)

    while True:
        model = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
        if not any(_is_block(each) or _is_idle(each) for each in model.operations):
            return model


def _is_block(layer: Any) -> bool:
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.BatchNormalization)
    inner = layer._flatten_layers(include_self=False) if isinstance(layer, keras.layers.Layer) else ()
    return any(isinstance(each, kinds) for each in inner)


def _is_idle(layer: Any, constant_values: Any = None, **_: Any) -> bool:
    """Whether it changes nothing, such as padding by the lowest value: largest values count cells of the map alone."""
    if isinstance(layer, keras.layers.ZeroPadding2D):
        return not any(map(any, layer.padding))
    return isinstance(layer, keras.layers.Identity) or (isinstance(layer, Pad) and constant_values == -math.inf)
