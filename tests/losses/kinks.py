"""Losses and their gradients where something in them has a kink; as a program, on the backend of the environment.

KERAS_BACKEND=jax JAX_ENABLE_X64=1 python -m tests.losses.kinks out.npz
"""

import sys

import keras
import numpy as np
from keras import ops

from seg.losses import dice, focal, lovasz_softmax, ohem_cross_entropy, regions, rois, rpn, softmax_cross_entropy

K, IGNORE = 3, 255
# Class weights, among them one of 0.
W = (0.5, 2.0, 0.0)
BETAS = (1 / 9, 1.0)

# Signed zeros, the ends of the exponential, and points where 1 - p is just not yet 0 in float32 and in float64.
SIGMOID = np.array([0.0, -0.0, 1.0, -1.0, 15.0, -15.0, 40.0, -40.0, 100.0, -100.0, 1e4, -1e4])
TARGETS = np.array([0.0, 1.0, 0.25])


def pixel_cases():
    """Labels [1, H, W] and logits [1, H, W, K] by name."""
    rng = np.random.default_rng(0)
    labels = np.array([[[0, 0, 1, 1, 2, IGNORE], [2, 1, 0, 0, 1, IGNORE]]], np.int32)
    random = rng.normal(0, 2, (*labels.shape, K))
    sure = 200.0 * np.eye(K)[np.where(labels == IGNORE, 0, labels)]
    one = np.where(np.arange(12).reshape(labels.shape) == 4, 1, 0).astype(np.int32)
    return {
        'random': (labels, random),
        'zero': (labels, np.zeros_like(random)),
        'ties': (labels, np.round(random)),
        'right and sure': (labels, sure),
        'wrong and sure': (labels, np.roll(sure, 1, axis=-1)),
        'nearly sure': (labels, 0.08 * sure),
        'far out': (labels, rng.choice([-1e4, 0.0, 1e4], random.shape)),
        'one pixel of a class that is never seen': (one, np.broadcast_to([1e4, -1e4, 0.0], random.shape).copy()),
        'all ignored': (np.full_like(labels, IGNORE), np.zeros_like(random)),
        'one class': (np.zeros_like(labels), np.zeros_like(random)),
    }


def pixel_losses():
    """Loss functions by name, with the settings that bend them."""

    def build(maker, **settings):
        return maker(num_classes=K, ignore_label=IGNORE, class_histogram=None, **settings)

    plain = {'num_classes': K, 'ignore_label': IGNORE}
    return {
        'cross entropy': build(softmax_cross_entropy.softmax_cross_entropy),
        'smoothed': build(softmax_cross_entropy.softmax_cross_entropy, class_weights=W, label_smoothing=0.25),
        'focal 0': build(focal.focal, gamma=0.0),
        'focal 0.5': build(focal.focal, gamma=0.5, class_weights=W),
        'focal 1': build(focal.focal, gamma=1.0),
        'focal 2': build(focal.focal),
        'dice': dice.dice(**plain),
        'lovasz': lovasz_softmax.lovasz_softmax(**plain),
        'ohem': build(ohem_cross_entropy.ohem_cross_entropy, hard_fraction=0.5),
        'ohem weighted': build(ohem_cross_entropy.ohem_cross_entropy, hard_fraction=0.75, class_weights=W),
        'weight 0': build(softmax_cross_entropy.softmax_cross_entropy, weight=0.0),
    }


def differences(beta):
    """Differences [N] around the kink at 0 and around the two at beta."""
    near = np.array([0.5, 1 - 1e-6, 1.0, 1 + 1e-6, 2.0, 1e4, 1e8]) * beta
    return np.concatenate([[0.0, -0.0, 1e-30, -1e-30], near, -near])


