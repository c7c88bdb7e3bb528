"""Losses against plain float64 formulas, pixel by pixel, and their empty cases."""

import importlib
import itertools

import numpy as np
import pytest
import tensorflow as tf

from seg.errors import UserError
from seg.registry import losses
from seg.structures import ClassHistogram

IGNORE = 255
NAMES = ('softmax_cross_entropy', 'ohem_cross_entropy', 'focal', 'dice', 'lovasz_softmax')
for _name in NAMES:
    importlib.import_module(f'seg.losses.{_name}')


def _no_histogram():
    raise AssertionError('the data set was counted although nobody asked for it')


def build(name, num_classes=4, ignore_label=IGNORE, class_histogram=_no_histogram, **settings):
    entry = losses.get(name)
    supplied = {'num_classes': num_classes, 'ignore_label': ignore_label, 'class_histogram': class_histogram}
    return entry.builder(**{k: v for k, v in supplied.items() if k in entry.supplied}, **settings)


def batch(seed=0, b=3, h=5, w=7, k=4, ignored=0.2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, (b, h, w)).astype(np.int32)
    labels[rng.random((b, h, w)) < ignored] = IGNORE
    return labels, rng.normal(0, 2, (b, h, w, k))


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


# The references: loops over images and pixels, written from the formulas.


def reference_cross_entropy(labels, logits, w=None, smoothing=0.0, gamma=0.0):
    k = logits.shape[-1]
    w = np.ones(k) if w is None else np.asarray(w)
    totals, divisors = [], []
    for label, logp in zip(labels, log_softmax(logits), strict=True):
        total = divisor = 0.0
        for y, q in zip(label.ravel(), logp.reshape(-1, k), strict=True):
            if y != IGNORE:
                hard = (1 - np.exp(q[y])) ** gamma * w[y] * -q[y]
                total += (1 - smoothing) * hard + smoothing / k * sum(w[c] * -q[c] for c in range(k))
                divisor += w[y]
        totals.append(total)
        divisors.append(divisor)
    return np.array(totals), np.array(divisors)


def reference_ohem(labels, logits, fraction, w=None):
    k = logits.shape[-1]
    w = np.ones(k) if w is None else np.asarray(w)
    totals, divisors = [], []
    for label, logp in zip(labels, log_softmax(logits), strict=True):
        pixels = [w[y] * -q[y] for y, q in zip(label.ravel(), logp.reshape(-1, k), strict=True) if y != IGNORE]
        kept = min(len(pixels), max(1, round(fraction * len(pixels))))
        totals.append(sum(sorted(pixels, reverse=True)[:kept]))
        divisors.append(kept)
    return np.array(totals), np.array(divisors, np.float64)


def reference_dice(labels, logits):
    totals, divisors = [], []
    for label, logp in zip(labels, log_softmax(logits), strict=True):
        valid = label != IGNORE
        per_class = []
        for c in range(logits.shape[-1]):
            g = (label[valid] == c).astype(np.float64)
            p = np.exp(logp[valid][:, c])
            if g.any():
                per_class.append(1 - 2 * np.sum(p * g) / np.sum(p**2 + g**2))
        totals.append(np.mean(per_class) if per_class else 0.0)
        divisors.append(float(valid.any()))
    return np.array(totals), np.array(divisors)


def reference_lovasz(labels, logits):
    """From the definition by sets: the Jaccard loss of a set M of wrong pixels is |M| / |truth + M|."""
    totals, divisors = [], []
    for label, logp in zip(labels, log_softmax(logits), strict=True):
        valid = label != IGNORE
        per_class = []
        for c in range(logits.shape[-1]):
            truth = label[valid] == c
            if not truth.any():
                continue
            p = np.exp(logp[valid][:, c])
            errors = np.where(truth, 1 - p, p)
            wrong, total, before = np.zeros(truth.shape, bool), 0.0, 0.0
            for i in np.argsort(-errors):
                wrong[i] = True
                jaccard = wrong.sum() / (truth | wrong).sum()
                total += errors[i] * (jaccard - before)
                before = jaccard
            per_class.append(total)
        totals.append(np.mean(per_class) if per_class else 0.0)
        divisors.append(float(valid.any()))
    return np.array(totals), np.array(divisors)


