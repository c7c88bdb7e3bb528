"""What every registered backbone keeps, at every output stride."""

import functools
import importlib
import pkgutil

import keras
import numpy as np
import pytest

import seg.backbones
from seg.layers.norm import NormFactory
from seg.registry import backbones
from seg.structures import PAD_PIXEL, BackboneSpec
from tests.backbones import canvas
from tests.models import small_deeplab

for module in pkgutil.iter_modules(seg.backbones.__path__, 'seg.backbones.'):
    importlib.import_module(module.name)

# Those that need no setting; models of other libraries have a test of their own.
NAMES = [entry.name for entry in backbones.entries() if 'name' not in entry.settable]
STRIDES = {8: (4, 8, 8, 8), 16: (4, 8, 16, 16), 32: (4, 8, 16, 32)}


def build(name, output_stride=16, kind='sync'):
    """Builds a backbone, narrow if it has a width."""
    entry = backbones.get(name)
    supplied = {'output_stride': output_stride, 'norm': NormFactory(kind), 'width': 0.125}
    return entry.builder(**{key: value for key, value in supplied.items() if key in entry.signature.parameters})


@functools.cache
def built(name, output_stride):
    return build(name, output_stride)


@pytest.fixture(scope='module', params=NAMES)
def name(request):
    """One backbone after the other: all of them together take a gigabyte."""
    yield request.param
    built.cache_clear()


def only(names):
    return pytest.mark.parametrize('name', names, indirect=True, scope='module')


@pytest.mark.parametrize('output_stride', STRIDES)
def test_strides(name, output_stride):
    spec = BackboneSpec.of(built(name, output_stride))
    assert tuple(spec[f'c{level}'].stride for level in (2, 3, 4, 5)) == STRIDES[output_stride]
    if 'c1' in spec.features:
        assert spec['c1'].stride == 2


@pytest.mark.parametrize('size', [(64, 64), (65, 33), (40, 70)])
@only([name for name in NAMES if name != 'resnet101'])
def test_maps_have_a_cell_per_stride(name, size):
    model = built(name, 16)
    spec = BackboneSpec.of(model)
    outputs = model(np.full((1, *size, 3), 128.0, 'float32'), training=False)
    assert set(outputs) == set(spec.features)
    for key, (stride, channels) in spec.features.items():
        assert outputs[key].shape == (1, -(-size[0] // stride), -(-size[1] // stride), channels)
        assert outputs[key].dtype == keras.config.floatx()


def test_variable_paths_are_unique_and_stable(name):
    paths = [variable.path for variable in built(name, 16).variables]
    assert len(set(paths)) == len(paths)
    assert paths == [variable.path for variable in build(name).variables]


def test_variables_do_not_depend_on_the_output_stride(name):
    shapes = [{variable.path: variable.shape for variable in built(name, stride).variables} for stride in STRIDES]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize('kind', ['sync', 'frozen', 'group'])
@only(['resnet18'])
def test_trained_variables(name, kind):
    model = build(name, 16, kind)
    ends = {variable.path.rpartition('/')[2] for variable in model.trainable_variables}
    assert {'kernel', 'gamma', 'beta'} <= ends and not any(end.startswith('moving') for end in ends)
    moving = [variable for variable in model.non_trainable_variables]
    assert bool(moving) == (kind != 'group')
    before = [variable.numpy() for variable in moving]
    model(np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype('float32'), training=True)
    changed = [not np.array_equal(old, variable.numpy()) for old, variable in zip(before, moving, strict=True)]
    assert all(changed) if kind == 'sync' else not any(changed)


def test_padding_pixels_are_zero_inside(name):
    """An image of the padding pixel is zeros after the normalisation of pixels; untrained layers keep them."""
    image = np.broadcast_to(np.float32(PAD_PIXEL), (1, 32, 32, 3))
    for features in built(name, 16)(image, training=False).values():
        np.testing.assert_allclose(features, 0, atol=1e-4)


@pytest.mark.parametrize('kind', ['sync', 'group'])
@only([name for name in NAMES if name not in ('resnet101', *(f'efficientnet_lite{i}' for i in (1, 2, 3)))])
def test_maps_do_not_depend_on_the_canvas(name, kind, float64):
    """Neither on how far it is padded, nor on what is there: by statistics that make something of zeros.

    In float64: in float32 the order of sums alone makes 1e-5 of 50 layers. Those left out have more of the same blocks.
    """
    model = build(name, 16, kind)
    small_deeplab.randomize(model)
    canvas.check(model, 1e-11)
