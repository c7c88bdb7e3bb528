"""Checks of lengths, periods and batch sizes."""

import pytest

from seg.engine.tensorflow.engine import TensorFlowEngine
from seg.errors import UserError
from seg.executor.run_config import RunConfig
from tests.executor import runs


def config(**settings) -> RunConfig:
    return RunConfig(**{'model_dir': 'run', 'train_steps': 10_000, 'batch_size': 16} | settings)


def test_defaults_fit_together():
    assert config().evaluation_batch_size == 16
    assert config(eval_batch_size=3).evaluation_batch_size == 3


@pytest.mark.parametrize('name', ['save_checkpoints_steps', 'eval_every'])
def test_period_that_is_no_multiple(name):
    with pytest.raises(UserError) as info:
        config(**{name: 250})
    message = str(info.value)
    assert f'RunConfig.{name} = 250' in message and 'iterations_per_loop = 100' in message
    assert f'{name} = 300' in message
    config(**{name: 300})


@pytest.mark.parametrize('train_steps', [1, 7, 99, 250])
def test_short_trials_need_no_other_periods(train_steps):
    """A period that never comes up is no mistake: `--gin_param=TRAIN_STEPS=7` works with every recipe."""
    config(train_steps=train_steps, eval_every=250, save_checkpoints_steps=1001)


@pytest.mark.parametrize(
    'name',
    [
        'train_steps',
        'batch_size',
        'eval_batch_size',
        'iterations_per_loop',
        'save_checkpoints_steps',
        'keep_checkpoint_max',
        'eval_every',
        'patience',
    ],
)
@pytest.mark.parametrize('value', [0, -1, 1.0, True, '8'])
def test_counts(name, value):
    with pytest.raises(UserError, match=rf'RunConfig.{name} = .*expected a whole number of at least 1'):
        config(**{name: value})


@pytest.mark.parametrize('name', ['seed', 'num_pictures'])
@pytest.mark.parametrize('value', [-1, 0.5, 2**31, None, False])
def test_numbers_from_0(name, value):
    with pytest.raises(UserError, match=rf'RunConfig.{name} = .*from 0'):
        config(**{name: value})


def test_batches_divide_among_replicas():
    assert config().per_replica(16, 4, 'batch_size') == 4
    with pytest.raises(UserError) as info:
        config().per_replica(10, 4, 'eval_batch_size')
    message = str(info.value)
    assert 'RunConfig.eval_batch_size = 10' in message and '4 replicas' in message
    assert 'global' in message and 'use 8 or 12' in message


def test_batch_smaller_than_the_replicas():
    with pytest.raises(UserError, match='use 4[.]'):
        config().per_replica(3, 4, 'batch_size')


def test_the_command_line_names_both_batch_and_replicas(tmp_path):
    """The check is made before anything is built."""
    from tests.executor import runs

    class TwoReplicas:
        num_replicas_in_sync = 2

    from seg import modes
    from seg.engine.tensorflow.engine import TensorFlowEngine

    settings = {'model_dir': str(tmp_path), 'mode': 'train', 'gin_params': (*runs.SMALL, 'BATCH_SIZE=3')}
    with pytest.raises(UserError, match='RunConfig.batch_size = 3 does not divide among 2 replicas'):
        modes.build(['gin/deeplab_shapes.gin'], **settings, engine=TensorFlowEngine(TwoReplicas()))


def test_only_a_mode_that_evaluates_divides_the_batch_of_the_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(TensorFlowEngine, 'num_devices', 2)
    with pytest.raises(UserError, match='RunConfig.eval_batch_size = 3 .*2 replicas'):
        runs.build(tmp_path, 'RunConfig.eval_batch_size=3')
    runs.build(tmp_path, 'RunConfig.eval_batch_size=3', mode='train')
