"""Other libraries' models through the bridge against timm's, at every output stride, for the same random weights."""

import functools
import json
import pathlib
import re

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from seg.backbones.bridge import keras_hub, zeromodels
from seg.backbones.bridge.rewrite import Source, arrays, fresh_names, rewritten
from seg.backbones.bridge.zeromodels_weights import without_torch
from seg.layers.norm import NormFactory
from tests.backbones.bridge import timm_reference

pytest.importorskip('zeromodels')
pytest.importorskip('keras_hub')


@functools.cache
def stored():
    path = pathlib.Path(timm_reference.FILE)
    return dict(np.load(path))


def drawn(name):
    return timm_reference.weights(json.loads(str(stored()[f'{name}/shapes'])))


def of_keras_hub(name, folder):
    """The model with the drawn weights, converted by the library."""
    save_file(drawn(name), folder / 'model.safetensors')
    return keras_hub.source_model(name, timm=folder / 'model.safetensors')


def of_zeromodels(name, folder):
    with fresh_names():
        model = zeromodels.source_model(name)
    tensors = drawn(name)
    with without_torch():
        if name.startswith('regnet'):  # The library converts these from the names of Hugging Face's port.
            type(model).transfer_from_hf(model, {regnet(key): value for key, value in tensors.items()})
        else:
            type(model).transfer_from_timm(model, tensors)
    return model


def regnet(key):
    for pattern, by in _REGNET:
        key = re.sub(pattern, by, key)
    return key


_REGNET = (
    (r'^stem\.', 'regnet.embedder.embedder.'),
    (r'^s(\d)\.b(\d+)\.', lambda found: f'regnet.encoder.stages.{int(found[1]) - 1}.layers.{int(found[2]) - 1}.'),
    (r'\.downsample\.', '.shortcut.'),
    (r'\.se\.fc1\.', '.layer.2.attention.0.'),
    (r'\.se\.fc2\.', '.layer.2.attention.2.'),
    (r'\.conv3\.', '.layer.3.'),
    (r'\.conv2\.', '.layer.1.'),
    (r'\.conv1\.', '.layer.0.'),
    (r'\.conv\.', '.convolution.'),
    (r'\.bn\.', '.normalization.'),
)


_CASES = [
    *((of_zeromodels, name) for name in timm_reference.MODELS if name in zeromodels.NAMES),
    *((of_keras_hub, name) for name, (theirs, *_) in timm_reference.MODELS.items()
      if name == theirs and name in keras_hub.MODELS),
]  # fmt: skip


@pytest.mark.parametrize(('library', 'name'), _CASES)
def test_features(library, name, tmp_path):
    """To 1e-4 of the largest value; timm computed in float64, this in float32."""
    model = library(name, tmp_path)
    values = arrays(model)
    _, side, strides = timm_reference.MODELS[name]
    for output_stride in strides:
        net = rewritten(Source(model, name, name, tuple(model.outputs)), lambda x: x, output_stride, NormFactory())
        for variable in net.variables:
            variable.assign(values[variable.path])
        maps = net(timm_reference.pixels(side), training=False)
        place = f'{name}/{output_stride}/'
        expected = {key.removeprefix(place): x for key, x in stored().items() if key.startswith(place)}
        assert {'c2', 'c3', 'c4', 'c5'} <= set(expected)
        if name == 'convnext_atto' and output_stride == 8:
            # timm pads the last 2x2 convolution, of dilation 2, by a cell at both ends, which shifts its map. Here it
            # begins at its cell, so that it computes what the strided one does (test_contract.py).
            del expected['c5']
        for level in set(expected) & set(maps):
            ours = keras.ops.convert_to_numpy(maps[level])[0, :, :, : timm_reference.CHANNELS]
            limit = 1e-4 * np.abs(expected[level]).max()
            np.testing.assert_allclose(ours, expected[level], atol=limit, err_msg=f'{level} at {output_stride}')


@pytest.mark.parametrize(('library', 'name'), _CASES)
def test_pixels_are_scaled(library, name):
    build = keras_hub.keras_hub if library is of_keras_hub else zeromodels.zeromodels
    norm = build(output_stride=32, norm=NormFactory(), name=name).get_layer('pixel_norm')
    np.testing.assert_allclose([norm.mean, norm.std], 255 * stored()[f'{name}/pixels'], rtol=1e-3)


@pytest.mark.parametrize(
    ('name', 'mean'),
    [('efficientnet_lite_b0', 127.5), ('efficientnetv2_b0', 123.675), ('efficientnetv2_s', 127.5), ('mobilevit_s', 0)],
)
def test_pixels_are_scaled_as_timm_did(name, mean):
    """Where the library's image processors state other numbers than timm 1.0.31 has for the weights."""
    size = {'image_size': 256} if name == 'mobilevit_s' else {}
    net = zeromodels.zeromodels(output_stride=32, norm=NormFactory(), name=name, **size)
    assert net.get_layer('pixel_norm').mean[0] == pytest.approx(mean)
