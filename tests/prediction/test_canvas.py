"""From an image to canvases and back: sizes, scales, bands, windows, seams."""

import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from seg.prediction import canvas
from tests.prediction import fakes

CANVAS = (32, 48)


def plan(image, large='shrink', overlap=0.25, probabilities=True, size=CANVAS):
    return canvas.plan(image, size, large, overlap, probabilities)


def together(made, model=fakes.colours):
    """Classes, confidences and probabilities of a whole plan."""
    results = []
    for number in range(made.windows):
        pixels = made.window(number)
        assert pixels.shape[0] <= CANVAS[0] and pixels.shape[1] <= CANVAS[1] and pixels.dtype == np.uint8
        probabilities = model(pixels)
        values = {'probabilities': probabilities, 'classes': probabilities.argmax(-1)}
        values['confidence'] = probabilities.max(-1)
        results.append({key: values[key] for key in made.keys})
    bands, row = [], 0
    for band in made.prediction(iter(results)):
        assert band.top == row
        row += len(band.classes)
        bands.append([np.array(part) for part in band[1:]])
    return [np.concatenate(parts) for parts in zip(*bands, strict=True)]


# ---- Images that fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(32, 48), (1, 1), (20, 48), (32, 7)])
@pytest.mark.parametrize('large', ['shrink', 'tile'])
def test_an_image_that_fits_is_unchanged(size, large):
    """And so both ways of treating large images agree on it to the bit."""
    image = fakes.noise(*size)
    made = plan(image, large)
    assert made.windows == 1 and made.scale == 1
    classes, confidence, probabilities = together(made)
    np.testing.assert_array_equal(made.window(0), image)
    np.testing.assert_array_equal(probabilities, fakes.colours(image))
    np.testing.assert_array_equal(classes, fakes.colours(image).argmax(-1))
    np.testing.assert_array_equal(confidence, fakes.colours(image).max(-1))


def test_probabilities_stay_on_the_device_unless_they_are_needed():
    assert plan(fakes.noise(9, 9), probabilities=False).keys == ('classes', 'confidence')
    assert plan(fakes.noise(99, 99), probabilities=False).keys == ('probabilities',)


# ---- Shrunk ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('size', 'small'),
    [
        ((64, 96), (32, 48)),
        ((33, 48), (32, 47)),
        ((32, 49), (31, 48)),
        ((480, 70), (32, 5)),
        ((96, 64), (32, 21)),
        ((3000, 1), (32, 1)),
        ((2, 4000), (1, 48)),
    ],
)
def test_shrunk_onto_the_canvas(size, small):
    made = plan(fakes.noise(*size))
    assert made.window(0).shape == (*small, 3) and made.windows == 1
    assert made.scale == pytest.approx(min(32 / size[0], 48 / size[1]))
    classes, confidence, probabilities = together(made)
    assert classes.shape == confidence.shape == size and probabilities.shape == (*size, 3)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(classes, probabilities.argmax(-1))
    np.testing.assert_array_equal(confidence, probabilities.max(-1))


def test_shrinking_counts_every_pixel():
    """A thin bright line, one pixel in sixteen, would get lost or stand out without antialiasing."""
    image = np.zeros((512, 768, 3), np.uint8)
    image[::16] = 255
    small = plan(image).window(0)
    assert small.shape == (32, 48, 3)
    np.testing.assert_allclose(small[1:-1], 255 / 16, atol=3)


def test_places_are_kept():
    """A large square is found where it is."""
    image = np.zeros((320, 480, 3), np.uint8)
    image[..., 0] = 200
    image[100:200, 250:350] = (0, 0, 200)
    classes = together(plan(image))[0]
    truth = np.where(image[..., 2] > 0, 2, 0)
    assert np.mean(classes != truth) < 0.005
    rows, columns = np.nonzero(classes == 2)
    assert abs(rows.mean() - 149.5) < 0.6 and abs(columns.mean() - 299.5) < 0.6


