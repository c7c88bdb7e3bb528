"""The training step against its formulas, written out with a plain tape and numpy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg.engine import precision
from seg.engine.optimizer_step import OptimizerStep
from seg.errors import UserError
from seg.optimizers.sgd import SGD
from tests.executor import linear, runs

STEPS = 5
KERNEL, BIAS, GAMMA, BETA, MEAN, VARIANCE = (
    f'model/net/{name}'
    for name in ('dense/kernel', 'dense/bias', 'norm/gamma', 'norm/beta', 'norm/moving_mean', 'norm/moving_variance')
)
TRAINED = (KERNEL, BIAS, GAMMA, BETA)


@pytest.fixture(autouse=True)
def _float64():
    precision.set_precision('float64')
    yield
    precision.set_precision('float32')


def batches(weight=(1, 1, 0, 1)) -> list[dict[str, np.ndarray]]:
    table = linear.Table(4 * STEPS)
    columns = {'x': table.x, 'y': table.y, 'steep': table.steep, 'index': np.arange(4 * STEPS, dtype=np.int32)}
    columns['weight'] = np.tile(np.array(weight, np.float32), STEPS)
    return [{name: column[4 * i : 4 * i + 4] for name, column in columns.items()} for i in range(STEPS)]


def first_step(make_optimizer, settings: OptimizerStep):
    engine = runs.one_device('float64')
    with engine.scope():
        task, optimizer = linear.Linear(), make_optimizer()
        task.net.get_layer('norm').gamma.assign([0.5, 1.5, 1.0])
    return engine.trainer(task, optimizer, settings)


def take_steps(make_optimizer, settings: OptimizerStep, data):
    """Takes all steps with the framework. Returns the loop's result, and all variables before and after."""
    trainer = first_step(make_optimizer, settings)
    before = named(trainer.to_host())
    result = trainer.loop(runs.fixed_input(data), 0)(len(data))
    return result, before, named(trainer.to_host())


def named(state):
    """Names as in the formulas, whether or not Keras puts the model's own name before the layer's."""
    return {name.replace('net/net/', 'net/'): value for name, value in state.items()}


def by_position(state, folder):
    """The state as earlier releases named it: the optimizer's variables by position."""
    old = [value for name, value in state.items() if name.startswith('optimizer/')]
    return {name: value for name, value in state.items() if not name.startswith('optimizer/')} | {
        f'{folder}/{i:04d}': value for i, value in enumerate(old)
    }


def formula(before, data, update, l2=0.0, clip_norm=None, ema_decay=None, part_rates=None):
    """The same steps, plainly: `update(name, value, gradient, step)` is the optimizer."""
    values = {name: value.astype(np.float64) for name, value in before.items() if name.startswith('model/')}
    averages = dict(values)
    losses, norms = [], []
    for step, batch in enumerate(data):
        v = {name: tf.constant(value) for name, value in values.items()}
        counts = batch['weight'] > 0
        with tf.GradientTape() as tape:
            tape.watch(v)
            mean, variance = tf.reduce_mean(batch['x'], 0), tf.math.reduce_variance(batch['x'], 0)
            normal = (batch['x'] - mean) / tf.sqrt(variance + linear.EPSILON) * v[GAMMA] + v[BETA]
            error = tf.boolean_mask((normal @ v[KERNEL] + v[BIAS])[:, 0] - batch['y'], counts)
            terms = [tf.reduce_mean(error**2), 0.05 * tf.reduce_mean(tf.abs(error))] if counts.any() else [v[BIAS] * 0]
            loss = tf.add_n(terms)
        penalty = l2 / 2 * np.sum(values[KERNEL] ** 2)
        losses.append([float(np.squeeze(t)) for t in terms] + ([penalty] if l2 else []))
        gradients = tape.gradient(loss, {name: v[name] for name in TRAINED}, unconnected_gradients='zero')
        gradients = {name: gradient.numpy() for name, gradient in gradients.items()}
        gradients[KERNEL] = gradients[KERNEL] + l2 * values[KERNEL]
        norm = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
        norms.append(norm)
        if clip_norm:
            gradients = {name: g * min(1.0, clip_norm / norm) for name, g in gradients.items()}
        updated = {name: update(name, values[name], gradients[name], step) for name in TRAINED}
        rate = (part_rates or {}).get('net', 1.0)
        values |= {name: values[name] + rate * (updated[name] - values[name]) for name in TRAINED}
        share = linear.MOMENTUM
        values[MEAN] = share * values[MEAN] + (1 - share) * mean.numpy()
        values[VARIANCE] = share * values[VARIANCE] + (1 - share) * np.var(batch['x'], axis=0, ddof=1)
        if ema_decay:
            d = min(ema_decay, (1 + step) / (10 + step))
            averages = {name: d * averages[name] + (1 - d) * values[name] for name in values}
    return np.array(losses), np.array(norms), values, averages


