"""Polygons around masks: the centres of the set pixels lie inside, and no others."""

import numpy as np
import pytest
from matplotlib.path import Path

from seg.serving.outlines import polygons


def filled(found, shape):
    """The pixels whose centres lie in an odd number of rings."""
    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1)
    inside = np.zeros(len(centres), int)
    for rings in found:
        for ring in rings:
            inside += Path(np.reshape(ring, (-1, 2))).contains_points(centres)
    return (inside % 2 == 1).reshape(shape)


@pytest.mark.parametrize('seed', range(5))
def test_any_mask(seed):
    mask = np.random.default_rng(seed).random((13, 17)) < 0.5
    assert np.array_equal(filled(polygons(mask), mask.shape), mask)


def test_a_ring_has_a_hole_and_touches_the_border():
    mask = np.ones((6, 8), bool)
    mask[2:4, 2:5] = False
    ((outer, hole),) = polygons(mask)
    assert outer[:2] == outer[-2:] and hole[:2] == hole[-2:]
    assert (min(outer[::2]), max(outer[::2]), min(outer[1::2]), max(outer[1::2])) == (0, 8, 0, 6)
    assert np.array_equal(filled(polygons(mask), mask.shape), mask)


def test_nothing_and_a_single_pixel():
    assert polygons(np.zeros((4, 4), bool)) == []
    mask = np.zeros((4, 4), bool)
    mask[2, 3] = True
    assert len(polygons(mask)) == 1 and np.array_equal(filled(polygons(mask), mask.shape), mask)
