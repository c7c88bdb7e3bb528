"""Whole runs from Python: what the modes return, what they leave in model_dir, and what they leave alone."""

import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from seg import config, experiment
from seg.datasets import shapes
from seg.errors import UserError
from seg.executor import hardware as hardware_module
from seg.executor.executor import Executor
from tests.executor import runs

GIN_FILE = 'experiments/tiny_backbone/run.gin'
PARAMS = (
    *runs.SMALL,
    'backbones.tiny.channels=8',
    'OptimizerStep.clip_norm=1.0',
    'RunConfig.eval_every=2',
    'RunConfig.save_checkpoints_steps=2',
    "losses.softmax_cross_entropy.class_weights='auto'",
)
FILES = {
    'config.gin', 'operative_config.gin', 'run.json', 'dataset_info.json', 'model_info.txt', 'best', 'train', 'eval',
    'metrics.jsonl', 'results.json', 'ckpt-00000002.safetensors', 'ckpt-00000004.safetensors',
}  # fmt: skip


def run(model_dir, gin_files=(), params=(), **settings):
    hardware = hardware_module.set_up('one', 'float32', 'off')
    return experiment.run(gin_files, model_dir=str(model_dir), gin_params=params, hardware=hardware, **settings)


def message(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        run(*args, **kwargs)
    return str(caught.value)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in pathlib.Path(folder).rglob('*') if path.is_file()}