@pytest.mark.parametrize(
    ('size', 'out'), [((5, 7), (50, 23)), ((1, 1), (9, 4)), ((3, 8), (3, 80)), ((32, 21), (96, 64))]
)
def test_upscaling_is_that_of_tensorflow(size, out):
    values = np.random.default_rng(0).random((*size, 4), np.float32)
    expected = tf.image.resize(values, out, 'bilinear').numpy()
    for rows in (None, 1, 7):
        bands = list(canvas.upscaled(values, out, rows))
        assert [top for top, _ in bands] == list(range(0, out[0], rows or out[0]))
        np.testing.assert_allclose(np.concatenate([band for _, band in bands]), expected, atol=3e-6)


def test_bands_are_the_whole_to_the_bit():
    values = np.random.default_rng(0).random((31, 48, 5), np.float32)
    ((_, whole),) = canvas.upscaled(values, (317, 430), 317)
    for rows in (1, 10, 316):
        np.testing.assert_array_equal(
            np.concatenate([band for _, band in canvas.upscaled(values, (317, 430), rows)]), whole
        )


def test_memory_of_a_large_image_is_bounded():
    """Its probabilities at its own size would take 480 MB."""
    values = np.random.default_rng(0).random((32, 48, 20), np.float32)
    tracemalloc.start()
    rows = sum(len(band) for _, band in canvas.upscaled(values, (2000, 3000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 2000 and peak < 30e6


# ---- Tiled -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(33, 48), (64, 96), (100, 47), (20, 300), (77, 131), (500, 49)])
@pytest.mark.parametrize('overlap', [0.0, 0.25, 0.9])
def test_windows_leave_no_seams(size, overlap):
    """A model without context gives the same result in every window."""
    image = fakes.noise(*size)
    made = plan(image, 'tile', overlap)
    assert made.windows > 1 and made.scale == 1
    classes, confidence, probabilities = together(made)
    expected = fakes.colours(image)
    np.testing.assert_allclose(probabilities, expected, atol=2e-6)
    np.testing.assert_array_equal(classes, probabilities.argmax(-1))
    np.testing.assert_allclose(confidence, expected.max(-1), atol=2e-6)


def test_a_constant_stays_constant():
    made = plan(fakes.noise(200, 150), 'tile')
    probabilities = together(made, lambda pixels: np.full((*pixels.shape[:2], 3), [0.5, 0.25, 0.25], np.float32))[2]
    np.testing.assert_allclose(probabilities, np.broadcast_to([0.5, 0.25, 0.25], probabilities.shape), atol=1e-6)


def test_windows_that_disagree_blend():
    """Numbered windows: where they overlap, there is no step from one to the next, and a centre is its window's own."""
    made = plan(np.zeros((32, 200, 3), np.uint8), 'tile', 0.5)
    numbers = iter(range(made.windows))

    def model(pixels):
        share = np.float32(next(numbers) % 2)
        return np.broadcast_to(np.float32([share, 1 - share]), (*pixels.shape[:2], 2))

    probabilities = together(made, model)[2][0, :, 0]
    assert np.abs(np.diff(probabilities)).max() < 0.1 and probabilities[0] == 0 and probabilities.max() > 0.9


def test_every_window_is_as_large_as_the_canvas():
    """Also the last ones: the windows are spread evenly, and overlap at least as much as they should."""
    for length in range(48, 400, 7):
        for overlap in (0.0, 0.25, 0.5, 0.9):
            axis = canvas._Axis(length, 48, overlap)
            assert axis.starts[0] == 0 and axis.starts[-1] == length - 48
            assert all(1 <= gap <= max(1, 48 * (1 - overlap)) for gap in np.diff(axis.starts))
            sums = np.zeros(length)
            for start, weights in zip(axis.starts, axis.weights, strict=True):
                sums[start : start + 48] += weights
                assert weights.min() > 0
            np.testing.assert_allclose(sums, 1, atol=1e-6)


def test_memory_of_many_windows_is_bounded():
    """They come one by one, and nothing of the rows that are done is kept."""

    def peak(height):
        made = plan(np.zeros((height, 300, 3), np.uint8), 'tile')
        results = ({'probabilities': np.zeros((32, 48, 20), np.float32)} for _ in range(made.windows))
        tracemalloc.start()
        assert sum(len(band.classes) for band in made.prediction(results)) == height
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(2000) < 1.1 * peak(200)
