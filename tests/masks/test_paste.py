"""Masks at the image's own size against interpolation point by point, and run lengths against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from seg.masks.paste import paste
from seg.masks.runs import patch_to_coco


def value_at(mask, y, x):
    """Bilinear value at a point in cells, by its definition; beyond the outermost centres theirs."""
    rows, columns = mask.shape
    y, x = np.clip(y - 0.5, 0, rows - 1), np.clip(x - 0.5, 0, columns - 1)
    y0, x0 = int(min(y, max(rows - 2, 0))), int(min(x, max(columns - 2, 0)))
    y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
    upper = mask[y0, x0] * (x0 + 1 - x) + mask[y0, x1] * (x - x0)
    lower = mask[y1, x0] * (x0 + 1 - x) + mask[y1, x1] * (x - x0)
    return upper * (y0 + 1 - y) + lower * (y - y0)


def whole(top, left, patch, height, width):
    frame = np.zeros((height, width), bool)
    frame[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return frame


@pytest.mark.parametrize('box', [(2.3, 4.8, 17.9, 11.2), (-6.2, -3.1, 9.7, 30.4), (5, 6, 12, 13), (0.2, 0.1, 23, 19.9)])
@pytest.mark.parametrize('shape', [(28, 28), (7, 5), (1, 1), (1, 3)])
def test_every_pixel_has_the_value_at_its_centre(box, shape):
    height, width = 23, 20
    mask = np.random.default_rng(1).random(shape)
    y0, x0, y1, x1 = box
    expected = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            if y0 <= y + 0.5 < y1 and x0 <= x + 0.5 < x1:
                at = (y + 0.5 - y0) / (y1 - y0) * shape[0], (x + 0.5 - x0) / (x1 - x0) * shape[1]
                expected[y, x] = value_at(mask, *at)
    for threshold in (0.3, 0.5):
        found = whole(*paste(mask, box, height, width, threshold), height, width)
        sure = np.abs(expected - threshold) > 1e-5
        np.testing.assert_array_equal(found[sure], (expected >= threshold)[sure])


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_cells_that_are_pixels_come_out_unchanged(dtype):
    mask = np.random.default_rng(2).random((9, 14)).astype(dtype)
    mask[0, 0] = 0.5
    top, left, patch = paste(mask, (3, 5, 12, 19), 40, 40)
    assert (top, left) == (3, 5) and patch.dtype == bool
    np.testing.assert_array_equal(patch, mask >= 0.5)


def test_a_tiny_instance_is_one_pixel_and_a_huge_one_is_the_image():
    full = np.ones((28, 28))
    for box in ((3.6, 3.6, 4.3, 4.3), (3.6, 0, 3.7, 1), (4.9, 5.0, 4.95, 5.01)):
        assert paste(full, box, 10, 10)[2].sum() == 1
    assert paste(full, (3.6, 3.6, 4.3, 4.3), 10, 10)[:2] == (3, 3)
    top, left, patch = paste(full, (-1e7, -1e12, 1e9, 1e9), 10, 12)
    assert (top, left) == (0, 0) and patch.shape == (10, 12) and patch.all()


@pytest.mark.parametrize(
    'box',
    [
        (3, 3, 3, 8), (8, 3, 3, 8), (3, 3, np.nan, 8), (-np.inf, 3, 5, 8), (0, 0, np.inf, 5),
        (-9, 3, -2, 8), (3, 12, 8, 19), (3, 11.9, 8, 12.4),
    ],
)  # fmt: skip
def test_nothing_is_pasted_of_an_impossible_box(box):
    top, left, patch = paste(np.ones((28, 28)), box, 10, 12)
    assert patch.size == 0
    assert patch_to_coco(top, left, patch, 10, 12) == coco_mask.encode(np.zeros((10, 12), np.uint8, order='F'))


def test_run_lengths_are_those_of_the_whole_image():
    random = np.random.default_rng(3)
    for number in range(400):
        height, width = random.integers(1, 4 if number % 4 == 0 else 50, 2)
        top, left = random.integers(0, height), random.integers(0, width)
        if number % 3 == 0:
            top, full = 0, True
        else:
            full = False
        h = height if full else random.integers(0, height - top + 1)
        patch = random.random((h, random.integers(0, width - left + 1))) < random.choice([0, 0.1, 0.5, 0.9, 1])
        frame = np.asfortranarray(whole(top, left, patch, height, width), np.uint8)
        assert patch_to_coco(top, left, patch, height, width) == coco_mask.encode(frame)


def test_run_lengths_of_a_large_image():
    """Runs and differences of runs that need all groups of bits, in both directions."""
    frame = np.zeros((3000, 4000), bool)
    frame[100:2900:3, 50:1000] = frame[:, 1200:3900] = True
    frame[7, 3950] = True
    assert patch_to_coco(0, 0, frame, 3000, 4000) == coco_mask.encode(np.asfortranarray(frame, np.uint8))
    np.testing.assert_array_equal(coco_mask.decode(patch_to_coco(0, 0, frame, 3000, 4000)), frame)
