"""Values and gradients of all losses at their kinks, on TensorFlow and on JAX, against closed forms in float64.

At a kink of `abs`, `relu`, `max` or `sort` a backend may take any slope, and both do: a loss that is smooth must not be
put together from such pieces.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.losses import kinks

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


@pytest.fixture(scope='module', params=['tensorflow', 'jax'])
def found(request, tmp_path_factory):
    if request.param == 'tensorflow':
        return kinks.results()
    path = tmp_path_factory.mktemp('kinks') / 'jax.npz'
    environment = {**os.environ, 'KERAS_BACKEND': 'jax', 'JAX_ENABLE_X64': '1', 'JAX_PLATFORMS': 'cpu'}
    subprocess.run([sys.executable, '-m', 'tests.losses.kinks', path], check=True, cwd=ROOT, env=environment)
    return dict(np.load(path))


def compare(found, name, value, gradient, scale=1.0):
    """`scale`: size of the numbers that the loss is a difference of, which float32 rounds."""
    for dtype, tolerance in (('float32', 2e-6), ('float64', 1e-12)):
        for kind, expected in (('value', value), ('gradient', gradient)):
            np.testing.assert_allclose(
                found[f'{dtype}/{name}/{kind}'],
                expected,
                rtol=tolerance,
                atol=tolerance * (scale if kind == 'value' else 1.0),
                err_msg=f'{dtype} {name} {kind}',
            )


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def sigmoid_cross_entropy(x, t):
    return t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x), sigmoid(x) - t


def smooth_l1(x, beta):
    size = np.abs(x)
    return np.where(size < beta, x * x / (2 * beta), size - beta / 2), np.clip(x / beta, -1, 1)


@pytest.mark.parametrize('t', kinks.TARGETS)
def test_sigmoid_cross_entropy(found, t):
    compare(found, f'sigmoid/{t}', *sigmoid_cross_entropy(kinks.SIGMOID, t))
    for dtype in ('float32', 'float64'):
        np.testing.assert_array_equal(found[f'{dtype}/sigmoid/{t}/gradient'][kinks.SIGMOID == 0], 0.5 - t)
        if t == 1:  # Small values keep their digits: in 40 - 40 + exp(-40), nothing would be left.
            value = found[f'{dtype}/sigmoid/{t}/value'][kinks.SIGMOID == 40]
            np.testing.assert_allclose(value, np.exp(-40.0), rtol=1e-5)


@pytest.mark.parametrize('beta', kinks.BETAS)
def test_smooth_l1(found, beta):
    compare(found, f'smooth_l1/{beta:.2f}', *smooth_l1(kinks.differences(beta), beta))


def softmax(z):
    z = z - z.max(-1, keepdims=True)
    p = np.exp(z)
    return p / p.sum(-1, keepdims=True), z - np.log(p.sum(-1, keepdims=True))


def through_softmax(p, g):
    """The gradient at the logits of one that is g at the probabilities."""
    return p * (g - np.sum(p * g, -1, keepdims=True))


# Each takes labels [N] of the pixels that count and logits [N, K]; and gives the sum over the image and its gradient.


def cross_entropy(y, z, w=(1, 1, 1), smoothing=0.0, gamma=0.0):
    w, k = np.asarray(w, np.float64), z.shape[-1]
    p, log_p = softmax(z)
    hot = np.eye(k)[y]
    surprise = -np.sum(hot * log_p, -1)
    # 1 - p without the cancellation at p near 1.
    miss = -np.expm1(-surprise)
    spread = -(log_p @ w) / k
    value = np.sum((1 - smoothing) * w[y] * miss**gamma * surprise + smoothing * spread)
    slope = miss**gamma
    if gamma:
        # d/ds (1 - e^-s)^gamma s; its limit for s -> 0 is 0.
        at = np.where(miss > 0, miss, 1.0)
        slope = np.where(miss > 0, miss**gamma + gamma * at ** (gamma - 1) * (1 - miss) * surprise, 0.0)
    gradient = (1 - smoothing) * (w[y] * slope)[:, None] * (p - hot)
    return value, gradient + smoothing / k * (p * w.sum() - w)


def dice(y, z):
    p, _ = softmax(z)
    g = np.eye(z.shape[-1])[y]
    present = g.any(0)
    overlap, size = np.sum(p * g, 0), np.where(present, np.sum(p**2 + g, 0), 1.0)
    share = present / max(present.sum(), 1)
    gradient = share * (-2 * g / size + 4 * overlap * p / size**2)
    return np.sum(share * (1 - 2 * overlap / size)), through_softmax(p, gradient)


def lovasz(y, z):
    """With the pixels of one error in their order: any order gives a subgradient, and this one is the backends'."""
    p, log_p = softmax(z)
    total, gradient = 0.0, np.zeros_like(p)
    present = [c for c in range(z.shape[-1]) if (y == c).any()]
    for c in present:
        truth = y == c
        # As the loss has it, so that errors tie where they tie there.
        errors = np.where(truth, 1 - p[:, c], p[:, c])
        wrong, before = np.zeros(truth.shape, bool), 0.0
        for i in np.argsort(-errors, kind='stable'):
            wrong[i] = True
            jaccard = wrong.sum() / (truth | wrong).sum()
            total += errors[i] * (jaccard - before) / len(present)
            gradient[i, c] += (-1 if truth[i] else 1) * (jaccard - before) / len(present)
            before = jaccard
    return total, through_softmax(p, gradient)


