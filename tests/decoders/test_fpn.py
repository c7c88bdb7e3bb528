"""The feature pyramid: sizes, sums, the extra level, settings."""

import numpy as np
import pytest
import tensorflow as tf

from seg.decoders.fpn import fpn
from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.structures import BackboneSpec, FeatureMap

SPEC = BackboneSpec({f'c{level}': FeatureMap(2**level, 3 + level) for level in (2, 3, 4, 5)})


def features(height, width, batch=2):
    rng = np.random.default_rng(0)
    return {
        name: tf.constant(rng.normal(size=(batch, -(-height // s), -(-width // s), c)).astype('float32'))
        for name, (s, c) in SPEC.features.items()
    }


def make(**settings):
    layer = fpn(backbone=SPEC, norm=NormFactory('sync'), channels=6, **settings)
    layer(features(64, 64))
    rng = np.random.default_rng(1)
    for variable in layer.variables:
        if 'moving' not in variable.path:
            variable.assign(rng.normal(size=variable.shape, scale=0.3))
    return layer


@pytest.mark.parametrize('size', [(64, 64), (96, 160), (65, 33), (40, 100)])
@pytest.mark.parametrize('settings', [{}, {'extra_level': 'conv'}, {'use_norm': True}])
def test_sizes(size, settings):
    maps = make(**settings)(features(*size), size=None)
    assert list(maps) == ['p2', 'p3', 'p4', 'p5', 'p6']
    for level, (name, x) in enumerate(maps.items(), start=2):
        assert x.shape == (2, -(-size[0] // 2**level), -(-size[1] // 2**level), 6), name


def test_values():
    """Against loops: cell (i, j) gets cell (i // 2, j // 2) of the map above, also where a map has an odd side."""
    layer, given = make(), features(40, 100)
    maps = layer(given)

    def lateral(level):
        conv = layer.laterals[level - 2]
        return given[f'c{level}'].numpy() @ conv.kernel.numpy()[0, 0] + conv.bias.numpy()

    above = lateral(5)
    for level in (4, 3, 2):
        x = lateral(level)
        for i, j in np.ndindex(x.shape[1:3]):
            x[:, i, j] += above[:, i // 2, j // 2]
        above = x
        smoother = layer.smoothers[level - 2]
        expected = tf.nn.conv2d(x, smoother.kernel.value, 1, 'SAME') + smoother.bias.value
        np.testing.assert_allclose(maps[f'p{level}'], expected, atol=1e-4)
    np.testing.assert_array_equal(maps['p6'], maps['p5'].numpy()[:, ::2, ::2])


def test_extra_level_by_convolution():
    """Of stride 2, centred on every second cell whatever the size."""
    layer = make(extra_level='conv')
    for size in ((128, 64), (160, 96)):
        maps = layer(features(*size))
        padded = np.pad(maps['p5'], ((0, 0), (1, 1), (1, 1), (0, 0)))
        expected = tf.nn.conv2d(padded, layer.extra.kernel.value, 2, 'VALID') + layer.extra.bias.value
        np.testing.assert_allclose(maps['p6'], expected, atol=1e-4)


def test_normalised_has_no_bias_and_uses_the_batch_in_training():
    layer = make(use_norm=True)
    assert not [v.path for v in layer.variables if v.path.endswith('bias')]
    before = [v.numpy() for v in layer.non_trainable_variables]
    layer(features(64, 64), training=True)
    assert all(np.any(old != v.numpy()) for old, v in zip(before, layer.non_trainable_variables, strict=True))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'channels': 0}, 'decoders.fpn.channels = 0'),
        ({'extra_level': 'c6'}, "decoders.fpn.extra_level = 'c6': .*'pool'.*'conv'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        fpn(backbone=SPEC, norm=NormFactory(), **settings)


def test_dilated_backbone():
    spec = BackboneSpec({**SPEC.features, 'c5': FeatureMap(16, 8)})
    with pytest.raises(UserError, match=r'decoders.fpn: .*\[4, 8, 16, 16\]'):
        fpn(backbone=spec, norm=NormFactory())
