"""The legend that stands by itself."""

import numpy as np

from seg import drawing


def test_a_line_per_class():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    picture = drawing.legend(['road', 'a sky ' * 40, '東京'], colors)
    assert picture.dtype == np.uint8 and picture.shape[0] == 3 * 24 + 2 * 12 and 300 < picture.shape[1] <= 480 + 2 * 12
    for i, color in enumerate(colors):
        rows, _ = np.nonzero((picture == color).all(-1))
        assert rows.size > 100 and 12 + 24 * i <= rows.min() and rows.max() < 12 + 24 * (i + 1)
