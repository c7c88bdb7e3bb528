"""Update rules against plain float64 formulas over five steps, and the one rule of decay.

Momentum, betas and decay are numbers that float32 holds exactly: Keras rounds these settings to float32 even where the
variables are float64.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg import config, registry
from seg.errors import UserError
from seg.optimizers import adamw, sgd  # noqa: F401  registers them.
from seg.optimizers.decay import decays
from seg.registry import optimizers
from seg.schedules import poly  # noqa: F401  registers the schedule.

STEPS = 5


def rate_at(t):
    return 0.1 * (1 - t / STEPS) ** 0.9


def build(name, **settings):
    """Builds an optimizer as a gin file would."""
    with registry.temporary():

        @config.configurable('trial')
        def trial(*, optimizer):
            """Hands the reference over."""
            return optimizers.build(optimizer, 'trial.optimizer', total_steps=STEPS, batch_size=4)

        bindings = {
            'trial.optimizer': f'@optimizers.{name}',
            f'optimizers.{name}.schedule': '@schedules.poly',
            'schedules.poly.base_lr': 0.1,
            **{f'optimizers.{name}.{setting}': repr(value) for setting, value in settings.items()},
        }
        config.parse([], [f'{key} = {value}' for key, value in bindings.items()])
        return config.injected('trial')()


@pytest.fixture(params=['float32', 'float64'])
def floatx(request):
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx(before)


def gradients(seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(3, 2)), rng.normal(size=2)) for _ in range(STEPS)]


def run(optimizer, dtype, excluded=()):
    """Values of a kernel and a bias after each of five steps."""
    start = np.random.default_rng(9).normal(size=(3, 2)), np.array([1.0, -2.0])
    variables = [keras.Variable(v, dtype=dtype, name=n) for v, n in zip(start, ('kernel', 'bias'), strict=True)]
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if v.name in excluded])
    optimizer.build(variables)

    @tf.function
    def step(*grads):
        optimizer.apply(list(grads), variables)

    history = []
    for pair in gradients():
        step(*(tf.constant(g, dtype) for g in pair))
        history.append([np.asarray(v.numpy(), np.float64) for v in variables])
    return start, history


def compare(history, expected, floatx):
    tolerance = {'float32': 2e-6, 'float64': 1e-12}[floatx]
    for got, want in zip(history, expected, strict=True):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('momentum,nesterov', [(0.875, False), (0.875, True), (0, False)])
def test_sgd(momentum, nesterov, floatx):
    optimizer = build('sgd', momentum=momentum, nesterov=nesterov)
    start, history = run(optimizer, floatx)
    x, v = [s.copy() for s in start], [0 * s for s in start]
    expected = []
    for t, pair in enumerate(gradients()):  # torch.optim.SGD's formula, with dampening 0; the rate changes every step.
        for i, g in enumerate(pair):
            v[i] = momentum * v[i] + g
            x[i] = x[i] - rate_at(t) * (g + momentum * v[i] if nesterov else v[i])
        expected.append([a.copy() for a in x])
    compare(history, expected, floatx)


def test_sgd_known_steps_of_torch(floatx):
    """Momentum 0.9, gradients of 1, and a rate that drops from 0.1 to 0.01: the 51st step is ten times shorter."""
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([49], [0.1, 0.01])
    optimizer = sgd.SGD(rate, momentum=0.9, name='sgd')
    x = keras.Variable([0.0], dtype=floatx, name='kernel')
    optimizer.build([x])
    values = [0.0]
    for _ in range(52):
        optimizer.apply([tf.ones([1], floatx)], [x])
        values.append(float(x.numpy()[0]))
    # Printed by torch.optim.SGD, to four digits.
    np.testing.assert_allclose(-np.diff(values)[[49, 50, 51]], [0.9948, 0.0995, 0.0996], atol=6e-5)


def test_adamw_decays_kernels_and_leaves_the_excluded_alone(floatx):
    w, b1, b2, epsilon = 0.25, 0.75, 0.9375, 1e-6
    optimizer = build('adamw', beta_1=b1, beta_2=b2, epsilon=epsilon, weight_decay=w)
    start, history = run(optimizer, floatx, excluded=('bias',))
    x, m, v = [s.copy() for s in start], [0 * s for s in start], [0 * s for s in start]
    expected = []
    for t, pair in enumerate(gradients()):
        lr = rate_at(t)
        x[0] = x[0] - lr * w * x[0]
        for i, g in enumerate(pair):
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g**2
            corrected = lr * np.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1))
            x[i] = x[i] - corrected * m[i] / (np.sqrt(v[i]) + epsilon)
        expected.append([a.copy() for a in x])
    compare(history, expected, floatx)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_the_rate_is_the_schedule_and_nothing_else_is_on(name):
    optimizer = build(name)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    run(optimizer, 'float32')
    assert int(optimizer.iterations) == STEPS and float(optimizer.learning_rate) == 0
    assert optimizer.global_clipnorm is None and optimizer.clipnorm is None and optimizer.clipvalue is None
    assert not optimizer.use_ema
    assert optimizer.weight_decay == (0.01 if name == 'adamw' else None)


def test_kernels_decay_and_biases_and_norms_do_not():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, name='conv'),
            keras.layers.SeparableConv2D(4, 3, name='separable'),
            keras.layers.BatchNormalization(name='norm'),
            keras.layers.GroupNormalization(2, name='group'),
            keras.layers.EinsumDense('bhwc,cde->bhwde', (None, None, 2, 3), bias_axes='de', name='einsum'),
        ],
        name='model',
    )
    assert len(model.weights) > 10
    assert {v.path.removeprefix('model/') for v in model.weights if decays(v)} == {
        'conv/kernel',
        'separable/depthwise_kernel',
        'separable/pointwise_kernel',
        'einsum/kernel',
    }


@pytest.mark.parametrize(
    'name,settings,setting',
    [
        ('sgd', {'momentum': 1.0}, 'momentum'),
        ('sgd', {'momentum': '0.9'}, 'momentum'),
        ('sgd', {'momentum': 0, 'nesterov': True}, 'nesterov'),
        ('adamw', {'beta_1': 1.0}, 'beta_1'),
        ('adamw', {'beta_2': -0.1}, 'beta_2'),
        ('adamw', {'epsilon': 0}, 'epsilon'),
        ('adamw', {'weight_decay': -0.1}, 'weight_decay'),
        ('adamw', {'weight_decay': None}, 'weight_decay'),
    ],
)
def test_wrong_settings_name_the_place(name, settings, setting):
    with pytest.raises(UserError, match=rf'optimizers\.{name}\.{setting} ='):
        build(name, **settings)
