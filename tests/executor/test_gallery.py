"""Which images are drawn."""

import numpy as np
import pytest

from seg.executor.gallery import Gallery


class Page:
    def __init__(self, index):
        self._index = index

    def draw(self):
        return np.full((1, 1, 3), self._index, np.uint8)

    def panels(self):
        return None


def fill(gallery, scores, batch=1):
    """Shows the gallery all images in batches. Returns how many it asked for."""
    asked = 0
    for start in range(0, len(scores), batch):
        indices = np.arange(start, min(start + batch, len(scores)))
        for position in gallery.choose(indices, np.asarray(scores)[indices]):
            gallery.keep(indices[position], Page(indices[position]))
            asked += 1
    return asked


def shown(gallery):
    return {image.tag: int(image.pixels[0, 0, 0]) for image in gallery.figures()}


@pytest.mark.parametrize('batch', [1, 3, 4, 12])
def test_fixed_worst_and_best(batch):
    scores = [0.5, 0.9, 0.1, 0.7, 0.3, 0.9, 0.2, np.nan, 0.1, 0.6, 0.8, 0.4]
    gallery = Gallery(3, 12)
    fill(gallery, scores, batch)
    assert shown(gallery) == {
        'fixed/1': 0, 'fixed/2': 4, 'fixed/3': 8,
        'worst/1': 2, 'worst/2': 8, 'worst/3': 6,
        'best/1': 1, 'best/2': 5, 'best/3': 10,
    }  # fmt: skip
    assert all(image.photo for image in gallery.figures())


def test_images_without_a_score_are_only_ever_fixed():
    gallery = Gallery(1, 4)
    fill(gallery, [np.nan, 0.5, np.nan, np.nan])
    assert shown(gallery) == {'fixed/1': 0, 'worst/1': 1, 'best/1': 1}


def test_fewer_images_than_places():
    gallery = Gallery(4, 2)
    fill(gallery, [0.2, 0.1])
    assert shown(gallery) == {'fixed/1': 0, 'fixed/2': 1}


@pytest.mark.parametrize('batch', [1, 6])
def test_each_image_of_a_small_evaluation_is_shown_once(batch):
    gallery = Gallery(2, 6)
    fill(gallery, [0.5, 0.9, 0.1, 0.7, 0.3, 0.2], batch)
    expected = {'fixed/1': 0, 'fixed/2': 3, 'worst/1': 2, 'worst/2': 5, 'best/1': 1, 'best/2': 4}
    assert shown(gallery) == expected
    gallery = Gallery(2, 6)  # Two could not be read.
    fill(gallery, [0.5, 0.9, np.nan, 0.7, 0.3, np.nan], batch)
    assert shown(gallery) == {'fixed/1': 0, 'fixed/2': 3, 'worst/1': 4, 'worst/2': 1}


def test_rounding_of_another_batch_size_is_no_difference():
    one, other = Gallery(1, 4), Gallery(1, 4)
    fill(one, [0.3, 0.3 - 1e-9, 0.3, 0.3])
    fill(other, [0.3 - 1e-9, 0.3, 0.3, 0.3])
    assert shown(one) == shown(other) == {'fixed/1': 0, 'worst/1': 0, 'best/1': 0}


def test_only_what_may_be_drawn_is_requested_and_kept():
    random = np.random.default_rng(0)
    gallery = Gallery(4, 1000)
    asked = fill(gallery, random.random(1000), 8)
    assert asked < 90, 'about 4 + 2 * 4 * (1 + ln 250)'
    assert len(gallery._kept) == 12
    assert fill(Gallery(4, 100), np.zeros(100), 10) == 7, (
        'four spread over all, the first four; equals do not replace each other'
    )


def test_nothing():
    assert Gallery(0, 2).choose([0, 1], [0.5, 0.6]) == [] and Gallery(2, 2).figures() == []
