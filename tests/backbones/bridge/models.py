"""The models of other libraries that the tests build: one or more of each family, small ones."""

from __future__ import annotations

import functools
import importlib.util
from typing import NamedTuple

import keras
import pytest

from seg.backbones.bridge.keras_applications import keras_applications
from seg.backbones.bridge.keras_hub import keras_hub
from seg.backbones.bridge.zeromodels import zeromodels
from seg.layers.norm import NormFactory

BUILDERS = {'keras_applications': keras_applications, 'keras_hub': keras_hub, 'zeromodels': zeromodels}


class Model(NamedTuple):
    """A model, and what is expected of it.

    Attributes:
      library: the backbone's name.
      name: the model's.
      side: of its images, if they have one size.
      dilates: whether it has output strides below 32.
      whole: whether a layer looks at the whole map, so that cells depend on all others.
    """

    library: str
    name: str
    side: int | None = None
    dilates: bool = True
    whole: bool = False

    @property
    def settings(self) -> dict:
        return {'name': self.name, **({} if self.side is None else {'image_size': self.side})}

    def __str__(self) -> str:
        return f'{self.library}-{self.name}'


KERAS = [
    Model('keras_applications', 'convnext_tiny'),
    Model('keras_applications', 'densenet121'),
    Model('keras_applications', 'efficientnet_b0', whole=True),
    Model('keras_applications', 'efficientnet_v2_b0', whole=True),
    Model('keras_applications', 'inception_resnet_v2'),
    Model('keras_applications', 'inception_v3'),
    Model('keras_applications', 'mobilenet'),
    Model('keras_applications', 'mobilenet_v2'),
    Model('keras_applications', 'mobilenet_v3_small', whole=True),
    Model('keras_applications', 'resnet50'),
    Model('keras_applications', 'resnet50_v2'),
    Model('keras_applications', 'vgg16'),
    Model('keras_applications', 'xception'),
]
ZOO = [
    Model('zeromodels', 'convnext_atto'),
    Model('zeromodels', 'convnextv2_atto', whole=True),
    Model('zeromodels', 'deit_tiny_patch16_224', side=64, whole=True),
    Model('zeromodels', 'densenet121'),
    Model('zeromodels', 'efficientnet_b0', whole=True),
    Model('zeromodels', 'efficientnet_lite_b0'),
    Model('zeromodels', 'efficientnetv2_b0', whole=True),
    Model('zeromodels', 'inception_next_atto'),
    Model('zeromodels', 'inception_v3'),
    Model('zeromodels', 'maxvit_tiny_224', side=224, dilates=False, whole=True),
    Model('zeromodels', 'mobilenetv2_050'),
    Model('zeromodels', 'mobilenetv3_small_050', whole=True),
    Model('zeromodels', 'mobilenetv4_conv_small'),
    Model('zeromodels', 'poolformer_s12', whole=True),
    Model('zeromodels', 'pvt_v2_b0', side=64, dilates=False, whole=True),
    Model('zeromodels', 'regnet_x_002'),
    Model('zeromodels', 'regnet_y_002', whole=True),
    Model('zeromodels', 'res2net50_14w_8s'),
    Model('zeromodels', 'resnet50'),
    Model('zeromodels', 'resnetv2_50x1_in1k', whole=True),
    Model('zeromodels', 'resnext50_32x4d'),
    Model('zeromodels', 'seresnext50_32x4d', whole=True),
    Model('zeromodels', 'swin_tiny', side=64, dilates=False, whole=True),
    Model('zeromodels', 'vgg11_bn'),
    Model('zeromodels', 'vit_tiny_patch16_224', side=64, whole=True),
    Model('zeromodels', 'xception41'),
]
HUB = [
    Model('keras_hub', 'cspresnet50'),
    Model('keras_hub', 'darknet53'),
    Model('keras_hub', 'densenet121'),
    Model('keras_hub', 'efficientnet_es'),
    Model('keras_hub', 'efficientnet_lite0'),
    Model('keras_hub', 'hgnetv2_b4'),
    Model('keras_hub', 'mobilenetv3_small_050', whole=True),
    Model('keras_hub', 'resnet18'),
    Model('keras_hub', 'resnetv2_50'),
    Model('keras_hub', 'vgg11'),
]
ALL = (*KERAS, *ZOO, *HUB)


def marked(models: list[Model], *marks) -> list:
    """Parameters for tests; those whose library is not installed are skipped."""
    return [
        pytest.param(
            model,
            id=str(model),
            marks=[
                *marks,
                pytest.mark.skipif(
                    model.library != 'keras_applications' and importlib.util.find_spec(model.library) is None,
                    reason='needs the extra zoo',
                ),
            ],
        )
        for model in models
    ]


def build(model: Model, output_stride: int = 16, kind: str = 'sync') -> keras.Model:
    return BUILDERS[model.library](output_stride=output_stride, norm=NormFactory(kind), **model.settings)


@functools.cache
def built(model: Model, output_stride: int) -> keras.Model:
    return build(model, output_stride)
