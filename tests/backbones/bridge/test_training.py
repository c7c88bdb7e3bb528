"""Training with the models of other libraries: equal steps on both engines, and DeepLab and Mask R-CNN on the shapes.

All models take hours; a sample of them is part of every run:

    python -m pytest -m '' tests/backbones/bridge/test_training.py
"""

import gc
import shutil

import keras
import pytest

from seg import modes
from tests.backbones.bridge.models import ALL, marked
from tests.engine.jax.both import Both
from tests.executor import runs

_SMALL = ('mobilenet', 'vgg11_bn')
_SAMPLE = [model for model in ALL if model.name in _SMALL]
_MODELS = [*marked(_SAMPLE), *marked([model for model in ALL if model not in _SAMPLE], pytest.mark.slow)]


@pytest.fixture(autouse=True)
def _released(tmp_path):
    """Networks and states of dozens of models do not stay in memory, nor on the disk."""
    yield
    shutil.rmtree(tmp_path)
    keras.backend.clear_session()
    gc.collect()


@pytest.mark.parametrize('norm', ['sync', pytest.param('frozen', marks=pytest.mark.slow)])
@pytest.mark.parametrize('model', _MODELS)
def test_both_engines_take_equal_steps(model, norm, tmp_path):
    """To 1e-9 in float64: TensorFlow on one device, JAX, compiled, on two, and with 'sync' on one; each continues the
    other's run."""
    name = f'{model.library}:{model.name}'.replace('_', '.') + (f':{model.side}' if model.side else '')
    both = Both(f'{name}_{norm}_adamw', tmp_path, ['1', '2'] if norm == 'sync' else ['2'], steps=(1, 1))
    assert {pair: far for pair, far in both.distances().items() if far[0] > 1e-9} == {}


@pytest.mark.parametrize('gin_file', [runs.SHAPES, runs.INSTANCES])
@pytest.mark.parametrize('model', _MODELS)
def test_twenty_steps(model, gin_file, tmp_path):
    settings = [f'backbones.{model.library}.{key}={value!r}' for key, value in model.settings.items()]
    if gin_file == runs.SHAPES and not model.dilates:
        settings.append('models.deeplab_v3plus.output_stride=32')
    if gin_file == runs.INSTANCES and model.side:
        settings.append(f'tasks.instance.eval_size=({model.side}, {model.side})')
    params = [*runs.SMALL, *runs.SMALL_PARTS[gin_file], f'BACKBONE=@backbones.{model.library}', *settings]
    results = modes.run(
        [gin_file],
        model_dir=str(tmp_path / 'run'),
        mode='train_and_eval',
        gin_params=[*params, 'TRAIN_STEPS=20', 'RunConfig.eval_every=20', 'RunConfig.save_checkpoints_steps=20'],
    )
    assert results['step'] == 20
