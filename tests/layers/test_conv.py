"""Convolution with normalisation and activation; by stored statistics the former may be a part of the kernel."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from seg.layers.conv import ACTIVATIONS, ConvNorm, DepthwiseConvNorm
from seg.layers.norm import NormFactory


def make(kind, x_shape, **settings):
    """A built layer with variables away from their initial values."""
    settings = {'norm': NormFactory('sync'), 'name': 'layer', **settings}
    layer = ConvNorm(24, 3, **settings) if kind == 'full' else DepthwiseConvNorm(3, **settings)
    layer.build(x_shape)
    rng = np.random.default_rng(0)
    for variable in layer.variables:
        if variable.name == 'kernel':
            variable.assign(rng.normal(size=variable.shape, scale=0.3))
        elif variable.name in ('gamma', 'moving_variance'):
            variable.assign(rng.uniform(0.5, 2, size=variable.shape))
        else:
            variable.assign(rng.normal(size=variable.shape))
    return layer


def plain(layer, x):
    """The three parts one after the other, in x's precision."""
    y = layer.conv.convolve(x, layer.conv.kernel)
    mean, variance, gamma, beta = (
        ops.cast(getattr(layer.norm, name), x.dtype) for name in ('moving_mean', 'moving_variance', 'gamma', 'beta')
    )
    y = (y - mean) / ops.sqrt(variance + layer.norm.epsilon) * gamma + beta
    return {'relu': ops.relu, 'relu6': ops.relu6, None: lambda x: x}[layer.activation](y)


def random(shape, dtype):
    return tf.cast(np.random.default_rng(1).normal(size=shape, scale=3), dtype)


@pytest.fixture
def policy(request):
    before, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx('float64' if request.param == 'float64' else 'float32')
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ('policy', 'tolerance'), [('float64', 1e-11), ('float32', 2e-5), ('mixed_bfloat16', 0.1)], indirect=['policy']
)
@pytest.mark.parametrize('size', [(3, 4), (9, 16)])
@pytest.mark.parametrize('kind', ['full', 'depthwise'])
@pytest.mark.parametrize('settings', [{}, {'strides': 2}, {'dilation_rate': 2}])
@pytest.mark.parametrize('activation', ['relu', 'relu6', None])
def test_inference_equals_its_parts(policy, tolerance, size, kind, settings, activation):
    """On maps so small that the kernel stays as it is, and on larger ones.

    As a graph, too: there TensorFlow joins convolution, offset and activation, and its failed checks end the process.
    """
    layer = make(kind, (None, *size, 16), activation=activation, **settings)
    x = random((2, *size, 16), layer.compute_dtype)
    expected = plain(layer, tf.cast(x, 'float64'))
    scale = np.abs(expected).max()
    for run in (layer, tf.function(layer)):
        got = run(x)
        assert got.dtype == layer.compute_dtype
        np.testing.assert_allclose(tf.cast(got, 'float64') / scale, expected / scale, atol=tolerance)


def test_inference_has_one_form_for_every_batch_size():
    layer = make('full', (None, 9, 16, 16))
    x = random((4, 9, 16, 16), 'float32')
    alone = layer(x[:1])
    # A sum of 3 x 3 x 16 products, which the CPU's library may add in another order for another batch size.
    bound = 3 * 3 * 16 * 2.0**-24 * float(np.abs(alone).max())
    np.testing.assert_allclose(layer(x)[:1], alone, rtol=0, atol=bound)


def test_kernels_scale_only_where_that_is_less_work():
    layer = make('full', (None, 32, 32, 64))
    assert layer.conv.can_scale((2, 32, 32, 64)) and not layer.conv.can_scale((2, 16, 16, 64))
    assert layer.conv.can_scale((None, None, None, 64))
    assert make('depthwise', (None, 4, 4, 8)).conv.can_scale((2, 4, 4, 8))
    assert not make('depthwise', (None, 4, 4, 8), dilation_rate=2).conv.can_scale((2, 4, 4, 8))


@pytest.mark.parametrize('kind', ['full', 'depthwise'])
def test_frozen_normalisation_trains_its_scale_and_offset(kind):
    layer = make(kind, (None, 9, 16, 24), norm=NormFactory('frozen'))
    x = random((2, 9, 16, 24), 'float32')
    with tf.GradientTape() as tape:
        trained = layer(x, training=True)
        loss = tf.reduce_sum(tf.square(trained))
    gradients = tape.gradient(loss, [v.value for v in layer.trainable_variables])
    assert [v.name for v in layer.trainable_variables] == ['kernel', 'gamma', 'beta']
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    np.testing.assert_allclose(trained, layer(x, training=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('policy', ['float64'], indirect=True)
@pytest.mark.parametrize('activation', ['relu', 'relu6', None])
@pytest.mark.parametrize(('kind', 'size'), [('full', (9, 16)), ('full', (2, 2)), ('depthwise', (9, 16))])
def test_gradients_of_frozen_normalisation_are_those_of_its_parts(policy, kind, size, activation):
    """Also where the scale went into the kernel."""
    layer = make(kind, (None, *size, 16), norm=NormFactory('frozen'), activation=activation)
    x = random((2, *size, 16), layer.compute_dtype)
    gradients = []
    for run in (layer, lambda x, training: ACTIVATIONS[activation](layer.norm(layer.conv(x)))):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(run(x, training=True)))
        gradients.append(tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)]))
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9 * np.abs(other).max())


@pytest.mark.parametrize('policy', ['mixed_bfloat16'], indirect=True)
def test_group_normalisation_has_nothing_to_fold(policy):
    layer = make('full', (None, 9, 16, 24), norm=NormFactory('group'))
    x = random((2, 9, 16, 24), 'bfloat16')
    np.testing.assert_array_equal(
        tf.cast(layer(x, training=False), 'float32'), tf.cast(layer(x, training=True), 'float32')
    )


@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('dtype', ['float64', 'float32', 'bfloat16'])
def test_relu6_and_its_gradient(dtype, compiled):
    x = tf.constant([-np.inf, -3.0, -0.5, 0.0, 0.5, 5.5, 6.0, 6.5, np.inf], dtype)

    def run(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x, tf.cast(tf.range(1, 10), dtype))

    fast = tf.function(lambda: run(ACTIVATIONS['relu6']), jit_compile=compiled)()
    for got, expected in zip(fast, run(tf.nn.relu6), strict=True):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, expected)
