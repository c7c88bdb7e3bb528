"""Backbones of Keras Applications, which come with Keras."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
from keras.src.utils import file_utils

from seg.backbones.bridge import hub
from seg.backbones.bridge.layers import scaling
from seg.backbones.bridge.names import catalogue, choose
from seg.backbones.bridge.rewrite import Source, fresh_names, rewritten
from seg.errors import UserError, reason, shown
from seg.layers.norm import NormFactory
from seg.layers.pixel_norm import IMAGENET_STD
from seg.registry import backbones
from seg.structures import PAD_PIXEL, Published

# How pixels are scaled: mean and deviation of RGB in 0..255, and whether the model reads BGR.
_TORCH = (PAD_PIXEL, IMAGENET_STD, False)
_UNIT = ((127.5,) * 3, (127.5,) * 3, False)
_TPU = ((128.0,) * 3, (128.0,) * 3, False)
_CAFFE = ((123.68, 116.779, 103.939), (1.0,) * 3, True)

_WITHOUT_SCALING = {'include_preprocessing': False}
# By name: the class in `keras.applications`, the scaling of pixels, and arguments.
MODELS: dict[str, tuple[str, tuple, dict]] = {
    **{f'convnext_{size.lower()}': (f'ConvNeXt{size}', _TORCH, _WITHOUT_SCALING)
       for size in ('Tiny', 'Small', 'Base', 'Large', 'XLarge')},
    **{f'densenet{depth}': (f'DenseNet{depth}', _TORCH, {}) for depth in (121, 169, 201)},
    **{f'efficientnet_b{i}': (f'EfficientNetB{i}', _TORCH, {}) for i in range(8)},
    **{f'efficientnet_v2_b{i}': (f'EfficientNetV2B{i}', _TORCH, _WITHOUT_SCALING) for i in range(4)},
    **{f'efficientnet_v2_{size.lower()}': (f'EfficientNetV2{size}', _TPU, _WITHOUT_SCALING) for size in 'SML'},
    'inception_resnet_v2': ('InceptionResNetV2', _UNIT, {}),
    'inception_v3': ('InceptionV3', _UNIT, {}),
    'mobilenet': ('MobileNet', _UNIT, {}),
    'mobilenet_v2': ('MobileNetV2', _UNIT, {}),
    'mobilenet_v3_large': ('MobileNetV3Large', _UNIT, _WITHOUT_SCALING),
    'mobilenet_v3_small': ('MobileNetV3Small', _UNIT, _WITHOUT_SCALING),
    **{f'resnet{depth}': (f'ResNet{depth}', _CAFFE, {}) for depth in (50, 101, 152)},
    **{f'resnet{depth}_v2': (f'ResNet{depth}V2', _UNIT, {}) for depth in (50, 101, 152)},
    'vgg16': ('VGG16', _CAFFE, {}),
    'vgg19': ('VGG19', _CAFFE, {}),
    'xception': ('Xception', _UNIT, {}),
}  # fmt: skip


@backbones.register('keras_applications')
def keras_applications(*, output_stride: int, norm: NormFactory, name: str, alpha: float | None = None) -> keras.Model:
    """A model of Keras Applications: ConvNeXt, DenseNet, EfficientNet, Inception, MobileNet, ResNet, VGG, Xception.

    Args:
      output_stride: 8, 16 or 32: stride of c5; larger strides become dilation.
      norm: makes the layers of batch normalisation; their epsilon stays the model's own.
      name: such as 'mobilenet_v3_small'; --list backbones shows all.
      alpha: of MobileNets: multiplies all channels; None for 1.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (if it has stride 2), c2 (4), c3, c4, c5.

    Raises:
      UserError: if there is no such model, or it does not fit the output stride.
    """
    slot = f'backbones.keras_applications.name = {name!r}'
    _, pixels, _ = MODELS[choose(name, MODELS, 'backbones.keras_applications.name')]
    settings = {} if alpha is None else {'alpha': alpha}
    try:
        model = source_model(name, None, **settings)
    except (TypeError, ValueError) as error:
        if alpha is None:
            raise
        raise UserError(
            f'backbones.keras_applications.alpha = {shown(alpha)}: {name} cannot be made with it: {reason(error)}. '
            'Leave it out, or choose a MobileNet and a number such as 0.5.'
        ) from error
    net = rewritten(Source(model, name, slot), scaling(*pixels), output_stride, norm)

    def load(weights: str, fetch: Callable[..., str]) -> dict[str, np.ndarray]:
        if weights != 'imagenet':
            raise UserError(f"init.weights = {weights!r}: Keras Applications have 'imagenet' only.")
        with _downloads(fetch):
            return read(weights)

    read = partial(hub.read, partial(source_model, name, **settings), name)
    net.published = Published(title=f'{name} of Keras Applications', load=load, readers={'.h5': read})
    return net


keras_applications.catalogue = partial(catalogue, 'keras_applications', MODELS)


def source_model(name: str, weights: str | None, **settings: Any) -> keras.Model:
    """The model itself, without its classifier."""
    kind, _, own = MODELS[name]
    with fresh_names():
        return getattr(keras.applications, kind)(
            include_top=False, weights=weights, input_shape=(None, None, 3), **own, **settings
        )


@contextlib.contextmanager
def _downloads(fetch: Callable[..., str]) -> Iterator[None]:
    """Context in which Keras' downloads are made by `fetch`, which resumes them and says what to do without network."""

    def get_file(fname: str, origin: str, file_hash: str = '', **_: Any) -> str:
        algorithm = 'sha256' if len(file_hash or '') == 64 else 'md5'
        return fetch(origin, f'{algorithm}:{file_hash}' if file_hash else '', fname)

    before, file_utils.get_file = file_utils.get_file, get_file
    try:
        yield
    finally:
        file_utils.get_file = before
