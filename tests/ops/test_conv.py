"""Convolutions against loops over taps."""

import functools
import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from seg.ops import dispatch
from seg.ops.conv import conv2d, depthwise_conv2d


def convolved(x, kernel, stride, dilation):
    """Zero-padded correlation centred on cells 0, stride, 2 stride, ..."""
    height, width = x.shape[1:3]
    half = kernel.shape[0] // 2 * dilation
    x = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    total = 0
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            y, z = row * dilation, column * dilation
            total = total + x[:, y : y + height, z : z + width] @ kernel[row, column]
    return total[:, ::stride, ::stride]


@pytest.mark.parametrize('size', [(8, 11), (7, 6)])
@pytest.mark.parametrize(
    ('side', 'stride', 'dilation'), [(3, 1, 1), (3, 2, 1), (7, 2, 1), (1, 2, 1), (3, 1, 2), (3, 1, 12)]
)
def test_equals_reference(size, side, stride, dilation):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, *size, 4)), rng.normal(size=(side, side, 4, 5))
    got = conv2d(tf.constant(x), tf.constant(kernel), stride, dilation)
    np.testing.assert_allclose(got, convolved(x, kernel, stride, dilation), atol=1e-10)


@pytest.mark.parametrize('function', [conv2d, depthwise_conv2d])
def test_refuses_stride_with_dilation(function):
    with pytest.raises(ValueError, match='strides or dilates'):
        function(tf.ones([1, 8, 8, 1]), tf.ones([3, 3, 1, 1]), stride=2, dilation=2)


def with_gradients(function, x, kernel):
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = function(x, kernel)
        loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float64)))
    return [y, *tape.gradient(loss, [x, kernel])]


