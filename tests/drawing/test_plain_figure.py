"""Figures of images and maps side by side."""

import numpy as np
import pytest

from seg.drawing import PlainFigure


@pytest.mark.parametrize('shape', [(40, 60), (900, 500)])
def test_panels_of_one_size(shape):
    """Small ones are magnified, large ones shrunk; shades beyond 0 to 255 are clipped."""
    image = np.full((*shape, 3), (250, 10, 10), np.float32)
    made = PlainFigure('a name', 'error 0.5', {'image': image, 'depth': np.full(shape, 300.0)})
    pixels = made.draw()
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and max(pixels.shape) < 1200
    red = np.all(pixels == (250, 10, 10), -1)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert abs(len(rows) / len(columns) - shape[0] / shape[1]) < 0.02
    assert np.all(pixels[rows[0] : rows[-1], columns[-1] + 12 : columns[-1] + len(columns)] == 255)