W = (0.5, 2.0, 0.0, 1.25)
CASES = [
    ('softmax_cross_entropy', {}, lambda y, z: reference_cross_entropy(y, z)),
    ('softmax_cross_entropy', {'class_weights': W}, lambda y, z: reference_cross_entropy(y, z, W)),
    ('softmax_cross_entropy', {'label_smoothing': 0.1}, lambda y, z: reference_cross_entropy(y, z, None, 0.1)),
    (
        'softmax_cross_entropy',
        {'class_weights': W, 'label_smoothing': 0.3},
        lambda y, z: reference_cross_entropy(y, z, W, 0.3),
    ),
    ('focal', {}, lambda y, z: reference_cross_entropy(y, z, gamma=2.0)),
    ('focal', {'gamma': 0.5, 'class_weights': W}, lambda y, z: reference_cross_entropy(y, z, W, gamma=0.5)),
    ('ohem_cross_entropy', {'hard_fraction': 0.25}, lambda y, z: reference_ohem(y, z, 0.25)),
    ('ohem_cross_entropy', {'hard_fraction': 0.4, 'class_weights': W}, lambda y, z: reference_ohem(y, z, 0.4, W)),
    ('dice', {}, reference_dice),
    ('lovasz_softmax', {}, reference_lovasz),
]


