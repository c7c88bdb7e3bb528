"""Learning rates against their closed forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg import registry
from seg.errors import UserError
from seg.optimizers.sgd import sgd
from seg.schedules.base import Schedule, describe
from seg.schedules.cosine import Cosine
from seg.schedules.poly import Poly
from seg.schedules.step import Step

ALL = (Poly, Cosine, Step)


@pytest.fixture(params=['float32', 'float64'])
def floatx(request):
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx(before)


def make(cls, total_steps=1000, batch_size=8, base_lr=0.01, **settings):
    return cls(total_steps=total_steps, batch_size=batch_size, base_lr=base_lr, **settings)


def rates(schedule, steps):
    run = tf.function(schedule)
    values = [run(tf.constant(int(s), tf.int64)) for s in steps]
    assert all(v.shape == () for v in values)
    return np.array([v.numpy() for v in values])


def close(actual, expected, floatx):
    assert actual.dtype == floatx
    np.testing.assert_allclose(actual, expected, rtol={'float32': 2e-6, 'float64': 1e-13}[floatx], atol=1e-18)


STEPS = np.array([0, 1, 137, 500, 998, 999])


def test_poly(floatx):
    schedule = make(Poly, power=0.9)
    close(rates(schedule, STEPS), 0.01 * (1 - STEPS / 1000) ** 0.9, floatx)
    assert rates(schedule, [1000, 1001, 5000]).tolist() == [0, 0, 0]
    schedule = make(Poly, power=2, end_lr=0.001)
    close(rates(schedule, STEPS), 0.001 + 0.009 * (1 - STEPS / 1000) ** 2, floatx)
    close(rates(schedule, [1000, 2000]), [0.001, 0.001], floatx)


def test_poly_keeps_its_digits_at_the_end_of_a_long_training(floatx):
    close(rates(make(Poly, total_steps=90_000), [89_999]), [0.01 * (1 / 90_000) ** 0.9], floatx)


def test_cosine(floatx):
    schedule = make(Cosine, end_lr=0.002)
    close(rates(schedule, STEPS), 0.002 + 0.008 * (1 + np.cos(np.pi * STEPS / 1000)) / 2, floatx)
    close(rates(schedule, [1000, 3000]), [0.002, 0.002], floatx)
    assert rates(make(Cosine), [1000])[0] == 0


def test_step(floatx):
    schedule = make(Step, boundaries=(300, 600), gamma=0.1)
    steps = [0, 299, 300, 599, 600, 999, 10_000]
    close(rates(schedule, steps), [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4], floatx)
    close(rates(make(Step), [0, 999]), [0.01, 0.01], floatx)


@pytest.mark.parametrize('cls', ALL)
def test_rates_scale_with_the_batch(cls, floatx):
    settings = {'warmup_steps': 10, 'warmup_lr': 0.001}
    scaled = make(cls, batch_size=8, reference_batch=16, **settings)
    plain = make(cls, batch_size=8, **settings)
    close(rates(scaled, [0, 5, 10, 500]), rates(plain, [0, 5, 10, 500]) / 2, floatx)
    assert scaled.peak == 0.005


def test_poly_and_cosine_count_from_the_end_of_the_warmup(floatx):
    steps = np.array([100, 400, 999])
    x = (steps - 100) / 900
    close(rates(make(Poly, warmup_steps=100), steps), 0.01 * (1 - x) ** 0.9, floatx)
    close(rates(make(Cosine, warmup_steps=100), steps), 0.01 * (1 + np.cos(np.pi * x)) / 2, floatx)


def test_step_boundaries_as_parts_of_the_training():
    for total in (22_500, 45_000, 90_000):
        schedule = make(Step, total_steps=total, boundaries=(0.66667, 0.88889), warmup_steps=500)
        assert schedule.boundaries == (total * 2 // 3, total * 8 // 9)
    assert make(Step, total_steps=4, boundaries=(0.66667, 0.88889), warmup_steps=500).boundaries == (3, 4)


def test_step_boundaries_count_from_the_start(floatx):
    schedule = make(Step, boundaries=(300,), warmup_steps=100)
    close(rates(schedule, [99, 100, 299, 300]), [0.0099, 0.01, 0.01, 0.001], floatx)


@pytest.mark.parametrize('cls', ALL)
def test_warmup_is_a_line_from_its_rate_to_the_peak(cls, floatx):
    steps = np.array([0, 1, 50, 99, 100])
    close(rates(make(cls, warmup_steps=100, warmup_lr=0.002), steps), 0.002 + 0.008 * steps / 100, floatx)


@pytest.mark.parametrize('cls', ALL)
@pytest.mark.parametrize('total', [1, 2, 3, 4, 500, 501])
def test_short_trials_of_a_recipe_with_warmup(cls, total):
    schedule = make(cls, total_steps=total, warmup_steps=500)
    assert schedule.warmup_steps == (total // 2 if total <= 500 else 500)
    values = rates(schedule, range(total + 2))
    assert np.isfinite(values).all() and (values >= 0).all()
    assert values[schedule.warmup_steps] == pytest.approx(0.01)
    assert ('cut from 500' in schedule.describe()) == (total <= 500)


@pytest.mark.parametrize('cls', ALL)
def test_config_makes_the_same_schedule_again(cls):
    schedule = make(cls, reference_batch=16, warmup_steps=20)
    again = cls.from_config(schedule.get_config())
    assert again.get_config() == schedule.get_config()
    np.testing.assert_array_equal(rates(again, STEPS), rates(schedule, STEPS))


def test_rate_is_at_least_float32_and_compiles():
    before = keras.config.floatx()
    keras.config.set_floatx('bfloat16')
    try:
        assert make(Poly)(tf.constant(3, tf.int64)).dtype == tf.float32
    finally:
        keras.config.set_floatx(before)
    compiled = tf.function(make(Step, boundaries=(2,), warmup_steps=1), jit_compile=True)
    assert compiled(tf.constant(2, tf.int64)).numpy() == pytest.approx(0.001)


def test_describe_is_one_line_with_the_numbers():
    schedule = Poly(total_steps=30000, batch_size=8, base_lr=0.007, reference_batch=16, warmup_steps=500)
    assert schedule.describe() == 'poly: 0.007 x 8/16 = 0.0035, power 0.9 to 0, 30000 steps, warm-up 500 from 0'
    assert make(Cosine).describe() == 'cosine: 0.01, to 0, 1000 steps'
    assert make(Step, boundaries=(3, 5)).describe() == 'step: 0.01, x 0.1 at 3, 5, 1000 steps'
    assert make(Step).describe() == 'step: 0.01, constant, 1000 steps'


@pytest.mark.parametrize(
    'cls,settings,place',
    [
        (Poly, {'base_lr': 0}, 'base_lr'),
        (Poly, {'base_lr': '0.1'}, 'base_lr'),
        (Poly, {'power': 0}, 'power'),
        (Poly, {'end_lr': -1}, 'end_lr'),
        (Poly, {'reference_batch': 0}, 'reference_batch'),
        (Poly, {'total_steps': 0}, 'total_steps'),
        (Cosine, {'warmup_steps': -1}, 'warmup_steps'),
        (Cosine, {'warmup_steps': 1.5}, 'warmup_steps'),
        (Cosine, {'warmup_steps': 5, 'warmup_lr': 0.5}, 'warmup_lr'),
        (Cosine, {'base_lr': float('inf')}, 'base_lr'),
        (Step, {'boundaries': (5, 5)}, 'boundaries'),
        (Step, {'boundaries': (0.5, 9)}, 'boundaries'),
        (Step, {'boundaries': (0.5, 1.0)}, 'boundaries'),
        (Step, {'boundaries': (0.9, 0.5)}, 'boundaries'),
        (Step, {'boundaries': 5}, 'boundaries'),
        (Step, {'boundaries': (5,), 'warmup_steps': 10}, 'boundaries'),
        (Step, {'gamma': 10}, 'gamma'),
    ],
)
def test_wrong_settings_name_the_place(cls, settings, place):
    with pytest.raises(UserError, match=rf'schedules\.{cls.__name__.lower()}\.{place}'):
        make(cls, **settings)


def test_a_number_is_no_schedule():
    with registry.temporary():

        @registry.schedules.register('flat')
        def flat(*, total_steps):
            """Flat."""
            return 0.1

        with pytest.raises(
            UserError, match=r'optimizers.sgd.schedule: @schedules.flat .*a float; .*LearningRateSchedule'
        ):
            sgd(total_steps=9, batch_size=2, schedule=flat)


def test_a_rate_of_an_optimizer_without_a_schedule():
    assert describe(keras.optimizers.SGD(0.25)) == 'constant 0.25'


def test_a_plugin_without_its_methods():
    """Refused where it is built, not in the first step."""
    with registry.temporary():

        @registry.schedules.register('half')
        class Half(Schedule):
            """Half."""

            name = 'half'

            def __init__(self, *, total_steps, batch_size):
                super().__init__(total_steps, batch_size, 0.1, None, 0, 0.0)

        with pytest.raises(UserError) as caught:
            registry.schedules.build(Half, 'optimizers.sgd.schedule', total_steps=9, batch_size=2)
    parts = ('optimizers.sgd.schedule: @schedules.half', 'Half without decayed, details', 'seg.schedules.base.Schedule')
    assert all(part in str(caught.value) for part in parts)
