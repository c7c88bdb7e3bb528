"""The decoder of DeepLab v3+, and what every semantic decoder keeps."""

import numpy as np
import pytest
import tensorflow as tf

from seg.decoders.deeplab_v3plus import deeplab_v3plus
from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.structures import BackboneSpec, FeatureMap

SPEC = BackboneSpec(
    {'c2': FeatureMap(4, 16), 'c3': FeatureMap(8, 24), 'c4': FeatureMap(16, 32), 'c5': FeatureMap(16, 40)}
)
SMALL = {'aspp_channels': 16, 'low_level_channels': 8, 'decoder_channels': 24}
SEEDS = tf.constant([[1, 2], [3, 4]], tf.int32)
SIZE = tf.constant([[65, 70], [40, 33]], tf.int32)


def features(spec=SPEC, size=(65, 70)):
    rng = np.random.default_rng(0)
    return {
        name: tf.constant(rng.normal(size=(2, -(-size[0] // stride), -(-size[1] // stride), channels)), tf.float32)
        for name, (stride, channels) in spec.features.items()
    }


def make(spec=SPEC, output_stride=16, **settings):
    return deeplab_v3plus(backbone=spec, output_stride=output_stride, norm=NormFactory('sync'), **{**SMALL, **settings})


@pytest.mark.parametrize('separable', [False, True])
def test_shape_and_paths(separable):
    decoder = make(separable=separable)
    maps = decoder(features(), size=SIZE, seed=SEEDS, training=True)
    assert {name: value.shape for name, value in maps.items()} == {'features': (2, 17, 18, 24)}
    paths = [variable.path for variable in decoder.variables]
    assert len(set(paths)) == len(paths)
    again = make(separable=separable)
    again(features(), size=SIZE)
    assert paths == [variable.path for variable in again.variables]


def test_default_widths_are_the_published_ones():
    decoder = make(aspp_channels=256, low_level_channels=48, decoder_channels=256)
    decoder(features(), size=SIZE)
    shapes = {variable.path.partition('/')[2]: variable.shape for variable in decoder.variables}
    assert shapes['aspp/projection/conv/kernel'] == (1, 1, 5 * 256, 256)
    assert shapes['refine1/conv/kernel'] == (3, 3, 256 + 48, 256)


@pytest.mark.parametrize(('stride', 'rates'), [(32, (3, 6, 9)), (16, (6, 12, 18)), (8, (12, 24, 36))])
def test_rates_follow_the_output_stride(stride, rates):
    spec = BackboneSpec({**SPEC.features, 'c5': FeatureMap(stride, 40)})
    decoder = make(spec, output_stride=stride)
    assert tuple(branch.conv.dilation_rate[0] for branch in decoder.aspp.branches[1:]) == rates
    assert decoder.factor == stride // 4 and decoder.aspp.stride == stride


def test_low_is_preferred_to_c2():
    spec = BackboneSpec({**SPEC.features, 'low': FeatureMap(8, 12)})
    decoder = make(spec)
    maps = decoder(features(spec), size=SIZE)
    assert maps['features'].shape[1:3] == (9, 9)
    assert decoder.low_level.conv.kernel.shape == (1, 1, 12, 8)


@pytest.mark.parametrize('separable', [False, True])
def test_details_are_at_the_stride_of_c1(separable):
    spec = BackboneSpec({**SPEC.features, 'c1': FeatureMap(2, 12)})
    decoder = make(spec, detail_channels=8, separable=separable)
    inputs = features(spec)
    maps = decoder(inputs, size=SIZE)
    assert maps['features'].shape == (2, 33, 35, 8)
    # They see c1: a change of one of its cells arrives there and in the cells around it, and nowhere else.
    cell = np.zeros(inputs['c1'].shape, np.float32)
    cell[:, 16, 16] = 1
    changed = decoder({**inputs, 'c1': inputs['c1'] + cell}, size=SIZE)
    rows, columns = np.nonzero(np.abs(changed['features'] - maps['features']).sum((0, 3)))
    assert set(rows) == set(columns) == {15, 16, 17}


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'output_stride': 4}, r'decoders.deeplab_v3plus.rates = None: .* 8, 16, 32, not for 4'),
        ({'rates': (0, 6)}, r'decoders.deeplab_v3plus.rates\[0\] = 0'),
        ({'dropout': 1.0}, r'decoders.deeplab_v3plus.dropout = 1.0'),
        ({'detail_channels': 8}, r'decoders.deeplab_v3plus.detail_channels = 8: .*c1'),
    ],
)
def test_messages(settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)
