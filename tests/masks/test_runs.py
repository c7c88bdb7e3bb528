"""Masks as runs: the same pixels however they were made, and those of pycocotools."""

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from seg.errors import UserError
from seg.masks import ragged
from seg.masks import runs as mask_runs


def dense(ends, height, width):
    """The mask that the documented rule gives: p is set where the number of ends <= p is odd."""
    passed = np.searchsorted(ends, np.arange(height * width), side='right')
    return (passed % 2 == 1).reshape(width, height).T


def encoded(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


@pytest.fixture(scope='module')
def masks():
    """Masks of many kinds: random, empty, full, single pixels in corners, stripes that cross columns."""
    rng = np.random.default_rng(0)
    shapes = ((7, 5), (1, 1), (3, 40), (50, 60), (1, 9))
    found = [rng.random(shape) < share for shape in shapes for share in (0, 0.05, 0.5, 1)]
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        found.append(np.zeros([4, 6], bool))
        found[-1][corner] = True
    found.append(np.zeros([4, 6], bool))
    found[-1][2:, 1] = found[-1][:2, 2] = True  # One run over two columns.
    return found


@pytest.fixture(scope='module')
def runs(masks):
    runs, covered = mask_runs.from_strings(
        [encoded(mask)['counts'] for mask in masks], np.array([mask.size for mask in masks])
    )
    assert covered.tolist() == [mask.size for mask in masks]
    return runs


def test_strings_are_read_as_pycocotools_means_them(masks, runs):
    assert runs.ends.dtype == np.int32 and len(runs.splits) == len(masks) + 1
    for n, mask in enumerate(masks):
        np.testing.assert_array_equal(dense(runs[n], *mask.shape), mask)
        assert len(runs[n]) % 2 == 0


def test_there_and_back_are_pycocotools_own_strings(masks, runs):
    for n, mask in enumerate(masks):
        assert mask_runs.to_coco(runs[n], *mask.shape) == encoded(mask)


def test_large_and_wild_runs():
    """Numbers of many digits, with differences of either sign."""
    rng = np.random.default_rng(1)
    size = [8000, 8000]
    strings, wanted = [], []
    for count in (1, 2, 3, 4, 5, 40):
        cuts = np.unique(rng.integers(1, size[0] * size[1], count))
        counts = np.diff(cuts, prepend=0, append=size[0] * size[1]).tolist()
        strings.append(coco_mask.frPyObjects({'size': size, 'counts': counts}, *size)['counts'])
        wanted.append(cuts if count % 2 == 0 else [*cuts, size[0] * size[1]])
    runs, covered = mask_runs.from_strings(strings, np.full(len(strings), size[0] * size[1]))
    assert (covered == size[0] * size[1]).all()
    for n, ends in enumerate(wanted):
        assert runs[n].tolist() == list(ends)


def test_damaged_strings_are_reported_and_affect_no_other():
    good = encoded(np.eye(6, 8))['counts']
    other = encoded(np.eye(5, 8))['counts']
    bad = [b'', b'P', good[:-1] + b'P', b'\xff' + good, good + b' ', b'o' * 30, other, good[:-1], b'1M2']
    strings = [good, *(s for string in bad for s in (string, good))]
    runs, covered = mask_runs.from_strings(strings, np.full(len(strings), 48))
    for n, string in enumerate(strings):
        assert (covered[n] == 48) == (string == good), string
        assert runs[n].tolist() == (runs[0].tolist() if string == good else [])
    assert covered[strings.index(other)] == 40 and covered[1] == -1


def test_any_bytes_can_be_read():
    rng = np.random.default_rng(2)
    strings = [rng.integers(0, 256, rng.integers(0, 40), dtype=np.uint8).tobytes() for _ in range(500)]
    strings += [(rng.integers(0, 64, rng.integers(0, 40), dtype=np.uint8) + 48).tobytes() for _ in range(500)]
    runs, covered = mask_runs.from_strings(strings, np.full(1000, 64))
    assert len(runs.splits) == 1001 and runs.splits[-1] == len(runs.ends)
    assert ((runs.ends >= 0) & (runs.ends <= 64)).all() and (covered != 64).any()
    assert mask_runs.from_strings([], np.zeros(0, int))[0].splits.tolist() == [0]


def test_runs_of_dense_masks_and_of_label_maps(masks, runs):
    for n, mask in enumerate(masks):
        made = ragged.from_dense(tf.constant(mask[None]))
        assert made.dtype == tf.int32 and made.to_list() == [runs[n].tolist()]
        ids, made = ragged.from_labels(tf.constant(mask * 7, tf.int32))
        assert (ids.numpy().tolist(), made.to_list()) == (([7], [runs[n].tolist()]) if mask.any() else ([], []))


def test_runs_of_several_instances_in_a_graph():
    labels = np.random.default_rng(3).integers(-1, 6, [9, 11]).astype(np.int32)
    labels[labels == 3] = 0
    graph = tf.function(ragged.from_labels, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    ids, made = graph(labels)
    assert ids.numpy().tolist() == [1, 2, 4, 5]
    for class_id, ends in zip(ids.numpy(), made.to_list(), strict=True):
        np.testing.assert_array_equal(dense(ends, 9, 11), labels == class_id)
    stack = tf.function(ragged.from_dense, input_signature=[tf.TensorSpec([None, None, None], tf.bool)])
    assert stack(labels == ids[:, None, None]).to_list() == made.to_list()
    assert stack(np.zeros([0, 4, 5], bool)).shape == [0, None]
    assert graph(np.zeros([4, 0], np.int32))[0].shape == [0]


@pytest.mark.parametrize('wrong', [tf.zeros([2, 4, 5], tf.uint8), tf.zeros([4, 5], tf.bool)])
def test_dense_masks_are_bool_with_three_axes(wrong):
    with pytest.raises(UserError, match=rf'masks is {wrong.dtype.name} .*{wrong.shape[-1]}.* bool \[N, H, W\]'):
        ragged.from_dense(wrong)


def test_boxes_and_areas(masks, runs):
    boxes, areas = mask_runs.boxes_and_areas(runs, np.array([len(mask) for mask in masks]))
    for n, mask in enumerate(masks):
        rows, columns = np.nonzero(mask)
        box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1] if mask.any() else [0] * 4
        assert boxes[n].tolist() == box and areas[n] == mask.sum()
        made = ragged.boxes_and_areas(ragged.from_dense(tf.constant(mask[None])), len(mask))
        assert made[0].numpy().tolist() == [box] and made[1].numpy().tolist() == [mask.sum()]
