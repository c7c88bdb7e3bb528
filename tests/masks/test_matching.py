"""Which detection stands for which instance, and the overlap of boxes."""

import numpy as np

from seg.masks.matching import CROWD, NONE, match, paired_iou


def test_each_detection_takes_the_best_free_instance():
    ious = np.array(
        [
            [0.6, 0.7, 0.0, 0.9],  # The second instance; a crowd only takes what no instance takes.
            [0.5, 0.8, 0.0, 0.0],  # Its best is taken: the first.
            [0.9, 0.9, 0.0, 0.5],  # Nothing is free: the crowd.
            [0.0, 0.0, 0.0, 0.9],  # A crowd takes any number.
            [0.9, 0.9, 0.4, 0.4],  # Too little of the third, and of the crowd.
        ]
    )
    crowd = np.array([False, False, False, True])
    assert match(ious, crowd).tolist() == [1, 0, CROWD, CROWD, NONE]
    assert match(ious, crowd, threshold=0.4).tolist() == [1, 0, CROWD, CROWD, 2]


def test_the_last_of_equals_and_nothing_to_match():
    assert match(np.array([[0.7, 0.7]]), np.zeros(2, bool)).tolist() == [1]
    assert match(np.zeros((2, 0)), np.zeros(0, bool)).tolist() == [NONE, NONE]
    assert match(np.zeros((0, 2)), np.zeros(2, bool)).tolist() == []


def test_overlap_of_pairs():
    first = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 0, 0], [0, 0, np.nan, 2]], float)
    second = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2], [0, 0, 0, 0], [0, 0, 2, 2]], float)
    np.testing.assert_allclose(paired_iou(first, second), [1, 1 / 3, 0, 0, 0])
