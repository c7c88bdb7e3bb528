"""Class ids as colours."""

import numpy as np

from seg import drawing
from seg.drawing.palette import voc_palette

COLORS = ((10, 20, 30), (40, 50, 60))


def test_palette_png():
    classes = np.array([[0, 1, 2], [255, 0, 1]])
    image = drawing.palette_png(classes, voc_palette(3))
    assert image.mode == 'P' and image.size == (3, 2)
    np.testing.assert_array_equal(np.asarray(image), classes)
    assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]


def test_overlay():
    image = np.full((1, 3, 3), 100, np.uint8)
    found = drawing.overlay(image, np.array([[0, 1, 255]]), COLORS, opacity=0.25)
    np.testing.assert_array_equal(found, [[[78, 80, 82], [85, 88, 90], [100, 100, 100]]])