def region_cases():
    """(loss, what it learns from, outputs in numpy) of the losses of regions, by name."""
    logits = np.tile(SIGMOID, 2)[None]  # [1, A]
    labels = np.repeat([0, 1], len(SIGMOID))[None].astype(np.int32)
    cases = {
        'rpn_score': (
            rpn.rpn_score(),
            ('rpn', 'logits'),
            {'rpn': {'logits': logits, 'labels': labels, 'matched': np.zeros(1, np.int32)}},
        ),
        'mask': (
            rois.mask(),
            ('masks', 'logits'),
            {
                'masks': {
                    'logits': np.tile(SIGMOID[None, None, None, :, None], (1, 3, 1, 1, 1)),
                    'targets': np.array([0.0, 1.0, 1.0])[None, :, None, None] * np.ones((1, 3, 1, len(SIGMOID))),
                    'classes': np.array([[1, 3, -1]], np.int32),
                }
            },
        ),
        'box_class': (
            rois.box_class(num_classes=K - 1),
            ('boxes', 'class_logits'),
            {
                'boxes': {
                    'class_logits': np.array([[[0, 0, 0], [1e4, 0, 0], [0, 1e4, 0], [200, 0, 0], [0.0, 0, 0]]]) + 0.0,
                    'classes': np.array([[1, 0, 0, 0, -1]], np.int32),
                    'weight': np.array(1.0),
                }
            },
        ),
    }
    for beta in BETAS:
        deltas = np.tile(differences(beta)[None, :, None], (1, 1, 4))  # [1, A, 4]
        count = deltas.shape[1]
        zeros = np.zeros_like(deltas)
        rpn_labels = np.ones((1, count), np.int32)
        cases[f'rpn_box {beta:.2f}'] = (
            rpn.rpn_box(beta=beta),
            ('rpn', 'deltas'),
            {'rpn': {'deltas': deltas, 'targets': zeros, 'labels': rpn_labels}},
        )
        cases[f'box_regression {beta:.2f}'] = (
            rois.box_regression(beta=beta),
            ('boxes', 'deltas'),
            {'boxes': {'deltas': deltas[:, :, None], 'targets': zeros, 'classes': rpn_labels, 'weight': np.array(1.0)}},
        )
    return cases


def value_and_gradient(function, x):
    """`function(x)`, and the gradient of the sum of its values, as float64 numpy."""
    if keras.backend.backend() == 'jax':
        import jax

        value, gradient = function(x), jax.grad(lambda x: ops.sum(function(x)))(x)
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        gradient = tape.gradient(value, x, unconnected_gradients='zero')
    return np.asarray(value, np.float64), np.asarray(gradient, np.float64)


def results():
    """Values and gradients of all cases, in float32 and float64, by name."""
    found = {}

    def add(name, dtype, function, x):
        value, gradient = value_and_gradient(function, ops.convert_to_tensor(x, dtype))
        found[f'{dtype}/{name}/value'], found[f'{dtype}/{name}/gradient'] = value, gradient

    for dtype in ('float32', 'float64'):
        for t in TARGETS:
            add(f'sigmoid/{t}', dtype, lambda x, t=t: regions.sigmoid_cross_entropy(x, ops.full_like(x, t)), SIGMOID)
        for beta in BETAS:
            add(f'smooth_l1/{beta:.2f}', dtype, lambda x, beta=beta: regions.smooth_l1(x, beta), differences(beta))
        for case, (labels, logits) in pixel_cases().items():
            for name, loss in pixel_losses().items():
                add(
                    f'{name}/{case}',
                    dtype,
                    lambda z, loss=loss, y=labels: ops.sum(loss({'logits': z}, {'label': y}, 0).total),
                    logits,
                )
        for name, (loss, (part, key), given) in region_cases().items():
            fixed = {
                k: ops.convert_to_tensor(v, dtype if v.dtype.kind == 'f' else 'int32') for k, v in given[part].items()
            }

            def total(x, loss=loss, part=part, key=key, fixed=fixed):
                inner = {**fixed, key: x}
                return ops.sum(loss({part: [inner] if part == 'boxes' else inner}, {}, 0).total)

            add(name, dtype, total, given[part][key])
    return found


if __name__ == '__main__':
    # Keras narrows float64 to float32 in every promotion on every backend but TensorFlow.
    from keras.src.backend.common import dtypes

    dtypes.BIT64_TO_BIT32_DTYPE['float64'] = 'float64'
    np.savez(sys.argv[1], **results())