@pytest.mark.parametrize(
    ('rate', 'dtype', 'tolerance', 'compiled'),
    [
        *((rate, 'float64', 1e-11, False) for rate in (2, 5, 8, 12)),
        (2, 'float32', 1e-4, False),
        (2, 'bfloat16', 0.3, False),
        (2, 'float32', 1e-4, True),
        (12, 'float64', 1e-11, True),
    ],
)
def test_atrous_kernel_and_gradient_equal_the_neutral_form(rate, dtype, tolerance, compiled):
    """Rates from within the map of 8 x 11 to beyond it."""
    rng = np.random.default_rng(1)
    x, kernel = (tf.cast(rng.normal(size=shape), dtype) for shape in ((2, 8, 11, 6), (3, 3, 6, 4)))
    fast = tf.function(lambda x, k: dispatch.atrous_conv(x, k, rate), jit_compile=compiled)
    exact = [tf.cast(value, 'float64') for value in (x, kernel)]
    reference = with_gradients(lambda x, k: ops.conv(x, k, padding='same', dilation_rate=rate), *exact)
    for got, expected in zip(with_gradients(fast, x, kernel), reference, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(tf.cast(got, 'float64'), expected, atol=tolerance)


def test_atrous_of_unknown_sides():
    rng = np.random.default_rng(2)
    x, kernel = rng.normal(size=(2, 8, 11, 6)), tf.constant(rng.normal(size=(3, 3, 6, 4)))
    signature = [tf.TensorSpec([None, None, None, 6], tf.float64)]
    loose = tf.function(lambda x: dispatch.atrous_conv(x, kernel, 3), input_signature=signature)
    np.testing.assert_allclose(loose(x), convolved(x, kernel.numpy(), 1, 3), atol=1e-10)


def by_group(x, kernel, stride, rate):
    """One convolution for each group of channels."""
    groups = x.shape[3] // kernel.shape[2]
    parts = zip(ops.split(x, groups, 3), ops.split(kernel, groups, 3), strict=True)
    return ops.concatenate([conv2d(part, weights, stride, rate) for part, weights in parts], 3)


def assert_equal(function, neutral, x_shape, kernel_shape):
    """Values and gradients of a function and its neutral form, in float64."""
    rng = np.random.default_rng(4)
    x, kernel = (tf.constant(rng.normal(size=shape)) for shape in (x_shape, kernel_shape))
    for got, expected in zip(with_gradients(function, x, kernel), with_gradients(neutral, x, kernel), strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=1e-11)


def assert_near(function, neutral, x_shape, kernel_shape, terms, dtype, unit):
    """The same in lower precision, against float64; `terms` are those of a sum in the output.

    Some processors' kernels round each partial sum: the error of n terms is about sqrt(n) units of the largest sum, and
    in a gradient as much again, since what comes from above was rounded likewise.
    """
    rng = np.random.default_rng(5)
    x, kernel = (rng.normal(size=shape) for shape in (x_shape, kernel_shape))
    kernel *= 3 / terms**0.5  # Sums of about 3.
    x, kernel = (tf.cast(value, dtype) for value in (x, kernel))
    reference = with_gradients(neutral, *(tf.cast(value, 'float64') for value in (x, kernel)))
    terms = max(terms, np.prod(x_shape[:3]))  # The latter in the kernel's gradient.
    for got, expected in zip(with_gradients(function, x, kernel), reference, strict=True):
        assert got.dtype == dtype
        tolerance = 2 * unit * terms**0.5 * np.abs(expected).max()
        np.testing.assert_allclose(tf.cast(got, 'float64'), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize('size', [(8, 11), (2, 3)])
@pytest.mark.parametrize('side', [1, 3, 5])
@pytest.mark.parametrize(('stride', 'rate'), [(1, 1), (2, 1), (3, 1), (1, 2), (1, 12)])
def test_groups_and_their_gradient(size, side, stride, rate):
    """Three groups, which make four channels of two."""
    assert_equal(
        lambda x, k: conv2d(x, k, stride, rate),
        lambda x, k: by_group(x, k, stride, rate),
        (2, *size, 6),
        (side, side, 2, 12),
    )


@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize(('dtype', 'unit'), [('float32', 2**-23), ('bfloat16', 2**-8)])
def test_groups_in_lower_precision(dtype, unit, compiled):
    for side, stride, rate in [(3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 2, 1)]:
        fast = tf.function(lambda x, k, s=stride, r=rate: conv2d(x, k, s, r), jit_compile=compiled)
        neutral = functools.partial(by_group, stride=stride, rate=rate)
        assert_near(fast, neutral, (2, 8, 11, 32), (side, side, 8, 64), 8 * side**2, dtype, unit)


def test_groups_of_unknown_sides():
    rng = np.random.default_rng(9)
    x, kernel = tf.constant(rng.normal(size=(2, 8, 11, 6))), tf.constant(rng.normal(size=(3, 3, 2, 12)))
    for stride, rate in ((1, 1), (2, 1), (1, 3)):
        signature = [tf.TensorSpec([None, None, None, 6], tf.float64)]
        loose = tf.function(lambda x, s=stride, r=rate: conv2d(x, kernel, s, r), input_signature=signature)
        np.testing.assert_allclose(loose(x), by_group(x, kernel, stride, rate), atol=1e-11)


def neutral_depthwise(x, kernel, stride, rate):
    rows, columns = (side // 2 * rate for side in kernel.shape[:2])
    x = ops.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    return ops.depthwise_conv(x, kernel, strides=stride, padding='valid', dilation_rate=rate)


@pytest.mark.parametrize('size', [(8, 11), (2, 3)])
@pytest.mark.parametrize('side', [1, 3, 5, 7])
@pytest.mark.parametrize(('stride', 'rate'), [(1, 1), (2, 1), (3, 1), (1, 2), (1, 7), (1, 12)])
def test_depthwise_and_gradient_equal_the_neutral_form(size, side, stride, rate):
    """Even and odd sizes, kernels that are taken to pieces, rates from within the map to beyond it."""
    assert_equal(
        lambda x, k: depthwise_conv2d(x, k, stride, rate),
        lambda x, k: neutral_depthwise(x, k, stride, rate),
        (2, *size, 6),
        (side, side, 6, 1),
    )


@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize(('dtype', 'unit'), [('float32', 2**-23), ('bfloat16', 2**-8)])
def test_depthwise_in_lower_precision(dtype, unit, compiled):
    """On 16 channels, for which there are fast kernels; in half precision a strided gradient has a form of its own."""
    for side, stride, rate in [(3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 1), (7, 2, 1)]:
        fast = tf.function(lambda x, k, s=stride, r=rate: depthwise_conv2d(x, k, s, r), jit_compile=compiled)
        neutral = functools.partial(neutral_depthwise, stride=stride, rate=rate)
        assert_near(fast, neutral, (2, 8, 11, 16), (side, side, 16, 1), side**2, dtype, unit)


def test_depthwise_of_unknown_sides():
    rng = np.random.default_rng(6)
    x, kernel = tf.constant(rng.normal(size=(2, 8, 11, 6))), tf.constant(rng.normal(size=(3, 3, 6, 1)))
    for stride, rate in ((1, 1), (2, 1), (1, 3)):
        signature = [tf.TensorSpec([None, None, None, 6], tf.float64)]
        loose = tf.function(lambda x, s=stride, r=rate: depthwise_conv2d(x, kernel, s, r), input_signature=signature)
        np.testing.assert_allclose(loose(x), neutral_depthwise(x, kernel, stride, rate), atol=1e-11)


@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('shape', [(2, 5, 6, 4), (2, 1, 1, 4)])
def test_fused_batch_norm_equals_the_neutral_form(shape, training, compiled):
    rng = np.random.default_rng(3)
    x = tf.constant(rng.normal(3, 2, size=shape), tf.float32)
    gamma, beta, mean, variance = (tf.constant(rng.uniform(0.5, 2, size=4), tf.float32) for _ in range(4))

    def fused(x, gamma, beta):
        return dispatch.fused_batch_norm(x, gamma, beta, mean, variance, 1e-2, training)

    def neutral(x, gamma, beta):
        m, v = ops.moments(x, [0, 1, 2]) if training else (mean, variance)
        unbiased = np.prod(shape[:3]) / (np.prod(shape[:3]) - 1) if training else 1
        return (x - m) / ops.sqrt(v + 1e-2) * gamma + beta, m, v * unbiased

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            values = function(x, gamma, beta)
            loss = tf.reduce_sum(tf.sin(values[0]))
        return [*values, *tape.gradient(loss, [x, gamma, beta])]

    for got, expected in zip(gradients(tf.function(fused, jit_compile=compiled)), gradients(neutral), strict=True):
        # A gradient is a sum over all positions, which XLA adds in another order.
        np.testing.assert_allclose(got, expected, atol=2e-5, rtol=np.prod(shape[:3]) * 2.0**-24)


def test_graphs_with_written_gradients_are_freed():
    """TensorFlow's registry of gradients keeps every graph that `tf.custom_gradient` was called in."""
    x, kernel = tf.random.normal([1, 8, 8, 4]), tf.random.normal([3, 3, 4, 1])
    convolve = tf.function(lambda x: dispatch.depthwise_conv(x, kernel, 1, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = convolve(x)
    assert tape.gradient(y, x).shape == x.shape  # By the registry: the tape is outside of the graph.
    graph = weakref.ref(convolve.get_concrete_function(x).graph)
    del convolve, tape, y
    gc.collect()
    assert graph() is None
