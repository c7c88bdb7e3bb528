"""Masks of regions against loops over bins."""

import numpy as np
import pytest
import tensorflow as tf

from seg.ops.masks import crop_masks


def cropped(mask, box, roi, size):
    """One region of one instance."""
    side = len(mask)
    out = np.zeros((size, size))
    (y0, x0, y1, x1), (top, left, bottom, right) = roi, box
    for i, j in np.ndindex(size, size):
        y, x = y0 + (i + 0.5) / size * (y1 - y0), x0 + (j + 0.5) / size * (x1 - x0)
        if bottom <= top or right <= left or not (top <= y <= bottom and left <= x <= right):
            continue
        v, w = (y - top) / (bottom - top) * side - 0.5, (x - left) / (right - left) * side - 0.5
        v, w = min(max(v, 0), side - 1), min(max(w, 0), side - 1)
        a, b = int(v), int(w)
        c, d = min(a + 1, side - 1), min(b + 1, side - 1)
        upper = mask[a, b] * (1 - w + b) + mask[a, d] * (w - b)
        lower = mask[c, b] * (1 - w + b) + mask[c, d] * (w - b)
        out[i, j] = upper * (1 - v + a) + lower * (v - a) >= 127.5 - 0.01  # As crop_masks counts a draw.
    return out


def instances(seed=0, side=9):
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 256, (2, 4, side, side)).astype(np.uint8)
    boxes = np.sort(rng.uniform(0, 50, (2, 4, 2, 2)), axis=2).reshape(2, 4, 4)
    boxes[0, 2, 2] = boxes[0, 2, 0]  # Without area.
    rois = np.sort(rng.uniform(-10, 60, (2, 6, 2, 2)), axis=2).reshape(2, 6, 4)
    rois[:, 0] = boxes[:, 1]
    index = rng.integers(0, 4, (2, 6)).astype(np.int32)
    index[0, :2] = (1, 2)
    index[1, 0] = 1
    return masks, boxes, index, rois


@pytest.mark.parametrize('size', [1, 7, 28])
def test_equals_a_loop(size):
    masks, boxes, index, rois = instances()
    got = crop_masks(masks, tf.constant(boxes), index, tf.constant(rois), size)
    assert got.dtype == tf.float32 and got.shape == (2, 6, size, size)
    expected = [
        [cropped(masks[b, index[b, p]].astype('float64'), boxes[b, index[b, p]], rois[b, p], size) for p in range(6)]
        for b in range(2)
    ]
    np.testing.assert_array_equal(got, expected)
    assert not np.any(got[0, 1])


def test_the_own_box_at_the_own_size_is_the_mask():
    masks = (np.random.default_rng(1).integers(0, 2, (1, 2, 8, 8)) * 255).astype(np.uint8)
    boxes = np.float32([[[4, 8, 36, 16], [0, 0, 8, 8]]])
    got = crop_masks(masks, boxes, np.int32([[1, 0]]), boxes[:, ::-1], 8)
    np.testing.assert_array_equal(got, masks[:, ::-1] / 255)


def test_half_counts_as_the_instance():
    """A bin between a cell of the instance and one outside of it, at equal distance."""
    masks = np.uint8([[[[255, 0], [255, 0]]]])
    box = np.float32([[[0, 0, 2, 2]]])
    np.testing.assert_array_equal(crop_masks(masks, box, np.int32([[0]]), box, 1), [[[[1]]]])


def test_compiles():
    masks, boxes, index, rois = instances()
    args = [tf.constant(masks), tf.constant(boxes), tf.constant(index), tf.constant(rois)]
    compiled = tf.function(lambda *args: crop_masks(*args, 14), jit_compile=True)
    np.testing.assert_array_equal(compiled(*args), crop_masks(*args, 14))
