"""Pasting of masks in the graph, against that on the host."""

import numpy as np
import pytest
import tensorflow as tf

from seg.export import image_bytes
from seg.masks import paste

SIZE = (23, 31)
BOXES = [
    (2.3, 4.1, 15.8, 20.2),
    (-3.0, -2.0, 9.5, 40.0),  # Beyond the image.
    (5.6, 5.6, 5.9, 5.9),  # No centre of a pixel inside.
    (0.0, 0.0, 23.0, 31.0),
    (7.0, 7.0, 7.0, 9.0),  # No area.
]


@pytest.mark.parametrize('box', BOXES)
def test_pasted(box):
    mask = np.random.default_rng(0).uniform(0, 1, (6, 6)).astype(np.float32)
    top, left, patch = paste.paste(mask, box, *SIZE)
    expected = np.zeros(SIZE, np.uint8)
    expected[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    found = image_bytes._pasted(tf.constant(mask), tf.constant(box, tf.float64), tf.constant(SIZE))
    np.testing.assert_array_equal(found, expected)


def test_detections_of_a_larger_image():
    """Two of three rows hold a detection; the image is twice as large as on the canvas."""
    masks = np.random.default_rng(1).uniform(0, 1, (3, 6, 6)).astype(np.float32)
    boxes = np.float32([[1, 2, 7, 9], [3, 3, 12, 14], [0, 0, 0, 0]])
    found = {'boxes': boxes, 'scores': np.float32([0.9, 0.8, 0]), 'classes': np.int32([1, 0, -1]), 'masks': masks}

    def network(images, sizes):
        np.testing.assert_array_equal(sizes, [[11, 16]])
        assert images.shape == (1, 16, 16, 3)
        outputs = {name: tf.constant(value)[None] for name, value in found.items()}
        return outputs | {'num_detections': tf.constant([2])}

    content = tf.io.encode_png(np.zeros((22, 32, 3), np.uint8))
    got = image_bytes.of_bytes(network, 'instance', (16, 16), fills=False)(content)
    expected = paste.detections(found, (11, 16), (22, 32))
    np.testing.assert_allclose(got['boxes'], expected.boxes)
    np.testing.assert_array_equal(got['classes'], expected.classes)
    np.testing.assert_array_equal(got['scores'], expected.scores)
    assert got['num_detections'] == 2 and got['masks'].shape == (2, 22, 32)
    assert [int(mask.numpy().sum()) for mask in got['masks']] == [area(mask) for mask in expected.masks]


def area(encoded):
    from pycocotools import mask

    return int(mask.area(encoded))