def momentum(share, nesterov=False, velocity=(), taken=0):
    """torch.optim.SGD's, with the rates of `RATES`."""
    velocity = dict(velocity)

    def update(name, value, gradient, step):
        velocity[name] = share * velocity.get(name, 0) + gradient
        direction = gradient + share * velocity[name] if nesterov else velocity[name]
        return value - RATES[taken + step] * direction

    return update


def adamw(rate, decay, beta_1, beta_2, epsilon):
    """Loshchilov and Hutter 2019, decay on the kernel alone."""
    first, second = {}, {}

    def update(name, value, gradient, step):
        first[name] = beta_1 * first.get(name, 0) + (1 - beta_1) * gradient
        second[name] = beta_2 * second.get(name, 0) + (1 - beta_2) * gradient**2
        value = value - (rate * decay * value if name == KERNEL else 0)
        alpha = rate * np.sqrt(1 - beta_2 ** (step + 1)) / (1 - beta_1 ** (step + 1))
        return value - alpha * first[name] / (np.sqrt(second[name]) + epsilon)

    return update


CASES = {
    'plain': {},
    'l2': {'l2': 0.3},
    'clipped': {'clip_norm': 0.5},
    'l2 before clipping': {'l2': 2.0, 'clip_norm': 0.5},
    'limit never reached': {'clip_norm': 1e6},
    'averages, warming up': {'ema_decay': 0.999},
    'averages, constant': {'ema_decay': 0.15},
    'a rate of its own': {'part_rates': {'net': 0.25}, 'ema_decay': 0.15},
}
# The rate drops to a quarter after three steps.
RATES = np.array([0.05] * 3 + [0.0125] * (STEPS - 3))
SCHEDULE = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.05, 0.0125])
OPTIMIZERS = {
    'sgd': (lambda: SGD(SCHEDULE, name='sgd'), lambda: momentum(0.0)),
    'momentum': (lambda: SGD(SCHEDULE, momentum=0.9, name='sgd'), lambda: momentum(0.9)),
    'nesterov': (lambda: SGD(SCHEDULE, momentum=0.9, nesterov=True, name='sgd'), lambda: momentum(0.9, True)),
    'adamw': (
        # Numbers that float32 holds exactly, as Keras keeps Adam's settings in it.
        lambda: keras.optimizers.AdamW(0.125, beta_1=0.5, beta_2=0.75, weight_decay=0.5, epsilon=2.0**-20),
        lambda: adamw(0.125, 0.5, 0.5, 0.75, 2.0**-20),
    ),
}


@pytest.mark.parametrize(
    'optimizer, case',
    [(name, case) for case in CASES for name in ('momentum', 'nesterov')]
    + [('sgd', 'l2'), ('adamw', 'plain'), ('adamw', 'clipped'), ('adamw', 'a rate of its own')],
)
def test_formulas(optimizer, case):
    made, plain = OPTIMIZERS[optimizer]
    data = batches()
    result, before, after = take_steps(made, OptimizerStep(**CASES[case]), data)
    losses, norms, values, averages = formula(before, data, plain(), **CASES[case])
    rate = 0.125 if optimizer == 'adamw' else RATES
    np.testing.assert_allclose(result.losses, losses, rtol=1e-6)
    np.testing.assert_allclose(result.gradient_norm, norms, rtol=1e-6)
    np.testing.assert_allclose(result.learning_rate, rate, rtol=1e-6)
    for name, value in values.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-6, atol=1e-7, err_msg=name)
        assert not np.allclose(before[name], value, rtol=1e-3), f'{name} stands still: nothing was compared'
    kept = {name: value for name, value in after.items() if name.startswith('ema/')}
    assert bool(kept) == ('ema_decay' in CASES[case])
    for name, value in kept.items():
        np.testing.assert_allclose(value, averages[name.replace('ema/', 'model/', 1)], rtol=1e-6, err_msg=name)
    if kept:
        assert len(kept) == len(values)


