"""Strips of input, truth, prediction and errors."""

import sys

import numpy as np
import pytest

from seg.drawing import Comparison
from seg.drawing.comparison import WRONG, panel_size
from seg.drawing.labels import IGNORED
from seg.drawing.palette import voc_palette

NAMES = ('ground', 'tree', 'house')
COLORS = ((250, 250, 250), (0, 100, 0), (200, 0, 0))


def make(truth, classes, image=None, names=NAMES, colors=COLORS, name='image_1', ignore=255):
    truth = np.asarray(truth, np.int32)
    image = np.full((*truth.shape, 3), 200, np.uint8) if image is None else image
    classes = np.asarray(classes, np.int32)
    return Comparison(name, image, truth, classes, class_names=names, colors=colors, ignore_label=ignore)


def blocks(values, side=20):
    """Each value as a square of pixels."""
    return np.kron(np.asarray(values), np.ones((side, side), int))


def panels(strip, height, width):
    """The four panels of a strip, found by their frames' left edge."""
    row = next(y for y in range(len(strip)) if np.all(strip[y, 12 : 12 + width] == 160)) + 1
    edges = [x for x in range(strip.shape[1]) if np.all(strip[row : row + height, x] == 160)]
    lefts = [x + 1 for x in edges if x + width + 1 in edges]
    assert len(lefts) == 4
    return [strip[row : row + height, x : x + width] for x in lefts]


def colors_of(panel):
    return {tuple(map(int, color)) for color in panel.reshape(-1, 3)}


def test_numbers_are_of_labelled_pixels_only():
    made = make(blocks([[0, 0, 1], [2, 255, 255]]), blocks([[0, 1, 1], [0, 2, 2]]))
    # ground 1 / 3, tree 1 / 2, house 0 / 1.
    assert made.miou == pytest.approx((1 / 3 + 1 / 2 + 0) / 3) and made.wrong == pytest.approx(0.5)


def test_predictions_at_unlabelled_pixels_do_not_count():
    made = make(blocks([[0, 1], [255, 255]]), blocks([[0, 1], [2, 2]]))
    assert made.miou == 1.0 and made.wrong == 0.0


def test_parts_of_the_figure():
    made = make(blocks([[0, 0, 1]]), blocks([[0, 1, 1]]))
    parts = made.panels()
    assert list(parts.pixels) == ['image', 'truth', 'prediction', 'errors'] and parts.caption.startswith('mIoU 0.500')
    assert len({pixels.shape for pixels in parts.pixels.values()}) == 1
    assert colors_of(parts.pixels['truth']) == set(COLORS[:2]) and WRONG in colors_of(parts.pixels['errors'])


def test_panels():
    """Magnified threefold without mixing, right beside wrong beside ignored."""
    truth, classes = blocks([[0, 1], [255, 2]], 50), blocks([[0, 2], [1, 2]], 50)
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    shown_image, shown_truth, shown_classes, errors = panels(make(truth, classes, image).draw(), 300, 300)
    np.testing.assert_array_equal(shown_image[1::3, 1::3], image)
    palette = np.asarray([*COLORS, IGNORED])
    np.testing.assert_array_equal(shown_truth[::3, ::3], palette[np.where(truth == 255, 3, truth)])
    np.testing.assert_array_equal(shown_classes[2::3, 2::3], palette[classes])
    errors = errors[1::3, 1::3]
    assert colors_of(errors[:50, 50:]) == {WRONG} and colors_of(errors[50:, :50]) == {IGNORED}
    right = np.concatenate([errors[:50, :50], errors[50:, 50:]]).astype(int)
    assert np.ptp(right, axis=-1).max() == 0 and right.max() <= 0.36 * 255, 'a dimmed image without colour'
    grey = np.concatenate([image[:50, :50], image[50:, 50:]]) @ [0.299, 0.587, 0.114]
    assert np.corrcoef(grey.ravel(), right[..., 0].ravel())[0, 1] > 0.99


def test_errors_differ_by_brightness():
    """For colour-blind readers: relative luminance by WCAG 2, contrasts of neighbours."""

    def luminance(color):
        channels = np.asarray(color) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    brightest_right = luminance([0.35 * 255] * 3)
    assert (luminance(WRONG) + 0.05) / (brightest_right + 0.05) > 2.5
    assert (luminance(IGNORED) + 0.05) / (luminance(WRONG) + 0.05) > 1.8


