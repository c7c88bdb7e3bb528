"""Dropout per example."""

import numpy as np
import pytest
import tensorflow as tf

from seg.layers.dropout import Dropout

SEEDS = tf.constant([[1, 2], [3, 4], [5, 6], [7, 8]], tf.int32)


def test_rate_and_scale():
    y = Dropout(0.25, name='drop')(tf.ones([4, 32, 32, 16]), seed=SEEDS, training=True).numpy()
    np.testing.assert_array_equal(np.unique(y), np.float32([0, 1 / 0.75]))
    dropped = (y == 0).mean(axis=(1, 2, 3))
    assert abs(dropped - 0.25).max() < 5 * (0.25 * 0.75 / 32 / 32 / 16) ** 0.5


def test_does_nothing_unless_training():
    x = tf.random.normal([2, 3, 3, 4])
    assert Dropout(0.5, name='drop')(x) is x or np.array_equal(Dropout(0.5, name='drop')(x), x)
    np.testing.assert_array_equal(Dropout(0.0, name='drop')(x, training=True), x)


def test_needs_a_seed():
    with pytest.raises(ValueError, match='aspp_dropout.*seed'):
        Dropout(0.5, name='aspp_dropout')(tf.ones([1, 2, 2, 1]), training=True)


@pytest.mark.parametrize('rate', [-0.1, 1.0])
def test_refuses_rates(rate):
    with pytest.raises(ValueError, match='dropout rate'):
        Dropout(rate, name='drop')


def test_noise_belongs_to_the_example():
    layer, x = Dropout(0.5, name='drop'), tf.random.normal([4, 5, 6, 7])
    whole = layer(x, seed=SEEDS, training=True)
    halves = [layer(x[part], seed=SEEDS[part], training=True) for part in (slice(0, 2), slice(2, 4))]
    np.testing.assert_array_equal(whole, tf.concat(halves, 0))
    assert not np.array_equal(whole[0] == 0, whole[1] == 0)


def test_noise_follows_from_the_name():
    x = tf.ones([4, 8, 8, 4])
    one, same, other = (Dropout(0.5, name=name)(x, seed=SEEDS, training=True) for name in ('a', 'a', 'b'))
    np.testing.assert_array_equal(one, same)
    assert 0.4 < np.mean(np.equal(one, other)) < 0.6


@pytest.mark.parametrize('dtype', ['bfloat16', 'float64'])
def test_keeps_dtype(dtype):
    layer = Dropout(0.5, name='drop')
    layer.dtype_policy = dtype
    assert layer(tf.ones([4, 2, 2, 1], dtype), seed=SEEDS, training=True).dtype == dtype
