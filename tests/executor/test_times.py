"""The times of a training: the first step, which is compiled, counts apart, and the figures divide."""

import numpy as np
import pytest

from seg.engine.base import LoopResult
from seg.executor.run_config import RunConfig
from seg.executor.timed_loop import TimedLoop
from seg.executor.training_records import TrainingRecords


def result(steps):
    arrays = {name: np.array(steps, float) for name in LoopResult._fields if name not in ('terms', 'counted')}
    return LoopResult(terms=('a',), counted=(), **arrays)


def test_the_first_step_runs_by_itself():
    taken, started = [], []

    def loop(count):
        first = sum(map(len, taken))
        taken.append(range(first, first + count))
        return result(taken[-1])

    run = TimedLoop(loop, started.append)
    found, timed, seconds = run(3)
    assert [len(steps) for steps in taken] == [1, 2] and len(started) == 1 and timed == 2 and seconds >= 0
    np.testing.assert_array_equal(found.gradient_norm, [0, 1, 2])
    assert found.terms == ('a',) and run(3)[1] == 3 and [len(steps) for steps in taken] == [1, 2, 3]


def test_a_loop_of_the_first_step_alone():
    found, timed, seconds = TimedLoop(lambda count: result(range(count)), lambda seconds: None)(1)
    assert len(found.losses) == 1 and timed == 0 and seconds == 0


def test_figures_that_divide():
    records = TrainingRecords(RunConfig(model_dir='', train_steps=200, batch_size=4), None, None, None, None)
    assert set(records.speed(0).values()) == {None}
    records.read_times({'timed': [400, 10.0], 'train_seconds': 50.0}, '')
    speed = records.speed(110)
    assert speed['train_images_per_second'] == 40 and speed['compile_seconds'] == 39
    assert (speed['train_seconds'] - speed['compile_seconds']) * 40 == pytest.approx(110 * 4)
