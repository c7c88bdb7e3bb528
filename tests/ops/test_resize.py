"""Bilinear resizing against loops over pixels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.ops.resize import resize_images, upsample_bilinear
from seg.ops.valid_cells import images_on_canvas


def read(image, y, x):
    """Reads one image [H, W, C] between its cells; positions past an end read the end."""
    height, width = image.shape[:2]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(np.floor(y)), int(np.floor(x))
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = (1 - across) * image[top, left] + across * image[top, right]
    lower = (1 - across) * image[bottom, left] + across * image[bottom, right]
    return (1 - down) * upper + down * lower


def resized(images, size, source):
    height, width = images.shape[1:3]
    return np.array(
        [
            [
                [read(image, source(y, height, size[0]), source(x, width, size[1])) for x in range(size[1])]
                for y in range(size[0])
            ]
            for image in images
        ]
    )


def half_pixel(p, length, out):
    return (p + 0.5) * length / out - 0.5


def corners(p, length, out):
    return p * (length - 1) / (out - 1) if out > 1 else 0


SIZES = [((5, 4), (13, 9)), ((5, 4), (5, 4)), ((7, 9), (3, 4)), ((1, 1), (4, 3)), ((3, 2), (1, 1))]


@pytest.mark.parametrize('margin', [0, 3])
@pytest.mark.parametrize(('size', 'target'), SIZES)
def test_images_equal_the_reference_on_any_canvas(size, target, margin):
    """Two images, the second one of another size; what lies around them is not read."""
    rng = np.random.default_rng(0)
    sizes, targets = (np.array([side, [max(1, length - 1) for length in side]]) for side in (size, target))
    x = rng.normal(size=(2, *(length + margin for length in size), 3))
    canvas = tuple(length + margin for length in target)
    got = resize_images(tf.constant(x), tf.constant(sizes), tf.constant(targets), canvas)
    assert got.dtype == tf.float64 and got.shape == (2, *canvas, 3)
    for image, result, (h, w), (rows, columns) in zip(x, got.numpy(), sizes, targets, strict=True):
        expected = resized(image[None, :h, :w], (rows, columns), half_pixel)[0]
        np.testing.assert_allclose(result[:rows, :columns], expected, atol=1e-12)


@pytest.mark.parametrize(
    ('size', 'target', 'factor'), [((3, 4), (9, 16), 4), ((3, 4), (12, 13), 4), ((2, 1), (17, 3), 16)]
)
def test_upsample_reads_the_grid(size, target, factor):
    x = np.random.default_rng(1).normal(size=(2, *size, 3))
    got = upsample_bilinear(tf.constant(x), target, factor)
    np.testing.assert_allclose(got, resized(x, target, lambda p, *_: p / factor), atol=1e-12)


def test_upsample_is_align_corners_on_published_sizes():
    x = np.random.default_rng(2).normal(size=(1, 5, 9, 2))
    size = (4 * 16 + 1, 8 * 16 + 1)
    np.testing.assert_allclose(upsample_bilinear(tf.constant(x), size, 16), resized(x, size, corners), atol=1e-12)


def test_upsample_does_not_depend_on_the_canvas():
    x = np.random.default_rng(3).normal(size=(1, 6, 6, 2))
    small, large = (
        upsample_bilinear(tf.constant(x[:, :4, :4]), (13, 13), 4),
        upsample_bilinear(tf.constant(x), (24, 23), 4),
    )
    np.testing.assert_allclose(small, large[:, :13, :13], atol=1e-12)


@pytest.mark.parametrize('size', [(13, 16), (16, 9), (1, 4), (17, 20)])
def test_upsample_ends_with_the_image(size):
    """An image's last pixels read its last cells, as on a map that ends there."""
    x = np.random.default_rng(3).normal(size=(1, 6, 6, 2))
    rows, columns = (-(-side // 4) for side in size)
    alone = upsample_bilinear(tf.constant(x[:, :rows, :columns]), size, 4)
    with images_on_canvas(tf.constant([size]), (24, 24)):
        got = upsample_bilinear(tf.constant(x), (24, 24), 4)
    np.testing.assert_allclose(got[:, : size[0], : size[1]], alone, atol=1e-12)


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'bfloat16'])
def test_keeps_dtype(dtype):
    x = tf.ones([1, 3, 3, 2], dtype)
    size = tf.constant([[3, 3]])
    assert resize_images(x, size, 2 * size, (7, 6)).dtype == dtype
    assert upsample_bilinear(x, (6, 6), 2).dtype == dtype


def test_unknown_sides_and_xla():
    x = np.random.default_rng(4).normal(size=(2, 5, 4, 3)).astype('float32')
    expected = upsample_bilinear(tf.constant(x), (18, 16), 4)
    for settings in ({'input_signature': [tf.TensorSpec([None, None, None, 3])]}, {'jit_compile': True}):
        run = tf.function(lambda x: upsample_bilinear(x, (18, 16), 4), **settings)
        np.testing.assert_allclose(run(x), expected, atol=1e-6)


def test_in_a_functional_model_of_unknown_sides():
    image = keras.Input((None, None, 2))
    model = keras.Model(image, upsample_bilinear(image, (6, 8), 2))
    assert model.output_shape == (None, 6, 8, 2)
    x = np.random.default_rng(5).normal(size=(1, 3, 4, 2)).astype('float32')
    np.testing.assert_allclose(model(x), upsample_bilinear(tf.constant(x), (6, 8), 2), atol=1e-6)


def test_gradient_is_the_transpose():
    """<upsample(x), y> = <x, gradient at y>, and twice the same bits."""
    rng = np.random.default_rng(6)
    x, y = tf.constant(rng.normal(size=(1, 5, 3, 2))), tf.constant(rng.normal(size=(1, 17, 11, 2)))

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = upsample_bilinear(x, (17, 11), 4)
        return out, tape.gradient(out, x, y)

    out, first = gradient()
    np.testing.assert_allclose(tf.reduce_sum(out * y), tf.reduce_sum(x * first), rtol=1e-12)
    np.testing.assert_array_equal(first, gradient()[1])


@pytest.mark.parametrize('compiled', [False, True])
def test_upsample_in_float32_has_the_products_values_and_gradient(compiled):
    rng = np.random.default_rng(7)
    x, weight = rng.normal(size=(2, 5, 6, 3)), rng.normal(size=(2, 20, 24, 3))

    def run(dtype):
        image = tf.constant(x, dtype)
        with tf.GradientTape() as tape:
            tape.watch(image)
            out = upsample_bilinear(image, (20, 24), 4)
        return out, tape.gradient(out, image, tf.constant(weight, dtype))

    fast = tf.function(lambda: run('float32'), jit_compile=compiled)()
    for got, expected in zip(fast, run('float64'), strict=True):
        assert got.dtype == tf.float32
        np.testing.assert_allclose(got, expected, atol=5e-6)