def run(loss, labels, logits, step=0, jit=False):
    """LossTerm in numpy and the gradient of the summed totals, compiled by XLA or eagerly."""

    def compute(labels, logits, step):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            term = loss({'logits': logits}, {'label': labels}, step)
            total = tf.reduce_sum(term.total)
        return term, tape.gradient(total, logits)

    if jit:
        compute = tf.function(compute, jit_compile=True)
    term, gradient = compute(tf.constant(labels), tf.constant(logits), tf.constant(step, tf.int64))
    return term.total.numpy(), term.weight.numpy(), gradient.numpy()


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
@pytest.mark.parametrize('name,settings,reference', CASES, ids=lambda x: str(x) if not callable(x) else '')
def test_equals_the_formula(name, settings, reference, dtype):
    tolerance = {'float64': 1e-9, 'float32': 1e-5}[dtype]
    for seed in range(3):
        labels, logits = batch(seed)
        total, weight, gradient = run(build(name, **settings), labels, logits.astype(dtype))
        expected_total, expected_weight = reference(labels, logits.astype(dtype).astype(np.float64))
        assert total.dtype == weight.dtype == gradient.dtype == dtype
        np.testing.assert_allclose(total, expected_total, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(weight, expected_weight, rtol=tolerance)
        assert np.isfinite(gradient).all()
        assert np.all(gradient[labels == IGNORE] == 0)


@pytest.mark.parametrize('name', NAMES)
def test_gradient_equals_differences_of_the_loss(name):
    labels, logits = batch(5, b=1, h=2, w=3)
    loss = build(name)
    gradient = run(loss, labels, logits)[2]
    h = 1e-6
    for i in itertools.islice(np.ndindex(logits.shape), 0, None, 5):
        moved = [logits.copy(), logits.copy()]
        moved[0][i] -= h
        moved[1][i] += h
        low, high = (
            float(np.sum(loss({'logits': tf.constant(z)}, {'label': tf.constant(labels)}, 0).total)) for z in moved
        )
        assert gradient[i] == pytest.approx((high - low) / (2 * h), abs=1e-7)


@pytest.mark.parametrize('name', NAMES)
def test_compiles_with_xla_to_the_same_numbers(name):
    labels, logits = batch(1)
    loss = build(name)
    for plain, compiled in zip(run(loss, labels, logits), run(loss, labels, logits, jit=True), strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', ['float64', 'float32', 'bfloat16'])
def test_ignored_image_is_exactly_nothing(name, dtype):
    labels, logits = batch(2)
    labels[1] = IGNORE
    logits = tf.cast(logits, dtype)
    total, weight, gradient = run(build(name), labels, logits)
    assert total.dtype == ('float64' if dtype == 'float64' else 'float32')
    assert total[1] == weight[1] == 0
    assert np.all(gradient[1].astype(np.float64) == 0) and np.isfinite(gradient.astype(np.float64)).all()
    others = run(build(name), labels[[0, 2]], tf.gather(logits, [0, 2]))
    np.testing.assert_allclose(total[[0, 2]], others[0], rtol=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_ignored_pixels_could_have_any_logits(name):
    labels, logits = batch(3)
    other = np.where((labels == IGNORE)[..., None], 7.0 - 3.0 * logits, logits)
    for a, b in zip(run(build(name), labels, logits), run(build(name), labels, other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.filterwarnings('ignore:You are using a softmax')
@pytest.mark.parametrize('name', NAMES)
def test_one_pixel_and_one_class(name):
    logits = np.array([[[[0.3, -1.2]]]])
    for label in (0, 1):
        total, weight, gradient = run(build(name, num_classes=2), np.array([[[label]]], np.int32), logits)
        assert total[0] > 0 and weight[0] == 1 and np.isfinite(gradient).all()
    labels = np.array([[[0, 0, IGNORE]]], np.int32)
    total, weight, gradient = run(build(name, num_classes=1), labels, np.array([[[[3.0], [-40.0], [1.0]]]]))
    assert total[0] == pytest.approx(0, abs=1e-12) and weight[0] > 0
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


@pytest.mark.parametrize('name,settings', [*((n, {}) for n in NAMES), ('focal', {'gamma': 0.25})])
@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_extreme_logits_have_finite_gradients(name, settings, dtype):
    labels, logits = batch(4)
    for sign in (1, -1):
        right = np.eye(4)[np.where(labels == IGNORE, 0, labels)] * 2e4 * sign
        total, _, gradient = run(build(name, **settings), labels, (right + 0 * logits).astype(dtype))
        assert np.isfinite(total).all() and np.isfinite(gradient).all()
        assert np.all(total <= 1e-6) if sign > 0 else np.all(total > 0.5)


@pytest.mark.parametrize('name', NAMES)
def test_weight_scales_the_total_only(name):
    labels, logits = batch(6)
    once, thrice = run(build(name), labels, logits), run(build(name, weight=3), labels, logits)
    np.testing.assert_allclose(thrice[0], 3 * once[0])
    np.testing.assert_allclose(thrice[1], once[1])


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('stray', [4, 254, -1])
def test_label_that_is_no_class_makes_its_image_nan_and_no_other(name, stray):
    labels, logits = batch(7)
    labels[1, 2, 3] = stray
    total, weight, _ = run(build(name), labels, logits)
    assert np.isnan(total[1]) and np.isfinite(total[[0, 2]]).all() and np.isfinite(weight).all()


def test_a_negative_ignore_label_is_honoured():
    labels, logits = batch(8)
    renamed = np.where(labels == IGNORE, -1, labels).astype(np.int32)
    for name in NAMES:
        np.testing.assert_array_equal(
            run(build(name), labels, logits)[0], run(build(name, ignore_label=-1), renamed, logits)[0]
        )


@pytest.mark.parametrize('name', NAMES)
def test_shapes_that_do_not_belong_together_are_refused(name):
    labels, logits = batch()
    for bad_labels, bad_logits in ((labels[:, :4], logits), (labels, logits[..., :3])):
        with pytest.raises(ValueError, match='received'):
            build(name)({'logits': tf.constant(bad_logits)}, {'label': tf.constant(bad_labels)}, 0)


# Properties of single losses.


def test_ohem_anneals_from_all_pixels_to_the_fraction():
    labels, logits = batch(9)
    loss = build('ohem_cross_entropy', hard_fraction=0.2, anneal_steps=100)
    for step, fraction in ((0, 1.0), (25, 0.8), (50, 0.6), (100, 0.2), (5000, 0.2)):
        total, weight, _ = run(loss, labels, logits, step)
        expected = reference_ohem(labels, logits, fraction)
        np.testing.assert_allclose(weight, expected[1])
        np.testing.assert_allclose(total, expected[0], rtol=1e-9)


def test_ohem_of_all_pixels_is_cross_entropy():
    labels, logits = batch(10)
    expected = run(build('softmax_cross_entropy'), labels, logits)
    for a, b in zip(run(build('ohem_cross_entropy', hard_fraction=1.0), labels, logits), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_ohem_ties_share_the_last_places():
    labels = np.zeros((1, 1, 8), np.int32)
    logits = np.zeros((1, 1, 8, 2))
    logits[0, 0, 0] = [-3, 3]
    total, weight, gradient = run(build('ohem_cross_entropy', num_classes=2, hard_fraction=0.5), labels, logits)
    assert weight[0] == 4
    assert total[0] == pytest.approx(np.log1p(np.exp(6)) + 3 * np.log(2), abs=1e-12)
    np.testing.assert_allclose(gradient[0, 0, 1:, 0], -0.5 * 3 / 7)


def test_focal_without_gamma_is_cross_entropy():
    labels, logits = batch(11)
    expected = run(build('softmax_cross_entropy', class_weights=W), labels, logits)
    for a, b in zip(run(build('focal', gamma=0, class_weights=W), labels, logits), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_lovasz_of_hard_predictions_is_one_minus_iou():
    labels, logits = batch(12, b=1)
    guess = logits.argmax(-1)
    total = run(build('lovasz_softmax'), labels, np.eye(4)[guess] * 1e3)[0]
    valid = labels != IGNORE
    ious = [
        np.sum((labels == c) & (guess == c)) / np.sum(valid & ((labels == c) | (guess == c)))
        for c in np.unique(labels[valid])
    ]
    assert total[0] == pytest.approx(1 - np.mean(ious), abs=1e-12)


def test_lovasz_keeps_its_digits_in_float32_on_a_large_image():
    labels, logits = batch(13, b=1, h=200, w=200)
    exact = run(build('lovasz_softmax'), labels, logits.astype(np.float32).astype(np.float64))
    single = run(build('lovasz_softmax'), labels, logits.astype(np.float32))
    np.testing.assert_allclose(single[0], exact[0], rtol=1e-5)


# Class weights.


def histogram():
    return ClassHistogram(pixels=np.array([8000, 500, 0, 10]), present_pixels=np.array([10000, 5000, 0, 2000]))


def test_auto_weights_are_median_frequency_balancing_capped_and_logged(caplog):
    labels, logits = batch(14)
    labels[labels == 2] = 0
    # Frequencies 0.8, 0.1, -, 0.005: the median is 0.1.
    with caplog.at_level('INFO', logger='absl'):
        auto = build('softmax_cross_entropy', class_weights='auto', class_weight_cap=8, class_histogram=histogram)
    by_hand = build('softmax_cross_entropy', class_weights=(0.125, 1.0, 1.0, 8.0))
    for a, b in zip(run(auto, labels, logits), run(by_hand, labels, logits), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert '8,000' in caplog.text and 'capped' in caplog.text and 'no pixels' in caplog.text


@pytest.mark.parametrize(
    'name,settings,place',
    [
        ('softmax_cross_entropy', {'class_weights': (1.0, 2.0)}, r'class_weights.*2 values.*4 classes'),
        ('softmax_cross_entropy', {'class_weights': (1.0, -2.0, 1.0, 1.0)}, 'class_weights'),
        ('softmax_cross_entropy', {'class_weights': (0.0,) * 4}, 'class_weights'),
        ('focal', {'class_weights': 'Auto'}, 'class_weights'),
        ('focal', {'class_weights': ('a',) * 4}, 'class_weights'),
        ('focal', {'class_weights': 2.0}, 'class_weights'),
        ('focal', {'class_weights': 'auto', 'class_weight_cap': 0.5, 'class_histogram': histogram}, 'cap'),
        ('focal', {'gamma': -1}, 'gamma'),
        ('softmax_cross_entropy', {'label_smoothing': 1.0}, 'label_smoothing'),
        ('ohem_cross_entropy', {'hard_fraction': 0.0}, 'hard_fraction'),
        ('ohem_cross_entropy', {'hard_fraction': 1.1}, 'hard_fraction'),
        ('ohem_cross_entropy', {'anneal_steps': -1}, 'anneal_steps'),
        ('dice', {'weight': float('nan')}, 'weight'),
        ('lovasz_softmax', {'weight': '1'}, 'weight'),
    ],
)
def test_wrong_settings_name_the_place(name, settings, place):
    with pytest.raises(UserError, match=rf'losses\.{name}\.(?s:.*){place}'):
        build(name, **settings)


def test_auto_weights_of_an_unlabelled_data_set_are_refused():
    nothing = ClassHistogram(np.zeros(4, np.int64), np.zeros(4, np.int64))
    with pytest.raises(UserError, match='no labelled pixel'):
        build('focal', class_weights='auto', class_histogram=lambda: nothing)
