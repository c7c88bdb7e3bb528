"""Differences between the outputs of a file and of the checkpoint."""

import numpy as np
import pytest

from seg.export.comparison import Comparison


def maps(classes, confidence=0.9):
    return {'classes': np.array(classes), 'confidence': np.full(np.shape(classes), confidence, np.float32)}


def test_pixels_outside_do_not_count():
    found = Comparison('semantic')
    found.add(maps([[0, 1], [1, 1]]), maps([[0, 2], [2, 2]], 0.8), (1, 2))
    found.add(maps([[0, 1], [1, 1]]), maps([[0, 1], [1, 1]]), (2, 2))
    assert (found.differing, found.agreeing, found.total) == (1, 5, 6)
    assert found.largest == {'confidence': pytest.approx(0.1)} and found.finite


def test_probabilities_that_contradict_the_classes():
    found = Comparison('semantic')
    probabilities = {'probabilities': np.float32([[[0.9, 0.1], [0.8, 0.2]]])}
    found.add(maps([[0, 1]]), maps([[0, 1]]) | probabilities, (1, 2))
    assert found.differing == 1 and found.largest['probabilities'] == pytest.approx(0.1)


def detections(*rows, masks=None):
    """Outputs of three rows: (y0, x0, side, score, class) each."""
    out = {'boxes': np.zeros((3, 4)), 'scores': np.zeros(3), 'classes': np.full(3, -1)}
    out['masks'] = np.zeros((3, 4, 4)) if masks is None else masks
    for i, (y, x, side, score, label) in enumerate(rows):
        out['boxes'][i] = y, x, y + side, x + side
        out['scores'][i], out['classes'][i] = score, label
    return out


ONE, OTHER = (0, 0, 10, 0.9, 1), (20, 20, 10, 0.8, 0)


@pytest.mark.parametrize(
    ('after', 'differing', 'agreeing'),
    [
        ([ONE, OTHER], 0, 4),
        ([OTHER, ONE], 0, 4),  # The order does not count.
        ([ONE], 1, 2),
        ([ONE, OTHER, (40, 40, 5, 0.1, 0)], 1, 4),
        ([ONE, (20, 20, 10, 0.8, 1)], 2, 2),  # Another class.
        ([ONE, (20, 20, 10, 0.81, 0)], 2, 4),  # Another score.
        ([ONE, (20, 20.2, 10, 0.8, 0)], 2, 4),  # An IoU of 0.96.
        ([], 2, 0),
    ],
)
def test_detections(after, differing, agreeing):
    found = Comparison('instance')
    found.add(detections(ONE, OTHER), detections(*after), (64, 64))
    assert (found.differing, found.agreeing, found.total) == (differing, agreeing, 2 + len(after))


@pytest.mark.parametrize(('count', 'differing'), [(0, 2), (1, 1), (2, 0), (3, 1)])
def test_the_number_of_detections_counts(count, differing):
    found = Comparison('instance')
    found.add(detections(ONE, OTHER), detections(ONE, OTHER) | {'num_detections': np.int32(count)}, (64, 64))
    assert found.differing == differing


def test_detections_differ_by_their_masks():
    found = Comparison('instance')
    masks = np.zeros((3, 4, 4))
    masks[0, :2] = 0.9
    found.add(detections(ONE, masks=masks), detections(ONE, masks=masks[:, ::-1]), (64, 64))
    assert found.differing == 2 and found.largest['masks'] == pytest.approx(0.9)


def test_largest_differences_are_those_of_pairs():
    found = Comparison('instance')
    found.add(detections(ONE, OTHER), detections((0, 1, 10, 0.7, 1), (40, 40, 10, 0.8, 0)), (64, 64))
    assert found.largest == {'boxes': 1.0, 'scores': pytest.approx(0.2), 'masks': 0.0}


def test_a_number_that_is_none():
    found = Comparison('semantic')
    found.add(maps([[0]]), maps([[0]], np.nan), (1, 1))
    assert not found.finite


def test_an_empty_image():
    found = Comparison('instance')
    found.add(detections(), detections(), (8, 8))
    assert (found.differing, found.agreeing, found.total) == (0, 0, 0)
