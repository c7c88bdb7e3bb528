"""What every model of another library keeps as a backbone."""

import re

import keras
import numpy as np
import pytest

from seg.backbones.bridge.keras_applications import keras_applications
from seg.errors import UserError
from seg.layers.norm import BatchNorm, NormFactory
from seg.structures import BackboneSpec
from tests.backbones import canvas
from tests.backbones.bridge.models import ALL, Model, build, built, marked
from tests.models import small_deeplab

STRIDES = {8: (4, 8, 8, 8), 16: (4, 8, 16, 16), 32: (4, 8, 16, 32)}
_SMALL = ('mobilenet', 'mobilenet_v3_small', 'convnext_atto', 'swin_tiny', 'resnet18')
_SAMPLE = [model for model in ALL if model.name in _SMALL]
_OTHERS = [model for model in ALL if model not in _SAMPLE]


@pytest.fixture(scope='module', params=[*marked(_SAMPLE), *marked(_OTHERS, pytest.mark.slow)])
def model(request):
    yield request.param
    built.cache_clear()
    keras.backend.clear_session()


def strides_of(model: Model):
    return STRIDES if model.dilates else [32]


def image(model: Model, count: int = 1, dtype: str = 'float32'):
    side = model.side or 65
    return np.random.default_rng(1).uniform(0, 255, (count, side, side, 3)).astype(dtype)


def test_strides_and_variables(model):
    shapes = []
    for output_stride in strides_of(model):
        net = built(model, output_stride)
        spec = BackboneSpec.of(net)
        assert tuple(spec[f'c{level}'].stride for level in (2, 3, 4, 5)) == STRIDES[output_stride]
        assert 'c1' not in spec.features or spec['c1'].stride == 2
        shapes.append({variable.path: tuple(variable.shape) for variable in net.variables})
    assert len(shapes[-1]) == len(built(model, 32).variables)  # Each has a name of its own.
    assert not any('seed' in path for path in shapes[-1])  # Of dropout.
    if model.name.partition('_')[0] not in ('vit', 'deit'):  # A pyramid scales its maps by variables.
        assert all(each == shapes[0] for each in shapes)
    assert shapes[-1] == {variable.path: tuple(variable.shape) for variable in build(model, 32).variables}


def test_what_cannot_be_dilated_is_refused(model):
    if model.dilates:
        pytest.skip('It has all output strides.')
    with pytest.raises(UserError, match=f'output_stride = 16: backbones.zeromodels.name = {model.name!r}'):
        build(model, 16)


def test_maps_have_a_cell_per_stride(model):
    net = built(model, 16 if model.dilates else 32)
    spec = BackboneSpec.of(net)
    size = (model.side, model.side) if model.side else (65, 70)
    outputs = net(np.full((1, *size, 3), 100.0, 'float32'), training=False)
    assert set(outputs) == set(spec.features)
    for key, (stride, channels) in spec.features.items():
        assert outputs[key].shape == (1, -(-size[0] // stride), -(-size[1] // stride), channels)
        assert outputs[key].dtype == keras.config.floatx()


def test_images_of_another_size_are_refused(model):
    if model.side is None:
        pytest.skip('It takes all sizes.')
    with pytest.raises(UserError, match=f'{model.side} x {model.side}'):
        built(model, 32)(np.zeros((1, 96, 64, 3), 'float32'))


def test_models_of_one_size_ask_for_it(model):
    if model.side is None:
        pytest.skip('It takes all sizes.')
    with pytest.raises(UserError, match=r'image_size = None'):
        build(model._replace(side=None), 32)


def test_a_size_that_does_not_suit_the_windows():
    pytest.importorskip('zeromodels', reason="needs the extra 'zoo'")
    with pytest.raises(UserError, match=r'maxvit_tiny_224 .* multiples of 224'):
        build(Model('zeromodels', 'maxvit_tiny_224', side=512), 32)


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'pvt_tiny', 'mobilevit_xxs', 'swin_tiny'])
def test_a_size_that_does_not_suit_the_strides(name):
    pytest.importorskip('zeromodels', reason="needs the extra 'zoo'")
    with pytest.raises(UserError, match=rf'image_size = \(224, 100\): {name} '):
        build(Model('zeromodels', name, side=(224, 100)), 32)


@pytest.mark.parametrize('alpha', [-1.0, 'x'])
def test_alpha(alpha):
    for name in ('mobilenet', 'resnet50'):
        with pytest.raises(UserError, match=f'alpha = {alpha!r}: {name}'):
            keras_applications(output_stride=32, norm=NormFactory(), name=name, alpha=alpha)


@pytest.mark.parametrize('side', ['x', 0, -224, (224,), (224.0, 224.0)])
def test_a_size_that_is_none(side):
    pytest.importorskip('zeromodels', reason="needs the extra 'zoo'")
    with pytest.raises(UserError, match=re.escape(f'image_size = {side!r}: ')):
        build(Model('zeromodels', 'maxvit_tiny_224', side=side), 32)


@pytest.mark.parametrize('kind', ['sync', 'frozen', 'group'])
def test_normalisation_is_ours(model, kind):
    net = build(model, 32, kind)
    moving = [variable for variable in net.non_trainable_variables if variable.path.endswith(('_mean', '_variance'))]
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in net._flatten_layers())
    norms = [layer for layer in net._flatten_layers() if isinstance(layer, BatchNorm)]
    assert len(moving) == 2 * len(norms) and (kind != 'group' or not norms)
    assert all(layer.frozen == (kind == 'frozen') and layer.momentum == 0.99 for layer in norms)
    before = [variable.numpy() for variable in moving]
    net(image(model, 2), training=True)
    changed = [not np.array_equal(old, variable.numpy()) for old, variable in zip(before, moving, strict=True)]
    assert all(changed) if kind == 'sync' else not any(changed)


def copied(source: keras.Model, target: keras.Model) -> None:
    values = {variable.path: variable.numpy() for variable in source.variables}
    for variable in target.variables:
        variable.assign(values[variable.path])


def test_dilated_network_contains_the_strided_one(model, float64):
    """At every second, or every fourth, cell it computes the same values, borders included."""
    if model.whole:
        pytest.skip('A layer depends on the number of cells.')
    strided = build(model, 32, 'frozen')
    small_deeplab.randomize(strided)
    expected = strided(image(model, dtype='float64'), training=False)
    for output_stride in (16, 8):
        dilated = build(model, output_stride, 'frozen')
        copied(strided, dilated)
        maps = dilated(image(model, dtype='float64'), training=False)
        for level, stride in (('c4', 16), ('c5', 32)):
            step = stride // min(stride, output_stride)
            np.testing.assert_allclose(
                maps[level][:, ::step, ::step], expected[level], atol=1e-9 * np.abs(expected[level]).max()
            )


def test_maps_do_not_depend_on_the_canvas(model, float64):
    """Neither on how far an image is padded, nor on what is there."""
    if model.side is not None:
        pytest.skip('Its images fill their canvas.')
    net = build(model, 16)
    small_deeplab.randomize(net)
    canvas.check(net, 1e-9)
