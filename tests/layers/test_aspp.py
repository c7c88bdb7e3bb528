"""Atrous spatial pyramid pooling."""

import numpy as np
import pytest
import tensorflow as tf

from seg.layers.aspp import ASPP, valid_mean
from seg.layers.norm import NormFactory

SEEDS = tf.constant([[1, 2], [3, 4]], tf.int32)
SIZE = tf.constant([[33, 64], [32, 1]], tf.int32)  # At stride 16: 3 x 4 and 2 x 1 valid cells.


def maps(seed=0, shape=(2, 5, 6, 8), dtype='float32'):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def make(groups=32, **settings):
    settings = {'stride': 16, 'separable': False, 'dropout': 0.1, 'image_pooling': True, **settings}
    return ASPP(12, (2, 6, 40), norm=NormFactory('group', groups=groups), name='aspp', **settings)


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'bfloat16'])
def test_valid_mean(dtype):
    x = maps(dtype=dtype)
    got = valid_mean(x, SIZE, 16)
    assert got.dtype == dtype and got.shape == (2, 1, 1, 8)
    exact = tf.cast(x, 'float64').numpy()
    expected = [exact[0, :3, :4].mean((0, 1)), exact[1, :2, :1].mean((0, 1))]
    np.testing.assert_allclose(tf.cast(got, 'float64')[:, 0, 0], expected, atol=1e-2 if dtype == 'bfloat16' else 1e-6)


def test_valid_mean_of_nothing_is_zero():
    assert np.abs(valid_mean(maps(), tf.zeros([2, 2], tf.int32), 16)).max() == 0


def test_valid_mean_ignores_the_padding():
    x = maps().numpy()
    other = x.copy()
    other[0, 3:] = 1e3
    other[0, :, 4:] = -1e3
    other[1, 2:] = 7
    other[1, :, 1:] = 8
    np.testing.assert_array_equal(valid_mean(tf.constant(x), SIZE, 16), valid_mean(tf.constant(other), SIZE, 16))


@pytest.mark.parametrize('separable', [False, True])
@pytest.mark.parametrize('image_pooling', [False, True])
def test_shapes_and_rates_beyond_the_map(separable, image_pooling):
    layer = make(separable=separable, image_pooling=image_pooling)
    y = layer(maps(), SIZE, seed=SEEDS, training=True)
    assert y.shape == (2, 5, 6, 12)
    paths = [v.path for v in layer.variables]
    assert len(set(paths)) == len(paths)
    assert any('image_pooling' in path for path in paths) == image_pooling
    assert any('depthwise' in path for path in paths) == separable


def test_only_the_pooled_branch_reads_size():
    layer = make(image_pooling=False)
    np.testing.assert_array_equal(layer(maps(), SIZE), layer(maps(), tf.ones_like(SIZE)))
    # The pooled branch adds the same to all cells of a channel: alone in its group, the channel would lose it.
    layer = make(groups=2)
    assert not np.allclose(layer(maps(), SIZE), layer(maps(), tf.ones_like(SIZE)))


def test_dropout_needs_and_uses_the_seed():
    layer = make(dropout=0.5)
    one, same, other = (layer(maps(), SIZE, seed=seed, training=True) for seed in (SEEDS, SEEDS, SEEDS + 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_tap_beyond_the_map_sees_zeros():
    """With rate 40 on a 5 x 6 map only the centre tap counts."""
    layer = make()
    layer(maps(), SIZE)
    branch = layer.branches[-1]
    before = branch(maps())
    kernel = branch.conv.kernel.numpy()
    kernel[[0, 2]] = 5
    kernel[:, [0, 2]] = 5
    branch.conv.kernel.assign(kernel)
    np.testing.assert_allclose(branch(maps()), before, atol=1e-6)
