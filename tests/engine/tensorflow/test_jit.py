"""XLA compiles the training step and the evaluation step, and the numbers stay.

In float64: in float32 the rounding of a first step grows to thousandths of the fourth one's gradient.
"""

import multiprocessing
from concurrent import futures

import numpy as np
import pytest

from seg.engine.optimizer_step import OptimizerStep
from seg.executor.evaluator import Evaluator
from tests.executor import runs

FEW = 'datasets.shapes.num_examples=3'
SETTINGS = {
    runs.SHAPES: (FEW, 'models.deeplab_v3plus.aux_head=@heads.fcn', 'heads.fcn.channels=8'),
    runs.INSTANCES: (FEW,),
}
STEPS = 4


def measured(gin_file, folder):
    """{with XLA: (losses and metrics of the same few steps, scores of an evaluation)}."""
    found = {}
    for jit in (False, True):
        model_dir = folder / f'{jit}'
        made = runs.build(model_dir, *SETTINGS[gin_file], precision='float64', jit_compile=jit, gin_files=(gin_file,))
        engine = made.executor.engine
        settings = OptimizerStep(l2=1e-4, clip_norm=1.0, ema_decay=0.9)
        trainer = engine.trainer(made.task, made.optimizer, settings)
        result = trainer.loop(made.task.training_input(made.train_data, 2), 0)(STEPS)
        with trainer.averaged():
            source = made.task.evaluation_input(made.eval_data, 2)
            evaluation = Evaluator(made.task, engine).evaluate(source, 1)
        found[jit] = result, evaluation.metrics
        # A scene in which nothing is there or found has no rank.
        assert {'fixed/1', 'worst/1'} <= {figure.tag for figure in evaluation.figures}
        assert sum('/' not in figure.tag for figure in evaluation.figures) == 3, 'charts'
    return found


@pytest.fixture(scope='module')
def process():
    """Another process: what XLA compiles takes more than a gigabyte and is never freed."""
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as one:
        yield one


@pytest.fixture(scope='module', params=SETTINGS)
def numbers(request, process, tmp_path_factory):
    return process.submit(measured, request.param, tmp_path_factory.mktemp('jit')).result()


def test_training_step(numbers):
    (plain, _), (compiled, _) = numbers[False], numbers[True]
    assert plain.losses.shape in ((STEPS, 3), (STEPS, 6)), 'cross-entropy, the auxiliary one, or five losses, and L2'
    np.testing.assert_array_equal(compiled.counts, plain.counts)
    np.testing.assert_allclose(compiled.losses, plain.losses, rtol=1e-9)
    np.testing.assert_allclose(compiled.gradient_norm, plain.gradient_norm, rtol=1e-9)
    np.testing.assert_array_equal(compiled.index, plain.index)
    assert not np.allclose(plain.losses[0], plain.losses[-1], rtol=1e-3), 'no step was taken'


def test_evaluation_step(numbers):
    (_, plain), (_, compiled) = numbers[False], numbers[True]
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        assert compiled[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
