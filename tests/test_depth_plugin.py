"""A task outside the package, experiments/depth_regression: all modes work with it, and lower is better."""

import json
import logging
import pathlib

import numpy as np
import pytest
from PIL import Image

from seg import modes
from seg.engine import set_up
from seg.errors import UserError

GIN_FILE = 'experiments/depth_regression/run.gin'
PARAMS = (
    'TRAIN_STEPS=12',
    'BATCH_SIZE=4',
    'CROP=(32, 32)',
    'datasets.balls.num_examples=8',
    'eval/datasets.balls.num_examples=5',
    'RunConfig.iterations_per_loop=2',
    'RunConfig.eval_every=4',
    'RunConfig.save_checkpoints_steps=4',
    'RunConfig.num_pictures=1',
    'models.deeplab_v3plus.output_stride=16',
    'schedules.cosine.warmup_steps=2',
    'experiment.optimizer=@optimizers.sgd',  # AdamW has many more operations to trace.
    'optimizers.sgd.schedule=@schedules.cosine',
)
ROOT = pathlib.Path(__file__).resolve().parents[1]


def act(function, model_dir, params=(), mode='train_and_eval', gin_files=(GIN_FILE,), **settings):
    params = (*PARAMS, *params) if gin_files else params
    engine = set_up('one', 'float32', 'off')
    return function(gin_files, model_dir=str(model_dir), gin_params=params, mode=mode, engine=engine, **settings)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp('depth') / 'run'
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield model_dir, act(modes.run, model_dir)


def test_best_checkpoint_has_the_lowest_error(trained):
    model_dir, results = trained
    errors = {line['step']: line['rmse'] for line in lines(model_dir / 'metrics.jsonl') if line['kind'] == 'eval'}
    assert list(errors) == [4, 8, 12] and results['examples'] == 5
    assert results['best']['step'] == min(errors, key=errors.get)
    assert results['best']['rmse'] == min(errors.values())
    assert json.loads((model_dir / 'run.json').read_text())['higher_is_better'] is False


def test_eval(trained):
    model_dir, results = trained
    found = act(modes.run, model_dir, mode='eval', gin_files=())
    assert found['metrics'] == pytest.approx(results['metrics'], rel=1e-5)


def test_predict(trained, tmp_path):
    """The evaluation data, and a file of another size."""
    model_dir, _ = trained
    act(modes.run, model_dir, mode='predict', gin_files=(), output=str(tmp_path / 'data'))
    assert len(lines(tmp_path / 'data' / 'predictions.jsonl')) == 5
    Image.new('RGB', (70, 50), (90, 90, 90)).save(tmp_path / 'grey.png')
    given = {'input': str(tmp_path / 'grey.png'), 'output': str(tmp_path / 'files')}
    found = act(modes.run, model_dir, mode='predict', gin_files=(), **given)
    (line,) = lines(tmp_path / 'files' / 'predictions.jsonl')
    depth = np.asarray(Image.open(tmp_path / 'files' / 'grey.png'))
    assert found['segmented'] == 1 and depth.shape == (50, 70) and depth.dtype == np.uint16
    assert line['mean_depth'] == pytest.approx(depth.mean() / 1000, abs=2e-3)


def test_report(trained):
    model_dir, results = trained
    modes.run(model_dir=str(model_dir), mode='report')
    page = (model_dir / 'report.html').read_text()
    assert f'{results["metrics"]["rmse"]:.4f}' in page and 'Rmse' in page and 'mIoU' not in page


def test_resumes_and_overfits(trained, caplog):
    model_dir, _ = trained
    with caplog.at_level(logging.INFO):
        act(modes.run, model_dir, ('TRAIN_STEPS=12',))
    assert 'Complete: step 12.' in caplog.text
    overfit = ('overfit.num_images=2', 'overfit.train_steps=4', 'overfit.eval_every=2', 'overfit.target=50.0')
    assert act(modes.run, model_dir, overfit, mode='overfit')['step'] == 2


@pytest.mark.parametrize(
    ('param', 'parts'),
    [
        ('tasks.depth.losses=[@losses.dice]', ['tasks.depth.losses[0]: @losses.dice', "'label_map'", "'depth'"]),
        ('tasks.depth.metrics=[@metrics.coco_ap]', ['tasks.depth.metrics[0]: @metrics.coco_ap', "'instances'"]),
        ('experiment.train_data=@datasets.shapes', ['datasets.shapes', "'depth'", "'label_map'"]),
        ("RunConfig.best_metric='loss'", ['RunConfig.best_metric', "'loss'", 'rmse, delta1.']),
    ],
)
def test_parts_of_other_tasks_are_refused(tmp_path, monkeypatch, param, parts):
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(UserError) as caught:
        act(modes.validate, tmp_path / 'run', (param,))
    assert all(part in str(caught.value) for part in parts)


def test_its_data_are_refused_by_other_tasks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    params = ('experiment.task=@tasks.semantic', 'tasks.semantic.model=@models.deeplab_v3plus')
    with pytest.raises(UserError, match=r"experiment\.train_data: @datasets\.balls .*'depth'.*'label_map'"):
        act(modes.validate, tmp_path / 'run', params)
