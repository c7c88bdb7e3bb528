"""Stored values become class ids."""

import numpy as np
import pytest
import tensorflow as tf

from seg.datasets.label_maps.legend import COLORED, IGNORE, UNKNOWN, Legend


def legend(values, ids, ignored=(255,), by_color=False):
    return Legend(tuple('abcdef'[: len(values)]), values, np.array(ids, np.int32), ignored, 'here', by_color)


@pytest.mark.parametrize(
    'made',
    [
        legend((0, 1, 2), [0, 1, 2]),
        legend((0, 255), [0, 1], ()),
        legend((1, 2, 7), [1, IGNORE, 0], (0, 254)),
        legend((0, 1), [1, 0], (-1,)),
        legend((0x804080, 0), [1, 0], (), True),
        legend((0, 1, 2), [0, 2, 1], ()),
    ],
)
def test_lookup(made):
    values = np.array([[0, 1, 2, 7], [254, 255, -1, 256], [0x804080, 0x804081, 70000, COLORED + 5]], np.int32)
    found = made.lookup(tf.constant(values)).numpy()
    expected = np.vectorize(made.id_of)(values)
    known = expected != UNKNOWN
    np.testing.assert_array_equal(found[known], expected[known])
    if not made.plain:  # Otherwise unknown values stay as they are, for the check of every example.
        assert (found[~known] == UNKNOWN).all()


def test_texts():
    assert legend((0, 1, 2), [0, 1, 2]).shown_classes() == '0..2 from here; 255 is ignored'
    assert legend((0, 255), [0, 1], ()).shown_classes() == "0 'a', 255 'b' from here"
    assert '#804080' in legend((0x804080, 0), [1, 0], (), True).shown_classes()
    assert legend((0, 1), [0, 1]).shown_value(COLORED + 255) == '#0000ff'
