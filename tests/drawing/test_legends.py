"""The legend that stands by itself."""

import numpy as np

from seg import drawing


def test_a_line_per_class():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    image = drawing.legend(['road', 'a sky ' * 40, '東京'], colors)
    assert image.dtype == np.uint8 and image.shape[0] == 3 * 24 + 2 * 12 and 300 < image.shape[1] <= 480 + 2 * 12
    for i, color in enumerate(colors):
        rows, _ = np.nonzero((image == color).all(-1))
        assert rows.size > 100 and 12 + 24 * i <= rows.min() and rows.max() < 12 + 24 * (i + 1)
