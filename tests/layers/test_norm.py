"""Normalisation: against Keras' own layers, and against the definition."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.ops.valid_cells import images_on_canvas


def data(seed=0, shape=(4, 6, 5, 8), dtype='float32'):
    return tf.constant(np.random.default_rng(seed).normal(2, 3, size=shape), dtype)


def keras_layer(**settings):
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3, **settings)


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 2e-5), ('float64', 1e-12)])
def test_sync_equals_keras(dtype, tolerance):
    """Outputs, gradients and moving statistics over three steps; the float64 one takes the neutral path.

    Keras' moving variance is the biased one.
    """
    layers = [NormFactory('sync', momentum=0.9, epsilon=1e-3)(name='norm'), keras_layer()]
    results = []
    for layer in layers:
        layer.dtype_policy = dtype
        steps = []
        for step in range(3):
            x = data(step, dtype=dtype)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(tf.sin(y))
            steps += [y, *tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])]
        if isinstance(layer, keras.layers.BatchNormalization):
            start, count = 0.9**3, 4 * 6 * 5
            layer.moving_variance.assign(start + (layer.moving_variance - start) * count / (count - 1))
        results.append([*steps, *(v.value for v in layer.variables), layer(data(9, dtype=dtype), training=False)])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        # Sums of 120 values in another order differ by sqrt(120) units of theirs.
        np.testing.assert_allclose(ours, theirs, rtol=120**0.5 * np.finfo(dtype).eps, atol=tolerance)


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-5), ('float64', 1e-9)])
@pytest.mark.parametrize('shape', [(2, 1, 1, 8), (1, 2, 1, 8), (8, 1, 1, 8), (4, 6, 5, 8)])
@pytest.mark.parametrize('compiled', [False, True])
def test_moving_variance_is_unbiased(shape, dtype, tolerance, compiled):
    """As torch.nn.BatchNorm2d has it: sum / (n - 1) is stored, sum / n normalises."""
    layer = NormFactory('sync', momentum=0.75, epsilon=1e-3)(name='norm')
    layer.dtype_policy = dtype
    x = data(shape=shape, dtype=dtype)
    y = tf.function(lambda x: layer(x, training=True), jit_compile=compiled)(x)
    values = tf.cast(x, 'float64').numpy().reshape(-1, 8)
    expected = (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-3)
    np.testing.assert_allclose(tf.reshape(y, (-1, 8)), expected, atol=10 * tolerance)
    np.testing.assert_allclose(layer.moving_mean.value, 0.25 * values.mean(0), atol=tolerance)
    stored = 0.75 + 0.25 * values.var(0, ddof=1)
    np.testing.assert_allclose(layer.moving_variance.value, stored, rtol=tolerance)


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('graph', [False, True])
def test_one_value_per_channel_is_refused(dtype, graph):
    """It has no variance. One message, as it is: no arguments of layers, no lines of code."""
    layer = NormFactory('sync')(name='norm')
    layer.dtype_policy = dtype
    run = lambda x: layer(x, training=True)  # noqa: E731
    run = tf.function(run, autograph=False) if graph else run
    with pytest.raises(UserError) as caught:
        run(data(shape=(1, 1, 1, 3), dtype=dtype))
    message = str(caught.value)
    for part in ("norm = 'sync'", "'norm'", '(1, 1, 1, 3)', "'group'", "'frozen'", 'batch'):
        assert part in message
    assert 'Exception' not in message and '\n' not in message


@pytest.mark.parametrize(('kind', 'training'), [('sync', False), ('frozen', True), ('group', True)])
def test_one_value_per_channel_is_enough_without_batch_statistics(kind, training):
    assert np.all(np.isfinite(NormFactory(kind)(name='norm')(data(shape=(1, 1, 1, 3)), training=training)))


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-4), ('float64', 1e-10)])
def test_group_statistics_are_those_of_the_image(dtype, tolerance):
    layer = NormFactory('group', groups=4)(name='norm')
    layer.dtype_policy = dtype
    x = data(dtype=dtype)
    layer.build(x.shape)
    layer.gamma.assign(np.arange(1, 9))
    layer.beta.assign(np.arange(8))
    size = np.int32([[21, 20], [1, 9], [12, 1], [24, 20]])  # Of 24 x 20 pixels, at stride 4.
    with images_on_canvas(tf.constant(size), (24, 20)):
        y = layer(x)
    assert y.dtype == dtype
    for i, (rows, columns) in enumerate(-(-size // 4)):
        alone = layer(x[i : i + 1, :rows, :columns])
        np.testing.assert_allclose(y[i, :rows, :columns], alone[0], atol=tolerance)


def test_frozen_never_moves_but_trains():
    layer = NormFactory('frozen', epsilon=1e-3)(name='norm')
    layer.build((None, None, None, 8))
    layer.moving_mean.assign(np.arange(8))
    layer.moving_variance.assign(np.arange(1, 9))
    before = [v.numpy() for v in layer.non_trainable_variables]
    x = data()
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
        loss = tf.reduce_sum(y * y)
    np.testing.assert_allclose(y, (x - np.arange(8)) / np.sqrt(np.arange(1, 9) + 1e-3), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(y, layer(x, training=False))
    for old, variable in zip(before, layer.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    assert [v.name for v in layer.trainable_variables] == ['gamma', 'beta']
    assert all(np.abs(g).max() > 0 for g in tape.gradient(loss, [v.value for v in layer.trainable_variables]))


@pytest.mark.parametrize(('channels', 'groups'), [(64, 32), (48, 24), (7, 7), (8, 8)])
def test_group_divides_the_channels(channels, groups):
    layer = NormFactory('group', epsilon=1e-3)(name='norm')
    x = data(shape=(2, 4, 3, channels))
    y = layer(x, training=True)
    assert layer.groups == groups
    grouped = tf.reshape(x, (2, 12, groups, channels // groups)).numpy()
    mean, var = grouped.mean((1, 3), keepdims=True), grouped.var((1, 3), keepdims=True)
    np.testing.assert_allclose(y, ((grouped - mean) / np.sqrt(var + 1e-3)).reshape(x.shape), atol=1e-4)


@pytest.mark.parametrize('kind', ['sync', 'frozen', 'group'])
def test_bfloat16_in_and_out_with_float32_statistics(kind):
    layer = NormFactory(kind)(name='norm')
    layer.dtype_policy = 'mixed_bfloat16'
    y = layer(data(dtype='bfloat16'), training=True)
    assert y.dtype == 'bfloat16'
    assert {v.dtype for v in layer.variables} == {'float32'}


@pytest.mark.parametrize('kind', ['sync', 'frozen', 'group'])
@pytest.mark.parametrize('training', [False, True])
def test_compiles(kind, training):
    layer = NormFactory(kind, momentum=0.9)(name='norm')
    plain = layer(data(), training=training)
    compiled = tf.function(lambda x: layer(x, training=training), jit_compile=True)(data())
    np.testing.assert_allclose(plain, compiled, atol=2e-5)


def test_gamma_initializer():
    layer = NormFactory('sync')(name='norm', gamma_initializer='zeros')
    assert np.abs(layer(data(), training=True)).max() == 0


def test_unknown_kind_names_slot_value_and_choices():
    with pytest.raises(UserError, match=r"NormFactory.norm = 'batch'.*'sync'.*'frozen'.*'group'"):
        NormFactory('batch')


@pytest.mark.parametrize(
    ('settings', 'slot'),
    [
        ({'momentum': 1.0}, 'norm_momentum = 1.0'),
        ({'epsilon': 0.0}, 'norm_epsilon = 0.0'),
        ({'groups': 0}, 'groups = 0'),
    ],
)
def test_refuses_settings(settings, slot):
    with pytest.raises(UserError, match=f'models.mine.{slot}'):
        NormFactory('sync', slot='models.mine', **settings)