def read_json(path):
    return json.loads(path.read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A short training: its directory and its results."""
    model_dir = tmp_path_factory.mktemp('trained') / 'run'
    results = run(model_dir, [GIN_FILE], PARAMS)
    return model_dir, results


def test_results(trained):
    model_dir, results = trained
    assert results == read_json(model_dir / 'results.json')
    assert results['step'] == 4 and results['examples'] == 6 and results['weights'] == 'ema'
    assert 0 <= results['metrics']['miou'] <= 1 and results['best']['miou'] >= results['metrics']['miou']


def test_files_in_model_dir(trained):
    model_dir, _ = trained
    assert {path.name for path in model_dir.iterdir() if not path.name.startswith('.')} == FILES
    lines = [json.loads(line) for line in (model_dir / 'metrics.jsonl').read_text().splitlines()]
    assert [(line['kind'], line['step']) for line in lines] == [('train', 2), ('eval', 2), ('train', 4), ('eval', 4)]
    info = (model_dir / 'model_info.txt').read_text()
    assert 'backbone: ' in info and 'trainable weights' in info and 'stage1_1_conv/kernel (3, 3, 3, 8)' in info


def test_run_json(trained):
    model_dir, _ = trained
    record = read_json(model_dir / 'run.json')
    expected = {'mode': 'train_and_eval', 'precision': 'float32', 'replicas': 1, 'global_batch': 4}
    expected |= {'best_metric': 'miou', 'command': []}  # No command line asked for it.
    assert expected.items() <= record.items() and record['strategy'] == 'OneDeviceStrategy'
    assert {'seg', 'python', 'tensorflow', 'keras', 'devices', 'processor', 'memory_gib'} <= set(record['versions'])
    assert record['training']['backbones.tiny.channels'] == '8'
    assert not any(key.startswith(('eval/', 'metrics.', 'RunConfig.eval_every')) for key in record['training'])


def test_settings_on_disk(trained):
    model_dir, _ = trained
    snapshot = (model_dir / 'config.gin').read_text()
    assert 'import experiments.tiny_backbone.plugin' in snapshot and 'backbones.tiny.channels = 8' in snapshot
    operative = (model_dir / 'operative_config.gin').read_text()
    assert 'RunConfig.best_metric = ' in operative and 'resnet18' not in operative


def test_auto_class_weights_are_counted_once(trained):
    model_dir, _ = trained
    pixels, present = read_json(model_dir / 'dataset_info.json')['class_histogram']
    assert len(pixels) == 8 and sum(pixels) == 6 * 64 * 64 and all(p <= q for p, q in zip(pixels, present, strict=True))


def test_the_same_command_again_trains_no_further(trained):
    model_dir, results = trained
    log = (model_dir / 'metrics.jsonl').read_text()
    assert run(model_dir, [GIN_FILE], PARAMS) == results
    assert (model_dir / 'metrics.jsonl').read_text() == log


def test_other_settings_are_refused(trained):
    model_dir, _ = trained
    before = contents(model_dir)
    text = message(model_dir, [GIN_FILE], (*PARAMS, 'OptimizerStep.clip_norm=2.0'))
    assert 'OptimizerStep.clip_norm: 1.0 -> 2.0' in text and '--fresh' in text
    assert contents(model_dir) == before


def test_eval_reads_the_settings_of_the_run(trained, monkeypatch):
    """Without a gin file and without the training data; an override applies; nothing of the run is rewritten."""
    model_dir, results = trained
    monkeypatch.setattr(shapes.Shapes, 'class_histogram', lambda self: pytest.fail('the training data was counted'))
    before = contents(model_dir)
    evaluated = run(model_dir, mode='eval', params=['RunConfig.eval_batch_size=3'])
    assert config.operative_values()['RunConfig.eval_batch_size'] == '3'
    assert evaluated['metrics'] == pytest.approx(results['metrics'], rel=1e-4)
    assert evaluated['checkpoint'].endswith('ckpt-00000004.safetensors')
    after = contents(model_dir)
    assert {str(path) for path in after.keys() - before.keys()} == {'eval/val-4.json'}
    assert all(after[path] == before[path] for path in before)
    assert read_json(model_dir / 'eval' / 'val-4.json') == evaluated


def test_eval_with_other_settings_has_a_file_of_its_own(trained):
    model_dir, _ = trained
    plain = run(model_dir, mode='eval')
    before = contents(model_dir)
    mirrored = run(model_dir, mode='eval', params=['tasks.semantic.eval_flip=True'])
    after = contents(model_dir)
    assert all(after[path] == before[path] for path in before)
    (path,) = (str(path) for path in after.keys() - before.keys() if 'confusion' not in str(path))
    assert re.fullmatch(r'eval/val-4-[0-9a-f]{6}\.json', path)
    assert read_json(model_dir / path) == mirrored
    assert mirrored['settings'] == ['tasks.semantic.eval_flip = True'] and plain['settings'] == []
    assert mirrored['metrics'] != plain['metrics']


def test_eval_of_the_best_checkpoint(trained):
    model_dir, results = trained
    evaluated = run(model_dir, mode='eval', checkpoint='best')
    assert evaluated['step'] == results['best']['step'] and '/best/' in evaluated['checkpoint']
    assert evaluated['metrics']['miou'] == pytest.approx(results['best']['miou'], rel=1e-4)


def test_eval_of_another_gin_file_and_checkpoint(trained):
    model_dir, _ = trained
    path = model_dir / 'ckpt-00000002.safetensors'
    assert run(model_dir, [GIN_FILE], PARAMS, mode='eval', checkpoint=str(path))['step'] == 2
    text = message(model_dir, mode='eval', checkpoint=str(model_dir / 'ckpt-7.safetensors'))
    assert 'ckpt-7.safetensors' in text


def test_predict_the_evaluation_data(trained):
    """At native size, which is no multiple of the stride here, with everything that is written for files."""
    model_dir, _ = trained
    params = ['eval/datasets.shapes.size=(40, 72)', 'eval/datasets.shapes.num_examples=3']
    results = run(model_dir, mode='predict', params=params)
    folder = model_dir / 'predictions' / 'val'
    assert results['pictures'] == results['segmented'] == 3 and results['output'] == str(folder)
    names = [f'val-0000{i}' for i in range(3)]
    expected = {name + ending for name in names for ending in ('.png', '.overlay.jpg')}
    expected |= {'predictions.jsonl', 'legend.jpg'}
    assert {path.name for path in folder.iterdir()} == expected
    lines = [json.loads(line) for line in (folder / 'predictions.jsonl').read_text().splitlines()]
    assert [(line['file'], line['output'], line['scale']) for line in lines] == [(name, name, 1.0) for name in names]
    for name in names:
        image = Image.open(folder / f'{name}.png')
        assert image.mode == 'P' and image.size == (72, 40) and np.asarray(image).max() < 8
        assert image.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
        assert Image.open(folder / f'{name}.overlay.jpg').size == (72, 40)


OVERFIT = (*PARAMS, 'overfit.num_images=2', 'overfit.train_steps=2', 'overfit.eval_every=2')


def test_overfit_in_a_folder_of_its_own(trained):
    model_dir, _ = trained
    before = contents(model_dir)
    results = run(model_dir, [GIN_FILE], (*OVERFIT, 'overfit.target=0.0'), mode='overfit')
    assert results['step'] == 2 and results['examples'] == 2
    after = contents(model_dir)
    assert all(after[path] == before[path] for path in before)
    assert {path.parts[0] for path in after.keys() - before.keys()} == {'overfit'}
    assert read_json(model_dir / 'overfit' / 'results.json') == results


def test_overfit_that_misses_its_target(tmp_path, monkeypatch):
    reached = {'step': 2, 'metrics': {'miou': 0.31}}
    monkeypatch.setattr(Executor, 'train_and_evaluate', lambda self, *inputs, stop: reached)
    text = message(tmp_path, [GIN_FILE], OVERFIT, mode='overfit')
    for part in ('miou reached 0.310 after 2 steps', '0.9', '2 images by heart', 'overfit/eval', 'learning rate'):
        assert part in text


def test_fresh_removes_the_run_and_nothing_else(tmp_path, monkeypatch):
    """A fresh start and an aborted one: counts of other data are not taken over."""
    monkeypatch.setattr(Executor, 'train', lambda self, source: None)
    for name in ('metrics.jsonl', 'my_notes.txt'):
        (tmp_path / name).write_text('{}\n')
    run(tmp_path, [GIN_FILE], PARAMS, mode='train', fresh=True)
    assert (tmp_path / 'my_notes.txt').exists() and not (tmp_path / 'metrics.jsonl').exists()
    run(tmp_path, [GIN_FILE], (*PARAMS, 'datasets.shapes.num_examples=2'), mode='train')
    pixels, _ = read_json(tmp_path / 'dataset_info.json')['class_histogram']
    assert sum(pixels) == 2 * 64 * 64


def test_classes_of_training_and_evaluation_differ(tmp_path):
    voc = ('experiment.eval_data=@eval/datasets.voc_layout', f"datasets.voc_layout.data_dir='{voc_folder(tmp_path)}'")
    text = message(tmp_path / 'run', [GIN_FILE], (*PARAMS, *voc, "eval/datasets.voc_layout.split='val'"))
    for part in ("shapes/train: 'background', 'disc'", "'background', 'aeroplane'", 'voc_layout/val', 'same names'):
        assert part in text
    assert not (tmp_path / 'run' / 'config.gin').exists()


def voc_folder(root, splits=('train', 'val')):
    """A folder in the layout of PASCAL VOC with two small images."""
    random = np.random.default_rng(0)
    voc = root / 'VOC2012'
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (voc / name).mkdir(parents=True)
    for stem, size in (('one', (60, 80)), ('two', (72, 50))):
        Image.fromarray(random.integers(0, 255, (*size, 3), np.uint8)).save(voc / 'JPEGImages' / f'{stem}.jpg')
        label = Image.fromarray(random.choice(np.uint8([0, 1, 20, 255]), size))
        label.save(voc / 'SegmentationClass' / f'{stem}.png')
    for split in splits:
        (voc / 'ImageSets' / 'Segmentation' / f'{split}.txt').write_text('one\ntwo\n')
    return root


def test_mode_without_settings(tmp_path):
    assert '--gin_file' in message(tmp_path)
    assert 'Did you mean eval?' in message(tmp_path, [GIN_FILE], mode='evall')


def test_directory():
    assert experiment.directory(['gin/a.gin', 'gin/b.gin'], None, 'train') == 'runs/b'
    assert experiment.directory(['experiments/mine/run.gin'], None, 'overfit') == 'runs/mine/overfit'
    assert experiment.directory(['run.gin'], None, 'eval') == 'runs/run'
    assert experiment.directory(['gin/a.gin'], 'there', 'overfit') == 'there/overfit'
