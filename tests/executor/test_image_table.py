"""The images of an evaluation with small pictures."""

import io

import numpy as np
from PIL import Image

from seg.executor.image_table import ImageTable
from seg.structures import Panels


class Figure:
    """Two panels in a colour each."""

    def __init__(self, height=100, width=200):
        self._size = height, width

    def panels(self):
        return Panels('half', {'image': self._panel(200), 'truth': self._panel(40)})

    def _panel(self, value):
        return np.full((*self._size, 3), value, np.uint8)


class Bare:
    """A figure that has no parts, as one of a plugin."""

    def panels(self):
        return None


def test_scores_and_strips():
    table = ImageTable(4, lambda i: f'image {i}')
    large = Figure(480, 960)
    for index, score in ((2, 0.5), (0, float('nan')), (1, 0.25)):
        assert table.add(index, score)
        table.picture(index, Bare() if index == 1 else large if index == 2 else Figure())
    first, bare, last = table.images({2: (['worst 1'], large)})
    assert [(image.name, image.score) for image in (first, bare, last)] == [
        ('image 0', None), ('image 1', 0.25), ('image 2', 0.5)
    ]  # fmt: skip
    assert (bare.strip, bare.headings, last.chosen, first.chosen) == (b'', (), ('worst 1',), ())
    assert (first.caption, first.headings, first.size) == ('half', ('image', 'truth'), (100, 200))
    assert last.size == (240, 480)
    pixels = np.asarray(Image.open(io.BytesIO(first.strip)), int)
    assert pixels.shape == (100, 400, 3)
    assert abs(pixels[:, :199] - 200).max() <= 2 and abs(pixels[:, 201:] - 40).max() <= 2


def test_pictures_of_many_images_are_spread_and_small():
    before, table = ImageTable(5000, str, last=False), ImageTable(5000, str)
    assert sum(before.add(index, 0.5) for index in range(5000)) == 50
    wanted = [index for index in range(5000) if table.add(index, 0.5)]
    assert len(wanted) == 500 and set(np.diff(wanted)) == {10}
    table.picture(0, Figure(480, 960))
    image = table.images({})[0]
    assert max(image.size) < 200 and len(table.images({})) == 5000
