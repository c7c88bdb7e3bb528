"""Sizes of scaled images, against exact fractions."""

import math
import random
from fractions import Fraction

import pytest
import tensorflow as tf

from seg.ops.sizes import fitted_size, rounded
from seg.prediction.canvas import fitted
from tests.inputs import kinds
from tests.prediction import fakes


def exact(size, limit):
    scale = min(Fraction(side, own) for side, own in zip(limit, size, strict=True))
    return tuple(max(1, math.floor(own * scale + Fraction(1, 2))) for own in size)


@pytest.mark.parametrize(
    ('size', 'limit', 'expected'),
    [
        ((1410, 2580), (800, 1333), (729, 1333)),  # 728.5
        ((415, 1710), (513, 513), (125, 513)),  # 124.5
        ((1200, 1), (513, 513), (513, 1)),
        ((1, 3000), (513, 513), (1, 513)),
        ((20, 30), (80, 90), (60, 90)),
    ],
)
def test_one_size_for_evaluation_prediction_and_training(size, limit, expected):
    assert fitted_size(size, limit) == exact(size, limit) == expected
    image = fakes.noise(*size)
    assert fitted(image, limit)[0].shape[:2] == expected
    example = {'image': tf.constant(image, tf.float32), 'label': tf.zeros(size, tf.int32)}
    found = kinds.label_maps().fitted(example, limit)
    assert found['image'].shape[:2] == found['label'].shape == expected and tuple(found['size']) == expected
    empty = {
        'image': example['image'],
        'boxes': tf.zeros([0, 4]),
        'classes': tf.zeros([0], tf.int32),
        'is_crowd': tf.zeros([0], tf.bool),
        'area': tf.zeros([0]),
        'view': tf.zeros([0, 2, 3]),
    }
    found = kinds.instances().fitted(empty, limit)
    assert found['image'].shape[:2] == expected and tuple(found['size']) == expected


def test_random_sizes():
    draw = random.Random(0)
    for _ in range(2000):
        size, limit = ([draw.randint(1, 4000) for _ in range(2)] for _ in range(2))
        assert fitted_size(tuple(size), tuple(limit)) == exact(size, limit)
        tensors = fitted_size(tuple(size), tuple(limit), tf.clip_by_value) if draw.random() < 0.02 else None
        assert tensors is None or tuple(map(int, tensors)) == exact(size, limit)


def test_halves_go_up():
    assert [rounded(value) for value in (0.4, 0.5, 1.5, 2.5)] == [0, 1, 2, 3]
    assert rounded(tf.constant([0.5, 2.5, 2.4], tf.float64)).numpy().tolist() == [1, 3, 2]
