"""Losses of anchors, boxes and masks against float64 numpy, one region after the other."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from seg.errors import UserError
from seg.losses import rois, rpn

B, A, R, P, K, M = 3, 40, 20, 6, 4, 5
RNG = np.random.default_rng(0)


def smooth_l1(x, beta):
    x = abs(float(x))
    return x * x / 2 / beta if x < beta else x - beta / 2


def cross_entropy(logit, target):
    p = 1 / (1 + np.exp(-np.float64(logit)))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def normal(*shape, scale=2.0):
    return RNG.normal(size=shape, scale=scale)


def outputs(channels=K, stages=1):
    """Random outputs; the last image has no instance: negatives only, and no masks."""
    labels = RNG.integers(-1, 2, (B, A))
    labels[-1] = np.minimum(labels[-1], 0)
    classes = RNG.integers(-1, K + 1, (stages, B, R))
    classes[:, -1] = np.minimum(classes[:, -1], 0)
    classes[1:] = np.where(classes[:1] < 0, -1, np.maximum(classes[1:], 0))  # Empty places are the same ones.
    mask_classes = RNG.integers(1, K + 1, (B, P))
    mask_classes[:, 4:], mask_classes[-1] = -1, -1
    return {
        'rpn': {
            'logits': normal(B, A),
            'deltas': normal(B, A, 4, scale=0.2),
            'labels': labels,
            'targets': normal(B, A, 4, scale=0.2),
            'matched': np.arange(B),
        },
        'boxes': [
            {
                'class_logits': normal(B, R, K + 1),
                'deltas': normal(B, R, channels, 4),
                'classes': classes[i],
                'targets': normal(B, R, 4),
                'weight': np.float64(0.5**i),
            }
            for i in range(stages)
        ],
        'masks': {
            'logits': normal(B, P, M, M, channels),
            'targets': RNG.integers(0, 2, (B, P, M, M)),
            'classes': mask_classes,
        },
    }


def tensors(values, dtype='float64'):
    def convert(value):
        value = np.asarray(value)
        return tf.constant(value.astype(dtype if value.dtype.kind == 'f' else 'int32'))

    return tf.nest.map_structure(convert, values)


def check(term, total, weight):
    np.testing.assert_allclose(term.total, total, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(term.weight, weight)
    assert all(value.shape == (B,) for value in term.counts.values())


def test_rpn_score():
    given = outputs()
    term = rpn.rpn_score(weight=0.5)(tensors(given), {}, 0)
    values = given['rpn']
    total = [
        0.5 * sum(cross_entropy(x, label) for x, label in zip(*pair, strict=True) if label >= 0)
        for pair in zip(values['logits'], values['labels'], strict=True)
    ]
    check(term, total, (values['labels'] >= 0).sum(1))
    np.testing.assert_array_equal(term.counts['anchors_positive'], (values['labels'] == 1).sum(1))
    np.testing.assert_array_equal(term.counts['anchors_negative'], (values['labels'] == 0).sum(1))
    np.testing.assert_array_equal(term.counts['anchors_matched'], values['matched'])


@pytest.mark.parametrize('beta', [1 / 9, 1.0])
def test_rpn_box(beta):
    given = outputs()
    term = rpn.rpn_box(weight=3.0, beta=beta)(tensors(given), {}, 0)
    values = given['rpn']
    total = [
        3 * sum(smooth_l1(x, beta) for a in range(A) if values['labels'][b, a] == 1
                for x in values['deltas'][b, a] - values['targets'][b, a])
        for b in range(B)
    ]  # fmt: skip
    check(term, total, (values['labels'] >= 0).sum(1))
    assert total[-1] == 0


@pytest.mark.parametrize('weights', [(1.0,), (1.0, 0.5, 0.25)])
def test_box_class(weights):
    given = outputs(stages=len(weights))
    term = rois.box_class(num_classes=K)(tensors(given), {}, 0)
    total = np.zeros(B)
    for stage, weight in zip(given['boxes'], weights, strict=True):
        for b in range(B):
            for logits, label in zip(stage['class_logits'][b], stage['classes'][b], strict=True):
                if label >= 0:
                    total[b] += weight * (np.log(np.exp(logits).sum()) - logits[label])
    first = given['boxes'][0]['classes']
    check(term, total, (first >= 0).sum(1))
    np.testing.assert_array_equal(term.counts['rois_positive'], (first > 0).sum(1))
    np.testing.assert_array_equal(term.counts['rois_negative'], (first == 0).sum(1))


@pytest.mark.parametrize('channels', [K, 1])
@pytest.mark.parametrize('stages', [1, 3])
def test_box_regression(channels, stages):
    given = outputs(channels, stages)
    term = rois.box_regression(beta=0.7)(tensors(given), {}, 0)
    total = np.zeros(B)
    for stage, weight in zip(given['boxes'], (1.0, 0.5, 0.25)[:stages], strict=True):
        for b, r in np.argwhere(stage['classes'] > 0):
            channel = 0 if channels == 1 else stage['classes'][b, r] - 1
            total[b] += weight * sum(smooth_l1(x, 0.7) for x in stage['deltas'][b, r, channel] - stage['targets'][b, r])
    check(term, total, (given['boxes'][0]['classes'] >= 0).sum(1))


@pytest.mark.parametrize('channels', [K, 1])
def test_mask(channels):
    given = outputs(channels)
    term = rois.mask(weight=2.0)(tensors(given), {}, 0)
    values = given['masks']
    total = np.zeros(B)
    for b, p in np.argwhere(values['classes'] > 0):
        channel = 0 if channels == 1 else values['classes'][b, p] - 1
        logits = values['logits'][b, p, ..., channel]
        total[b] += 2 * np.mean([cross_entropy(*pair) for pair in zip(logits.flat, values['targets'][b, p].flat)])  # noqa: B905
    check(term, total, (values['classes'] > 0).sum(1))
    assert total[-1] == 0 and term.weight[-1] == 0


MAKERS = {
    'rpn_score': rpn.rpn_score,
    'rpn_box': rpn.rpn_box,
    'box_class': functools.partial(rois.box_class, num_classes=K),
    'box_regression': rois.box_regression,
    'mask': rois.mask,
}


@pytest.mark.parametrize('name', MAKERS)
@pytest.mark.parametrize('dtype', ['bfloat16', 'float32', 'float64'])
def test_precision_and_gradient(name, dtype):
    """float32 at least, finite far out, and a gradient at the logits that is not there for what does not count."""
    given = tensors(tf.nest.map_structure(lambda x: x * 100 if x.dtype.kind == 'f' else x, outputs()), 'float64')
    given = tf.nest.map_structure(lambda x: tf.cast(x, dtype) if x.dtype.is_floating else x, given)
    loss = MAKERS[name]()
    learned = [given['rpn']['logits'], given['rpn']['deltas'], given['masks']['logits']]
    learned += [given['boxes'][0]['class_logits'], given['boxes'][0]['deltas']]
    with tf.GradientTape() as tape:
        tape.watch(learned)
        term = loss(given, {}, 0)
    assert term.total.dtype == ('float64' if dtype == 'float64' else 'float32') == term.weight.dtype
    assert np.isfinite(term.total).all()
    gradients = [g for g in tape.gradient(term.total, learned) if g is not None]
    assert len(gradients) == 1 and np.isfinite(tf.cast(gradients[0], 'float64')).all()
    counts = {
        'rpn_score': given['rpn']['labels'] >= 0,
        'rpn_box': given['rpn']['labels'] == 1,
        'box_class': given['boxes'][0]['classes'] >= 0,
        'box_regression': given['boxes'][0]['classes'] > 0,
        'mask': given['masks']['classes'] > 0,
    }[name]
    moved = np.any(np.asarray(tf.cast(gradients[0], 'float64')).reshape(*counts.shape, -1) != 0, -1)
    assert not np.any(moved & ~counts.numpy()) and moved.any()


@pytest.mark.parametrize('name', MAKERS)
def test_settings_out_of_range(name):
    with pytest.raises(UserError, match=f'losses.{name}.weight = -1: expected a number of at least 0'):
        MAKERS[name](weight=-1)


def test_beta():
    for maker in (rpn.rpn_box, rois.box_regression):
        with pytest.raises(UserError, match='beta = 0: expected a number above 0'):
            maker(beta=0)