def test_image_without_a_label():
    made = make(np.full((40, 60), 255), np.zeros((40, 60)))
    assert made.miou is None and made.wrong is None
    *_, truth, _, errors = panels(made.draw(), 200, 300)
    assert colors_of(truth) == colors_of(errors) == {IGNORED}


@pytest.mark.parametrize(
    'size, expected',
    [
        ((8, 8), (320, 320)),
        ((64, 96), (192, 288)),
        ((128, 128), (256, 256)),
        ((240, 100), (240, 100)),
        ((360, 480), (360, 480)),
        ((480, 481), (479, 480)),
        ((4000, 6000), (320, 480)),
        ((6000, 2), (480, 1)),
        ((1, 1), (320, 320)),
    ],
)
def test_panel_size(size, expected):
    assert panel_size(*size) == expected


@pytest.mark.parametrize('size', [(1, 1), (8, 8), (3, 200), (200, 3), (700, 1000), (6000, 2)])
def test_images_of_any_size(size):
    truth = np.zeros(size, np.int32)
    made = make(truth, truth)
    strip = made.draw()
    height, width = panel_size(*size)
    assert strip.dtype == np.uint8 and 560 <= strip.shape[1] <= 1968 and strip.shape[0] < height + 160
    assert colors_of(panels(strip, height, width)[1]) == {COLORS[0]}
    assert made.miou == 1.0


def test_large_images_shrink_without_new_labels():
    truth = np.random.default_rng(1).integers(0, 3, (1000, 1500))
    image, shown, _, _ = panels(make(truth, truth).draw(), 320, 480)
    assert colors_of(shown) == set(COLORS) and colors_of(image) == {(200, 200, 200)}


def test_memory_does_not_grow_with_the_image():
    truth = np.zeros((3000, 4000), np.int32)
    made = make(truth, truth)
    held = [value for value in vars(made).values() if isinstance(value, np.ndarray)]
    owners = [value if value.base is None else value.base for value in held]  # A view would hold the whole image.
    assert len(held) == 3 and sum(sys.getsizeof(owner) for owner in owners) < 1.5e6


def test_one_class_and_many():
    zeros = np.zeros((30, 40), np.int32)
    one = make(zeros, zeros, names=('nucleus',), colors=((255, 255, 255),))
    assert one.miou == 1.0 and one.draw().shape[0] < 400
    truth = np.arange(1200).reshape(30, 40) % 150
    names, colors = [f'thing {i}' for i in range(150)], voc_palette(150)
    few = make(truth % 5, truth % 5, names=names, colors=colors).draw()
    many = make(truth, truth, names=names, colors=colors).draw()
    assert many.shape[1] == few.shape[1] and few.shape[0] + 100 < many.shape[0] < few.shape[0] + 600


def ink(strip, y):
    """Whether the outermost columns, where the margins are, hold anything but ground."""
    return np.any(strip[y:, :11] != 255) or np.any(strip[y:, -11:] != 255)


@pytest.mark.parametrize(
    'names',
    [
        ('Straße', 'дорога', '道路'),
        ('$x_1$', '$\\frac{', '_hidden'),
        ('a' * 300, 'wide ' * 60, 'x'),
        ('two\nlines', ' ', 'tab\there'),
    ],
)
def test_any_names(names):
    """Nothing runs over the margins."""
    truth = blocks([[0, 1, 2]], 8)
    strip = make(truth, truth, names=names, name=f'folder/{"long " * 80}{names[0]}').draw()
    assert strip.shape[1] < 2000 and strip.shape[0] < 420
    assert not ink(strip, 0)


def test_label_that_is_no_class_is_drawn_as_ignored():
    made = make(blocks([[0, 9]]), blocks([[0, 1]]))
    assert made.wrong == 0.0 and IGNORED in colors_of(panels(made.draw(), 160, 320)[3])


@pytest.mark.parametrize('ignore', [0, -1, 65535])
def test_ignore_label_of_any_value(ignore):
    truth = np.where(blocks([[1, 2, 0]]) == 0, ignore, blocks([[1, 2, 0]]))
    made = make(truth, blocks([[1, 1, 0]]), ignore=ignore)
    assert made.wrong == pytest.approx(0.5)
    assert colors_of(panels(made.draw(), 100, 300)[1]) == {COLORS[1], COLORS[2], IGNORED}