def ohem(y, z, fraction, w=(1, 1, 1)):
    """Pixels that tie for the last places share them."""
    w = np.asarray(w, np.float64)
    p, log_p = softmax(z)
    hot = np.eye(z.shape[-1])[y]
    losses = -w[y] * np.sum(hot * log_p, -1)
    kept = max(1, round(fraction * len(y)))
    last = np.sort(losses)[::-1][kept - 1]
    above, tied = losses > last, np.isclose(losses, last, rtol=1e-12, atol=0)
    above &= ~tied
    share = above + tied * (kept - above.sum()) / tied.sum()
    return np.sum(share * losses), (share * w[y])[:, None] * (p - hot)


PIXEL = {
    'cross entropy': cross_entropy,
    'smoothed': lambda y, z: cross_entropy(y, z, kinks.W, smoothing=0.25),
    'focal 0': cross_entropy,
    'focal 0.5': lambda y, z: cross_entropy(y, z, kinks.W, gamma=0.5),
    'focal 1': lambda y, z: cross_entropy(y, z, gamma=1.0),
    'focal 2': lambda y, z: cross_entropy(y, z, gamma=2.0),
    'dice': dice,
    'lovasz': lovasz,
    'ohem': lambda y, z: ohem(y, z, 0.5),
    'ohem weighted': lambda y, z: ohem(y, z, 0.75, kinks.W),
    'weight 0': lambda y, z: (0.0, np.zeros_like(z)),
}


@pytest.mark.parametrize('case', kinks.pixel_cases())
@pytest.mark.parametrize('name', kinks.pixel_losses())
def test_pixel_losses(found, name, case):
    labels, logits = kinks.pixel_cases()[case]
    counts = labels != kinks.IGNORE
    value, gradient = 0.0, np.zeros_like(logits)
    if counts.any():
        value, gradient[counts] = PIXEL[name](labels[counts], logits[counts])
    compare(found, f'{name}/{case}', value, gradient, scale=max(1.0, np.abs(logits).max()))


def test_region_losses(found):
    cases = {name: given for name, (_, _, given) in kinks.region_cases().items()}
    rpn = cases['rpn_score']['rpn']
    value, gradient = sigmoid_cross_entropy(rpn['logits'], rpn['labels'])
    compare(found, 'rpn_score', value.sum(), gradient)
    masks = cases['mask']['masks']
    value, gradient = sigmoid_cross_entropy(masks['logits'], masks['targets'][..., None])
    there = (masks['classes'] > 0)[..., None, None, None] / len(kinks.SIGMOID)
    compare(found, 'mask', np.sum(value * there), gradient * there)
    boxes = cases['box_class']['boxes']
    there = boxes['classes'][0] >= 0
    value, gradient = cross_entropy(boxes['classes'][0][there], boxes['class_logits'][0][there])
    compare(found, 'box_class', value, np.where(there[:, None], np.pad(gradient, ((0, 1), (0, 0))), 0)[None])
    for beta in kinks.BETAS:
        x = cases[f'rpn_box {beta:.2f}']['rpn']['deltas']
        value, gradient = smooth_l1(x, beta)
        compare(found, f'rpn_box {beta:.2f}', value.sum(), gradient)
        compare(found, f'box_regression {beta:.2f}', value.sum(), gradient[:, :, None])