@pytest.mark.parametrize('nesterov', [False, True])
@pytest.mark.parametrize('taken', [0, 2, 3])
def test_velocity_with_the_rate_inside_is_converted(taken, nesterov):
    """A checkpoint of Keras' SGD, whose velocity is the sum of -lr * g, continues by our formula."""
    data = batches()
    settings = {'momentum': 0.9, 'nesterov': nesterov, 'name': 'sgd'}
    old = first_step(lambda: keras.optimizers.SGD(SCHEDULE, **settings), OptimizerStep())
    if taken:
        old.loop(runs.fixed_input(data[:taken]), 0)(taken)
    state = named(old.to_host())
    velocity = {name: -state[name.replace('model/', 'optimizer/momentum/')] / 0.05 for name in TRAINED}  # One rate.
    checkpoint = by_position(old.to_host(), 'optimizer')

    trainer = first_step(lambda: SGD(SCHEDULE, **settings), OptimizerStep())
    trainer.from_host(checkpoint, 'ckpt')
    before = named(trainer.to_host())
    trainer.loop(runs.fixed_input(data), taken)(STEPS - taken)
    after = trainer.to_host()
    slots = {name.replace('model/', 'optimizer/velocity/') for name in TRAINED}
    assert {name for name in named(after) if name.startswith('optimizer/')} == {'optimizer/iteration', *slots}
    assert after['optimizer/iteration'] == STEPS
    _, _, values, _ = formula(before, data[taken:], momentum(0.9, nesterov, velocity, taken))
    _, _, whole = take_steps(lambda: SGD(SCHEDULE, **settings), OptimizerStep(), data)
    for name, value in values.items():
        np.testing.assert_allclose(named(after)[name], value, rtol=1e-6, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(named(after)[name], whole[name], rtol=1e-6, atol=1e-7, err_msg=name)

    again = first_step(lambda: SGD(SCHEDULE, **settings), OptimizerStep())
    again.from_host(after, 'ckpt')
    for name, value in again.to_host().items():
        np.testing.assert_array_equal(value, after[name], name)


@pytest.mark.parametrize(('optimizer', 'folder'), [('adamw', 'optimizer'), ('momentum', 'optimizer/velocity')])
def test_names_by_position_are_read(optimizer, folder):
    """A checkpoint of an earlier release gives the state that it holds; with other slots it is refused."""
    trainer = first_step(OPTIMIZERS[optimizer][0], OptimizerStep())
    trainer.loop(runs.fixed_input(batches()), 0)(2)
    state = trainer.to_host()
    again = first_step(OPTIMIZERS[optimizer][0], OptimizerStep())
    again.from_host(by_position(state, folder), 'ckpt')
    for name, value in again.to_host().items():
        np.testing.assert_array_equal(value, state[name], name)
    with pytest.raises(UserError, match='optimizer/iteration: not in the checkpoint'):
        again.from_host(by_position(state, 'optimizer/other'), 'ckpt')


def test_rate_of_a_part_that_is_not_there():
    with pytest.raises(UserError, match="part_rates: the model has no part 'backbone'; it has net"):
        take_steps(OPTIMIZERS['sgd'][0], OptimizerStep(part_rates={'backbone': 0.1}), batches())


def test_shares_of_the_images():
    """Each image's share of the loss; they add up to it, and an image of weight 0 has none."""
    result, _, _ = take_steps(OPTIMIZERS['sgd'][0], OptimizerStep(), batches())
    np.testing.assert_allclose(result.totals.sum(1), result.losses, rtol=1e-9)
    assert np.all(result.totals[:, 2] == 0) and np.all(result.totals[:, [0, 1, 3], 0] > 0)
    np.testing.assert_array_equal(result.index.reshape(-1), np.arange(4 * STEPS))


def test_names_come_with_the_results():
    """In the task's order, the penalty last, whichever loop is asked."""
    trainer = first_step(OPTIMIZERS['sgd'][0], OptimizerStep(l2=0.1))
    loop = trainer.loop(runs.fixed_input(batches()), 0)
    for result in (loop(2), loop(1)):
        assert result.terms == ('square', 'absolute', 'l2') and result.counted == ()
        assert result.losses.shape == (len(result.losses), 3) and result.counts.shape == (len(result.losses), 0)
        assert result.totals.shape == (len(result.losses), 4, 2), 'the penalty has no share'


def test_batch_without_any_image():
    """All weights 0: the loss is 0, and the weights stay as they are."""
    result, before, after = take_steps(OPTIMIZERS['momentum'][0], OptimizerStep(clip_norm=1.0), batches([0] * 4))
    assert np.all(result.losses == 0) and np.all(result.gradient_norm == 0)
    for name in TRAINED:
        np.testing.assert_array_equal(after[name], before[name])


def test_averages_are_swapped_with_the_weights():
    """Inside `averaged`, the model has the averages; afterwards everything is as before."""
    engine = runs.one_device('float64')
    with engine.scope():
        task, optimizer = linear.Linear(), OPTIMIZERS['sgd'][0]()
    trainer = engine.trainer(task, optimizer, OptimizerStep(ema_decay=0.9))
    trainer.loop(runs.fixed_input(batches()), 0)(STEPS)
    before = trainer.to_host()
    with trainer.averaged():
        inside = trainer.to_host()
    for name, value in trainer.to_host().items():
        np.testing.assert_array_equal(value, before[name], name)
    for name in before:
        if name.startswith('ema/'):
            np.testing.assert_array_equal(inside[name.replace('ema/', 'model/', 1)], before[name], name)
