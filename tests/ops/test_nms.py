"""Non-maximum suppression against a loop over pairs, and against torchvision's stored results."""

import numpy as np
import pytest
import tensorflow as tf

from seg.ops import nms as nms_lib
from seg.ops.nms import nms
from tests.ops import detection_reference as reference


def suppressed(boxes, scores, threshold, groups):
    """The indices that stay, by falling score, of one image; in float64."""
    boxes = boxes.astype('float64')
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    kept = []
    for i in np.argsort(-scores, kind='stable'):
        if scores[i] == -np.inf:
            continue
        for j in kept:
            sides = np.maximum(np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2]), 0)
            shared = sides.prod()
            if groups[i] == groups[j] and shared > 0 and shared > threshold * (area[i] + area[j] - shared):
                break
        else:
            kept.append(i)
    return kept


def check(result, expected):
    """Compares with lists of indices, one per image."""
    index, valid = (np.asarray(x) for x in result)
    assert index.dtype == np.int32 and valid.dtype == bool
    for i, kept in enumerate(expected):
        kept = kept[: index.shape[1]]
        np.testing.assert_array_equal(index[i], [*kept, *[0] * (index.shape[1] - len(kept))])
        np.testing.assert_array_equal(valid[i], np.arange(index.shape[1]) < len(kept))


@pytest.fixture(params=['eager', 'graph', 'compiled'])
def run(request):
    if request.param == 'eager':
        return nms

    def call(boxes, scores, threshold, places, groups=None):
        groups = None if groups is None else tf.constant(groups)
        traced = tf.function(
            lambda boxes, scores, groups: nms(boxes, scores, threshold, places, groups),
            jit_compile=request.param == 'compiled',
        )
        return traced(tf.constant(boxes), tf.constant(scores), groups)

    return call


@pytest.mark.parametrize('places', [10, 300])
def test_equals_torchvision(run, places):
    stored = np.load(reference.REFERENCE)
    boxes, scores = reference.boxes(0, 300)[None], reference.scores(300)[None]
    check(run(boxes, scores, 0.4, places), [stored['nms'].tolist()])
    groups = reference.groups(300)[None].astype(np.int32)
    check(run(boxes, scores, 0.4, places, groups), [stored['batched_nms'].tolist()])


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('threshold', [0.0, 0.5, 1.0])
def test_equals_a_loop(threshold, dtype):
    """Whole coordinates give equal boxes, boxes without area, and overlaps at the threshold; scores are equal often."""
    rng = np.random.default_rng(11)
    corners = np.sort(rng.integers(0, 6, (3, 60, 2, 2)), axis=2).reshape(3, 60, 4).astype(dtype)
    scores = np.round(rng.normal(size=(3, 60)), 1).astype(dtype)
    scores[0, ::3] = -np.inf
    scores[1] = -np.inf
    groups = rng.integers(0, 4, (3, 60)).astype(np.int32)
    expected = [suppressed(*image[:2], threshold, image[2]) for image in zip(corners, scores, groups, strict=True)]
    assert expected[1] == [] and (len(expected[0]) < 40) == (threshold < 1)
    check(nms(tf.constant(corners), tf.constant(scores), threshold, 50, tf.constant(groups)), expected)


@pytest.mark.parametrize('tile', [7, 60, 512])
@pytest.mark.parametrize('places', [5, 50])
def test_tiles_equal_a_loop(tile, places, monkeypatch):
    """Tiles that end within the boxes, at their end, or behind it."""
    monkeypatch.setattr(nms_lib, 'TILE', tile)
    rng = np.random.default_rng(12)
    corners = np.sort(rng.integers(0, 6, (3, 60, 2, 2)), axis=2).reshape(3, 60, 4).astype('float64')
    scores = np.round(rng.normal(size=(3, 60)), 1)
    scores[0, ::3] = -np.inf
    scores[1] = -np.inf
    groups = rng.integers(0, 4, (3, 60)).astype(np.int32)
    for own_groups in (groups, None):
        expected = [
            suppressed(*image[:2], 0.5, image[2])
            for image in zip(corners, scores, np.zeros_like(groups) if own_groups is None else groups, strict=True)
        ]
        check(nms(tf.constant(corners), tf.constant(scores), 0.5, places, own_groups), expected)


def test_long_chains(run):
    """Each box overlaps the next one alone, so that every second one stays, the last of them after 150 others."""
    starts = np.arange(301, dtype=np.float32)
    boxes = np.stack([0 * starts, starts, 0 * starts + 1, starts + 1.9], axis=-1)[None]
    scores = -np.arange(301, dtype=np.float32)[None]
    check(run(boxes, scores, 0.2, 200), [list(range(0, 301, 2))])


def test_groups_are_apart_at_any_coordinates(run):
    """An offset per group would be lost in the rounding of large coordinates."""
    boxes = np.float32([[[0, 0, 3e7, 3e7], [0, 0, 3e7, 3e7], [0, 0, 2.9e7, 3e7], [5, 5, 6, 6], [5, 5, 6, 6]]])
    groups = np.int32([[0, 1, 1, 1, 0]])
    check(run(boxes, np.float32([[5, 4, 3, 2, 1]]), 0.5, 5, groups), [[0, 1, 3, 4]])


def test_nan_is_never_chosen(run):
    boxes = np.float32([[[0, 0, 9, 9], [np.nan, 0, 9, 9], [20, 20, 30, 30], [0, 0, 9, 9]]])
    index, valid = run(boxes, np.float32([[np.nan, 0.5, 2.0, -np.inf]]), 0.5, 4)
    np.testing.assert_array_equal(valid, [[True, True, False, False]])
    np.testing.assert_array_equal(index, [[2, 1, 0, 0]])


def test_shapes_are_static():
    spec = [tf.TensorSpec([2, 30, 4]), tf.TensorSpec([2, 30])]
    graph = tf.function(lambda boxes, scores: nms(boxes, scores, 0.5, 7), input_signature=spec)
    assert [tuple(shape) for shape in graph.get_concrete_function().output_shapes] == [(2, 7), (2, 7)]


def test_no_gradient_flows():
    boxes, scores = tf.constant(reference.boxes(0, 20)[None]), tf.constant(reference.scores(20)[None])
    with tf.GradientTape() as tape:
        tape.watch([boxes, scores])
        index, _ = nms(boxes, scores, 0.5, 5)
        chosen = tf.gather(scores, index, batch_dims=1)
    gradients = tape.gradient(chosen, [boxes, scores])
    assert gradients[0] is None
    assert tf.reduce_sum(tf.convert_to_tensor(gradients[1])) == 5
