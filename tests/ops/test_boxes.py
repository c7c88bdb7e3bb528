"""Boxes and anchors against loops over boxes, and against torchvision's stored results."""

import numpy as np
import pytest
import tensorflow as tf

from seg.ops import anchors as anchors_lib
from seg.ops import boxes as boxes_lib
from tests.ops import detection_reference as reference


@pytest.fixture(scope='module')
def stored():
    return np.load(reference.REFERENCE)


def overlap(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0) * max(width, 0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if shared else 0.0


def test_iou_equals_a_loop():
    a, b = (np.stack([reference.boxes(seed + i, 9) for i in range(2)]).astype('float64') for seed in (0, 10))
    got = boxes_lib.iou(tf.constant(a), tf.constant(b))
    assert got.dtype == tf.float64
    expected = [[[overlap(x, y) for y in second] for x in first] for first, second in zip(a, b, strict=True)]
    np.testing.assert_allclose(got, expected, atol=1e-14)


def test_iou_equals_torchvision(stored):
    got = boxes_lib.iou(reference.boxes(6, 20), reference.boxes(7, 10))
    expected = np.nan_to_num(stored['iou'])  # 0 / 0 there.
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_iou_of_boxes_without_area_is_zero():
    boxes = np.array([[3, 3, 3, 3], [3, 0, 3, 9], [0, 0, 9, 9], [5, 5, 2, 2]], 'float32')
    got = np.asarray(boxes_lib.iou(boxes, boxes))
    np.testing.assert_array_equal(got, np.diag([0, 0, 1, 0]))
    np.testing.assert_array_equal(boxes_lib.area(boxes), [0, 0, 81, 0])


def test_boxes_in_half_precision_are_read_in_float32():
    boxes = tf.cast(reference.boxes(6, 20), 'bfloat16')
    got = boxes_lib.iou(boxes, boxes)
    assert got.dtype == tf.float32
    np.testing.assert_array_equal(got, boxes_lib.iou(tf.cast(boxes, 'float32'), tf.cast(boxes, 'float32')))
    assert boxes_lib.encode(boxes, boxes).dtype == boxes_lib.decode(boxes / 99, boxes).dtype == tf.float32


def test_clip():
    boxes = np.array([[[-3, -4, 5, 6], [8, 9, 30, 40], [-9, -9, -1, -1], [90, 91, 92, 93]]] * 2, 'float32')
    got = boxes_lib.clip(tf.constant(boxes), tf.constant([[20, 25], [100, 4]]))
    np.testing.assert_array_equal(got[0], [[0, 0, 5, 6], [8, 9, 20, 25], [0, 0, 0, 0], [20, 25, 20, 25]])
    np.testing.assert_array_equal(got[1], [[0, 0, 5, 4], [8, 4, 30, 4], [0, 0, 0, 0], [90, 4, 92, 4]])


WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def test_codes_equal_torchvision(stored):
    target, anchor = reference.boxes(8, 30)[4:], reference.boxes(9, 30)[4:]
    np.testing.assert_allclose(boxes_lib.encode(target, anchor, WEIGHTS), stored['encode'], rtol=1e-4, atol=1e-4)
    deltas = np.random.default_rng(10).normal(0, 5, (26, 4)).astype(np.float32)
    deltas[0] = (0, 0, 60, -60)
    np.testing.assert_allclose(boxes_lib.decode(deltas, anchor, WEIGHTS), stored['decode'], rtol=1e-5, atol=1e-3)


def test_code_is_in_the_order_of_its_weights():
    got = boxes_lib.encode(np.float32([[2, 4, 6, 20]]), np.float32([[0, 0, 2, 4]]), (1, 10, 100, 1000))
    np.testing.assert_allclose(got, [[1.5, 25, 100 * np.log(2), 1000 * np.log(4)]], rtol=1e-6)


def test_decode_undoes_encode_in_float64():
    boxes, anchors = reference.boxes(8, 30)[4:].astype('float64'), reference.boxes(9, 30)[4:].astype('float64')
    # Twice their height and width keeps the scales under the limit.
    anchors = np.concatenate([anchors[:, :2], anchors[:, 2:] + 10], axis=1)
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] + 5], axis=1)
    code = boxes_lib.encode(tf.constant(boxes), tf.constant(anchors), WEIGHTS)
    assert code.dtype == tf.float64
    np.testing.assert_allclose(boxes_lib.decode(code, tf.constant(anchors), WEIGHTS), boxes, atol=1e-11)


def test_growth_is_limited():
    anchor = np.float32([[0, 0, 16, 16]])
    got = boxes_lib.decode(np.float32([[0, 0, 1e4, -1e4]]), anchor)
    np.testing.assert_allclose(got, [[8 - 500, 8, 8 + 500, 8]], rtol=1e-5)


def test_codes_and_gradients_of_boxes_without_area_are_finite():
    flat = tf.constant(np.float32([[3, 3, 3, 3], [0, 0, 0, 0], [5, 5, 2, 2], [1, 2, 30, 40]]))
    with tf.GradientTape() as tape:
        tape.watch(flat)
        values = [boxes_lib.encode(flat, flat[::-1]), boxes_lib.iou(flat, flat)]
        values.append(boxes_lib.decode(tf.clip_by_value(values[0], -9, 9), flat))
        total = tf.add_n([tf.reduce_sum(value) for value in values])
    for value in (*values, tape.gradient(total, flat)):
        assert np.isfinite(value).all()


def test_anchors_equal_torchvision(stored):
    levels = anchors_lib.pyramid((96, 96), reference.STRIDES, ratios=(0.5, 1.0, 2.0), rounded=True)
    assert [len(level) for level in levels] == [24 * 24 * 3, 12 * 12 * 3, 6 * 6 * 3, 3 * 3 * 3]
    np.testing.assert_array_equal(np.concatenate(levels), stored['anchors'])


def test_anchors_equal_a_loop():
    """On a canvas that the strides do not divide, with two sizes and the TPU release's centres."""
    expected = []
    for y in range(3):
        for x in range(2):
            for size in (4 * 16, 4 * 16 * 2**0.5):
                for ratio in (1, 2, 0.5):
                    centre, half = np.array([y + 0.5, x + 0.5]) * 16, np.array([ratio**0.5, ratio**-0.5]) * size / 2
                    expected.append([*(centre - half), *(centre + half)])
    (got,) = anchors_lib.pyramid((33, 32), (16,), scale=4, octaves=2, offset=0.5)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_anchors_and_cells_have_the_same_centres():
    (got,) = anchors_lib.pyramid((8, 12), (4,), ratios=(1.0,))
    np.testing.assert_array_equal((got[:, :2] + got[:, 2:]) / 2, [[0, 0], [0, 4], [0, 8], [4, 0], [4, 4], [4, 8]])


def test_everything_compiles():
    boxes = tf.constant(reference.boxes(0, 12)[None])

    def run(boxes):
        code = boxes_lib.encode(boxes, boxes[:, ::-1], WEIGHTS)
        size = tf.constant([[40, 50]])
        return boxes_lib.iou(boxes, boxes), boxes_lib.clip(boxes_lib.decode(code, boxes[:, ::-1], WEIGHTS), size)

    for got, expected in zip(tf.function(run, jit_compile=True)(boxes), run(boxes), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)
