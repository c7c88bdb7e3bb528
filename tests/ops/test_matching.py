"""Matching and sampling against loops, torchvision's stored results, and what must always hold."""

import numpy as np
import pytest
import tensorflow as tf

from seg.ops.matching import match
from seg.ops.sampling import balanced, first
from tests.ops import detection_reference as reference


@pytest.mark.parametrize('forced', [False, True])
def test_match_equals_torchvision(forced):
    overlaps = np.stack([reference.overlaps(seed) for seed in range(3)])
    # Padding in front of, between and behind the truths.
    padded = np.full((3, 200, 9), 0.95, np.float32)
    places = [1, 2, 3, 5, 6, 7]
    padded[:, :, places] = overlaps
    valid = np.zeros((3, 9), bool)
    valid[:, places] = True
    index, kind = match(tf.constant(padded), tf.constant(valid), 0.7, 0.3, forced)
    assert index.dtype == kind.dtype == tf.int32
    expected = np.load(reference.REFERENCE)[f'match{int(forced)}']  # A truth, -1 (negative) or -2 (between).
    np.testing.assert_array_equal(kind, np.select([expected >= 0, expected == -1], [1, 0], -1))
    np.testing.assert_array_equal(np.asarray(index)[expected >= 0], np.take(places, expected[expected >= 0]))


def test_forced_anchors_keep_the_truth_that_they_overlap_most():
    overlaps = np.float32([[[0.5, 0.4], [0.1, 0.4], [0.1, 0.0]]])
    index, kind = match(overlaps, np.ones([1, 2], bool), 0.7, 0.3, True)
    np.testing.assert_array_equal(kind, [[1, 1, 0]])
    np.testing.assert_array_equal(index, [[0, 1, 0]])


@pytest.mark.parametrize('forced', [False, True])
def test_without_truth_all_are_negative(forced):
    overlaps = np.random.default_rng(0).uniform(size=(2, 7, 3)).astype('float32')
    overlaps[0] = 0
    valid = np.array([[True] * 3, [False] * 3])
    _, kind = match(overlaps, valid, 0.7, 0.3, forced)
    np.testing.assert_array_equal(kind, np.zeros((2, 7)))


def test_one_threshold_leaves_nothing_between():
    overlaps = np.float32([[[0.5], [0.49]]])
    np.testing.assert_array_equal(match(overlaps, np.ones([1, 1], bool), 0.5, 0.5, False)[1], [[1, 0]])


def drawn(shares, count=400, images=3, seed=0):
    """Kinds with the given shares of positives and negatives in each image."""
    u = np.random.default_rng(seed).uniform(size=(images, count))
    shares = np.asarray(shares)
    positive = u < shares[:, :1]
    return positive, ~positive & (u < shares.sum(1, keepdims=True))


SEEDS = np.array([[1, 2], [3, 4], [-5, 6]], np.int32)


@pytest.mark.parametrize('total', [64, 300, 1000])
def test_sample_has_the_right_numbers(total):
    positive, negative = drawn([[0.5, 0.4], [0.02, 0.9], [0.0, 0.05]])
    got = np.asarray(balanced(positive, negative, SEEDS, total, 0.25))
    assert positive[got == 1].all() and negative[got == 0].all() and set(np.unique(got)) <= {-1, 0, 1}
    wanted = np.minimum(positive.sum(1), int(total * 0.25))
    np.testing.assert_array_equal((got == 1).sum(1), wanted)
    np.testing.assert_array_equal((got == 0).sum(1), np.minimum(negative.sum(1), total - wanted))


@pytest.mark.parametrize('shares', [(0, 0), (0, 1), (1, 0)])
def test_sample_of_one_kind_or_of_nothing(shares):
    positive, negative = drawn([shares] * 3, count=40)
    got = np.asarray(balanced(positive, negative, SEEDS, 16, 0.5))
    np.testing.assert_array_equal((got == 1).sum(1), 8 * shares[0])
    np.testing.assert_array_equal((got == 0).sum(1), 16 * shares[1])


def test_sample_is_fair_and_follows_the_seed():
    images = 400
    seeds = np.stack([np.arange(images), np.full(images, 7)], 1).astype(np.int32)
    positive = np.tile(np.arange(50) < 20, (images, 1))
    got = np.asarray(balanced(positive, ~positive, seeds, 20, 0.25))
    for kind, count, among in ((1, 5, 20), (0, 15, 30)):
        share = (got == kind).mean(0)[positive[0] == bool(kind)]
        mean = count / among
        assert abs(share - mean).max() < 4.5 * (mean * (1 - mean) / images) ** 0.5
    np.testing.assert_array_equal(got, balanced(positive, ~positive, seeds, 20, 0.25))
    np.testing.assert_array_equal(got[:9], balanced(positive[:9], ~positive[:9], seeds[:9], 20, 0.25))
    other = np.asarray(balanced(positive, ~positive, seeds, 20, 0.25, salt=8))
    assert (got != other).any(1).mean() > 0.9


@pytest.mark.parametrize('total', [4, 9, 12])
def test_first(total):
    kinds = np.array([[-1, 0, 1, -1, 0, 1, 0, -1, 1], [-1] * 9, [0] * 9], np.int32)
    index, kind = first(tf.constant(kinds), total)
    assert index.dtype == kind.dtype == tf.int32
    for image, (places, found) in enumerate(zip(np.asarray(index), np.asarray(kind), strict=True)):
        order = [i for wanted in (1, 0) for i in range(9) if kinds[image, i] == wanted][:total]
        np.testing.assert_array_equal(places, order + [0] * (total - len(order)))
        np.testing.assert_array_equal(found, [*kinds[image, order], *[-1] * (total - len(order))])


def test_everything_compiles():
    overlaps = np.stack([reference.overlaps(seed) for seed in range(3)])
    valid = tf.constant(np.arange(18).reshape(3, 6) % 5 > 0)

    def run(overlaps, seeds):
        index, kind = match(overlaps, valid, 0.7, 0.3, True)
        chosen = balanced(kind == 1, kind == 0, seeds, 40, 0.5)
        return index, kind, chosen, *first(chosen, 48)

    args = tf.constant(overlaps), tf.constant(SEEDS)
    for got, expected in zip(tf.function(run, jit_compile=True)(*args), run(*args), strict=True):
        np.testing.assert_array_equal(got, expected)
