"""ResNets: published sizes, dilation, padding, pixels, messages."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.backbones.resnet import resnet18, resnet50, resnet101
from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.layers.pixel_norm import PixelNorm
from seg.structures import BackboneSpec

NORM = NormFactory('sync')


@pytest.mark.parametrize(
    ('builder', 'count'), [(resnet18, 11_176_512), (resnet50, 23_508_032), (resnet101, 42_500_160)]
)
def test_published_number_of_weights(builder, count):
    """torchvision's totals less those of the classifier."""
    model = builder(output_stride=32, norm=NORM)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == count
    assert BackboneSpec.of(model)['c5'].channels == (512 if builder is resnet18 else 2048)


def randomize(model, seed=0):
    """Sets every variable, so that no branch is silent and no statistic trivial."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.path.endswith('kernel'):
            variable.assign(rng.normal(size=variable.shape, scale=(2 / np.prod(variable.shape[:3])) ** 0.5))
        elif variable.path.endswith(('gamma', 'moving_variance')):
            variable.assign(rng.uniform(0.5, 1.5, size=variable.shape))
        else:
            variable.assign(rng.normal(size=variable.shape, scale=0.2))


@pytest.mark.parametrize('size', [(64, 96), (65, 90)])
@pytest.mark.parametrize('builder', [resnet18, resnet50])
def test_dilated_network_is_the_strided_one_in_between(builder, size):
    """At the cells that they share, borders included, all output strides compute the same."""
    image = np.random.default_rng(1).uniform(0, 255, (1, *size, 3)).astype('float32')
    outputs, specs = {}, {}
    for stride in (8, 16, 32):
        model = builder(output_stride=stride, norm=NORM, width=0.125)
        randomize(model)
        specs[stride] = BackboneSpec.of(model)
        outputs[stride] = model(image, training=False)
    for stride in (8, 16):
        for name, strided in outputs[32].items():
            dilated = outputs[stride][name]
            step = specs[32][name].stride // specs[stride][name].stride
            # Activations grow to the thousands: rounding is measured by the largest.
            np.testing.assert_allclose(
                dilated[:, ::step, ::step], strided, rtol=1e-3, atol=1e-5 * np.abs(strided).max()
            )
    assert outputs[8]['c5'].shape[1] == -(-size[0] // 8)


def test_multi_grid_dilates_the_last_stage():
    model = resnet50(output_stride=16, norm=NORM, multi_grid=(1, 2, 4), width=0.125)
    rates = [model.get_layer(f'stage5_block{i}_conv2').conv.dilation_rate[0] for i in (1, 2, 3)]
    assert rates == [2, 4, 8]
    plain = resnet50(output_stride=8, norm=NORM, width=0.125)
    rates = [plain.get_layer(f'stage{s}_block{i}_conv2').conv.dilation_rate[0] for s in (4, 5) for i in (1, 2)]
    assert rates == [1, 2, 2, 4]


def test_translation_by_the_stride():
    """Shifting the image by a stride shifts c5 by a cell, where no border is in sight."""
    model = resnet18(output_stride=16, norm=NORM, width=0.125)
    randomize(model)
    pixels = np.random.default_rng(2).uniform(0, 255, (1, 656, 48, 3)).astype('float32')
    one, two = (model(pixels[:, top : top + 640], training=False)['c5'] for top in (0, 16))
    np.testing.assert_allclose(one[:, 19:22], two[:, 18:21], rtol=1e-3, atol=1e-4)


def test_new_blocks_are_shortcuts():
    model = resnet50(output_stride=16, norm=NORM, width=0.125)
    gammas = {v.path: v.numpy() for v in model.variables if v.path.endswith('gamma')}
    assert all((value == (0 if '_conv3/norm/' in path else 1)).all() for path, value in gammas.items())


def test_beta_stem_has_three_convolutions():
    spec = BackboneSpec.of(resnet50(output_stride=16, norm=NORM, stem='beta'))
    assert spec['c1'] == (2, 128) and spec['c2'] == (4, 256)


def test_pixels_are_normalised_before_rounding():
    layer = PixelNorm(name='pixel_norm')
    layer.dtype_policy = keras.DTypePolicy('mixed_bfloat16')
    image = np.float32([[[[123.675, 116.28, 103.53]], [[124.0, 116.5, 104.0]]]])
    got = layer(tf.constant(image))
    assert got.dtype == 'bfloat16'
    expected = (image - np.float32([123.675, 116.28, 103.53])) / np.float32([58.395, 57.12, 57.375])
    np.testing.assert_allclose(tf.cast(got, 'float32'), expected, rtol=4e-3)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'output_stride': 4}, r'output_stride = 4: backbones.resnet50 '),
        ({'variant': 'caffe'}, r"backbones.resnet50.variant = 'caffe': .*'torchvision', 'keras'"),
        ({'stem': 'conv3'}, r"backbones.resnet50.stem = 'conv3': .*'conv7', 'beta'"),
        ({'width': 0.0}, r'backbones.resnet50.width = 0.0'),
        ({'multi_grid': (1, 2)}, r'multi_grid = \(1, 2\): .*backbones.resnet50 has 3 blocks'),
        ({'multi_grid': (2, 4, 8), 'output_stride': 32}, r'multi_grid = \(2, 4, 8\): at output stride 32'),
    ],
)
def test_messages(settings, message):
    with pytest.raises(UserError, match=message):
        resnet50(**{'output_stride': 16, 'norm': NORM, **settings})
