"""Helpers for augments of both targets: image, label map, boxes and masks move together."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.augments import base, instances
from seg.augments.copy_paste import copy_paste
from seg.datasets.base import TARGETS
from seg.structures import PAD_PIXEL
from tests.augments.test_instances import crops, scene

PAD = 4  # Rows and columns of padding.


def example(height=40, width=40):
    """A scene of both targets, padded: the label of a pixel is the last mask that covers it, counted from 1."""
    loaded, masks = scene(height, width)
    begun = instances.begin(loaded)
    label = np.full([height + PAD, width + PAD], 255, np.int32)
    label[:height, :width] = 0
    for n, mask in enumerate(masks):
        label[:height, :width][mask] = n + 1
    image = np.tile(np.float32(PAD_PIXEL), [height + PAD, width + PAD, 1])
    image[:height, :width] = loaded['image']
    return begun | {'image': tf.constant(image), 'label': tf.constant(label)}, masks


def painted(made):
    """The masks of an example with a square valid part as they are seen in it, bool [N, H, W]."""
    height, width = made['size'].numpy().tolist()
    assert height == width
    whole = tf.tile([[0.0, 0.0, float(height), float(width)]], [len(made['boxes']), 1])
    return crops(made | {'boxes': whole}, height) > 0


def test_fields_are_those_of_an_example():
    """The tables, what a data set gives with `begin`, and what the tests here have."""
    begun = instances.begin(scene()[0], keras.config.floatx())
    assert begun.keys() == base.FIELDS['instances'].keys()
    for key, field in base.FIELDS['instances'].items():
        assert begun[key].dtype == field.dtype and len(begun[key].shape) == field.shape.count(',') + 1, key
    assert set(base.FIELDS) == set(TARGETS)
    assert {'image', 'size', 'label'} == base.FIELDS['label_map'].keys()


@pytest.mark.parametrize('axis', [0, 1])
def test_mirror(axis):
    before, masks = example()
    made = tf.function(lambda e: base.mirror(e, axis, tf.constant(True)))(before)
    inside = slice(40), slice(40)
    for key in ('image', 'label'):
        np.testing.assert_array_equal(made[key].numpy()[inside], np.flip(before[key].numpy()[inside], axis), key)
        np.testing.assert_array_equal(made[key][40:], before[key][40:], key)
        np.testing.assert_array_equal(made[key][:, 40:], before[key][:, 40:], key)
    np.testing.assert_array_equal(painted(made), np.flip(masks, axis + 1))
    same = base.mirror(before, axis, tf.constant(False))
    for key in ('image', 'label', 'boxes', 'view'):
        np.testing.assert_array_equal(same[key], before[key], key)


def test_transpose():
    before, masks = example(40, 40)
    made = base.transpose(before)
    np.testing.assert_array_equal(made['label'], before['label'].numpy().T)
    np.testing.assert_array_equal(made['image'], before['image'].numpy().transpose(1, 0, 2))
    np.testing.assert_array_equal(made['boxes'], before['boxes'].numpy()[:, [1, 0, 3, 2]])
    np.testing.assert_array_equal(painted(made), masks.transpose(0, 2, 1))
    assert made['image'].shape == (44, 44, 3)
    wide = base.transpose(example(20, 30)[0], tf.constant(True))
    assert wide['size'].numpy().tolist() == [30, 20] and wide['image'].shape == (34, 24, 3)
    same = base.transpose(before, tf.constant(False))
    for key in ('image', 'label', 'boxes', 'view', 'size'):
        np.testing.assert_array_equal(same[key], before[key], key)


@pytest.mark.parametrize('symmetry', range(8))
def test_all_turns_and_mirror_images(symmetry):
    """Masks over their boxes are the crops of the moved masks, whatever was done before and after."""
    swap, down, across = (bool(symmetry & bit) for bit in (1, 2, 4))
    before, masks = example()
    made = base.mirror(base.mirror(base.transpose(before, swap), 0, down), 1, across)
    expected = masks.transpose(0, 2, 1) if swap else masks
    expected = np.flip(expected, [axis for axis, flag in ((1, down), (2, across)) if flag])
    np.testing.assert_array_equal(painted(made), expected)
    for box, mask in zip(made['boxes'].numpy(), expected, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    back = base.transpose(base.mirror(base.mirror(made, 1, across), 0, down), swap)
    for key in ('image', 'label', 'boxes', 'area', 'size'):
        np.testing.assert_array_equal(back[key], before[key], key)
    np.testing.assert_array_equal(painted(back), masks)


def test_crop():
    before, masks = example()
    made = base.crop(before, tf.constant([5, 8]), (24, 24))
    assert made['image'].shape == (24, 24, 3) and made['label'].shape == (24, 24)
    np.testing.assert_array_equal(made['label'], before['label'][5:29, 8:32])
    kept = made['classes'].numpy()
    np.testing.assert_array_equal(painted(made), masks[kept, 5:29, 8:32])
    gone = [n for n in range(len(masks)) if n not in kept]
    assert len(kept) and not any(masks[n, 5:29, 8:32].any() for n in gone)


def test_colors_change_inside_only():
    before, _ = example()
    made = base.change_colors(before, lambda pixels: 2.0 * pixels - 100.0)
    expected = np.clip(2 * before['image'].numpy()[:40, :40] - 100, 0, 255)
    np.testing.assert_array_equal(made['image'][:40, :40], expected)
    np.testing.assert_array_equal(made['image'][40:], before['image'][40:])
    assert made['image'].shape == before['image'].shape


def test_transposed_instances_are_partly_hidden():
    """Copy-paste after a transpose: what is left of each mask is what the pasted ones do not cover."""
    before, masks = example()
    before = {key: value for key, value in before.items() if key != 'label'}
    other = instances.begin(scene(44, 44, 2, seed=3)[0])
    paste = copy_paste(
        other=lambda seed: other,
        probability=1.0,
        object_probability=1.0,
        min_scale=1.0,
        max_scale=1.0,
        flip=False,
        min_visible=0.01,
    )
    made = paste(base.transpose(before), tf.constant([1, 2]))
    covers = painted(made)
    pasted = np.any(covers[-2:], axis=0)
    for n, cover in zip(made['classes'].numpy()[:-2], covers[:-2], strict=True):
        whole = np.pad(masks[n].T, [[0, PAD], [0, PAD]])
        np.testing.assert_array_equal(cover, whole & ~pasted)
