"""Whole runs from Python: what the modes return, what they leave in model_dir, and what they leave alone."""

import io
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from seg import config, modes
from seg.datasets import shapes
from seg.drawing.palette import distinct_palette
from seg.engine import set_up
from seg.errors import UserError
from seg.executor.executor import Executor
from seg.run import evaluated_images
from seg.weights import published
from tests.executor import runs

GIN_FILE = 'experiments/tiny_backbone/run.gin'
PARAMS = (
    *runs.SMALL,
    *runs.SMALL_PARTS[runs.SHAPES],
    'backbones.tiny.channels=8',
    'OptimizerStep.clip_norm=1.0',
    'RunConfig.eval_every=2',
    'RunConfig.save_checkpoints_steps=2',
    "losses.softmax_cross_entropy.class_weights='auto'",
    "experiment.class_colors={'background': '#102030'}",
)
FILES = {
    'config.gin', 'operative_config.gin', 'run.json', 'dataset_info.json', 'model_info.txt', 'best', 'train', 'eval',
    'metrics.jsonl', 'results.json', 'train.log', 'ckpt-00000002.safetensors', 'ckpt-00000004.safetensors',
}  # fmt: skip


def run(model_dir, gin_files=(), params=(), **settings):
    engine = set_up('one', 'float32', 'off')
    return modes.run(gin_files, model_dir=str(model_dir), gin_params=params, engine=engine, **settings)


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
    results = run(model_dir, [GIN_FILE], [*PARAMS, 'RunConfig.num_pictures=4'])
    return model_dir, results


def test_results(trained):
    model_dir, results = trained
    assert results == read_json(model_dir / 'results.json')
    assert results['step'] == 4 and results['examples'] == 6 and results['weights'] == 'ema'
    assert 0 <= results['metrics']['miou'] <= 1 and results['best']['miou'] >= results['metrics']['miou']


def test_images_of_the_evaluation_in_the_chosen_colours(trained):
    model_dir, _ = trained
    (path,) = evaluated_images.newest(str(model_dir / 'eval'))
    step, images = evaluated_images.read(path)
    assert step == 4 and len(images) == 6 and all(image.strip and 0 <= image.score <= 1 for image in images)
    assert images[0].headings == ['image', 'truth', 'prediction', 'errors'] and images[0].caption.startswith('mIoU ')
    assert {kind.partition(' ')[0] for image in images for kind in image.chosen} == {'fixed', 'worst', 'best'}
    colors = read_json(model_dir / 'dataset_info.json')['colors']
    assert colors[0] == [16, 32, 48] and colors[1:] == [list(color) for color in distinct_palette(7)]
    with Image.open(io.BytesIO(images[0].strip)) as strip:
        height, width = images[0].size
        assert strip.size == (4 * width, height)
        truth = np.asarray(strip, int)[:, width : 2 * width].reshape(-1, 3)
    assert min(np.abs(pixel - (16, 32, 48)).max() for pixel in truth) < 8


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
    versions = {'seg', 'python', 'tensorflow', 'onednn', 'keras', 'devices', 'processor', 'memory_gib'}
    assert versions <= set(record['versions'])
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


def test_a_complete_run_again_builds_nothing(trained, monkeypatch):
    model_dir, results = trained
    monkeypatch.setattr(Executor, '__init__', None)
    assert run(model_dir, [GIN_FILE], PARAMS) == results
    with pytest.raises(TypeError):  # With any other setting, also one that may change, everything is looked at.
        run(model_dir, [GIN_FILE], (*PARAMS, 'RunConfig.keep_checkpoint_max=3'))


def test_other_settings_are_refused(trained):
    model_dir, _ = trained
    before = contents(model_dir)
    text = message(model_dir, [GIN_FILE], (*PARAMS, 'OptimizerStep.clip_norm=2.0'))
    assert 'OptimizerStep.clip_norm: 1.0 -> 2.0' in text and '--fresh' in text
    assert contents(model_dir) == before


def test_another_length(trained, tmp_path, caplog):
    """The one training setting that may change: told, recorded, and kept over a later start."""
    caplog.set_level('INFO')
    model_dir = tmp_path / 'run'
    shutil.copytree(trained[0], model_dir)
    before = contents(model_dir)
    text = message(model_dir, [GIN_FILE], (*PARAMS, 'TRAIN_STEPS=3'))
    assert 'RunConfig.train_steps = 3' in text and '4 steps' in text and contents(model_dir) == before
    assert run(model_dir, [GIN_FILE], (*PARAMS, 'TRAIN_STEPS=6'))['step'] == 6
    assert 'RunConfig.train_steps: 4 -> 6, from step 4 on' in caplog.text
    run(model_dir, [GIN_FILE], (*PARAMS, 'TRAIN_STEPS=6'))
    record = read_json(model_dir / 'run.json')
    (change,) = record['train_steps_changes']
    assert record['train_steps'] == 6 and record['training']['RunConfig.train_steps'] == '6'
    assert (change['step'], change['before'], change['after']) == (4, 4, 6)
    lines = [json.loads(line) for line in (model_dir / 'metrics.jsonl').read_text().splitlines()]
    rates = {line['step']: line['learning_rate'] for line in lines if line['kind'] == 'train'}
    assert change['last_rate'] == rates[4] and rates[6] < change['next_rate']
    assert 'train_steps' not in message(
        model_dir, [GIN_FILE], (*PARAMS, 'TRAIN_STEPS=8', 'OptimizerStep.clip_norm=2.0')
    )


def reversed_classes(monkeypatch):
    monkeypatch.setattr(shapes.outlines, 'NAMES', shapes.outlines.NAMES[::-1])


@pytest.mark.parametrize(
    'change',
    [
        {},  # Finished.
        {'params': ['TRAIN_STEPS=6']},
        {'stopped': True},
        {'stopped': True, 'dataset_info': False},
        {'mode': 'eval'},
        {'mode': 'predict'},
    ],
)
def test_other_classes_are_refused(trained, tmp_path, monkeypatch, change):
    """In whatever state the run is, with both lists, and before anything is written."""
    model_dir = tmp_path / 'run'
    shutil.copytree(trained[0], model_dir)
    if change.get('stopped'):
        for path in (model_dir / 'ckpt-00000004.safetensors', model_dir / 'results.json'):
            path.unlink()
        shutil.rmtree(model_dir / 'best')
    if not change.get('dataset_info', True):
        (model_dir / 'dataset_info.json').unlink()
    reversed_classes(monkeypatch)
    before = contents(model_dir)
    params = (*PARAMS, *change.get('params', ()))
    text = message(model_dir, [GIN_FILE], params, mode=change.get('mode', 'train_and_eval'))
    first, last = (f"'background', '{name}'" for name in (shapes.outlines.NAMES[-1], shapes.outlines.NAMES[0]))
    assert first in text and last in text
    assert contents(model_dir) == before


def test_a_checkpoint_of_other_classes_is_not_evaluated(trained, tmp_path):
    """Where the file that says the classes was changed, with images of one's own."""
    model_dir = tmp_path / 'run'
    shutil.copytree(trained[0], model_dir)
    info = read_json(model_dir / 'dataset_info.json')
    (model_dir / 'dataset_info.json').write_text(json.dumps(info | {'class_names': info['class_names'][::-1]}))
    Image.new('RGB', (20, 20)).save(tmp_path / 'own.png')
    text = message(model_dir, mode='predict', input=str(tmp_path / 'own.png'), output=str(tmp_path / 'out'))
    assert 'ckpt-00000004.safetensors' in text and ', '.join(map(repr, info['class_names'])) in text
    assert not (tmp_path / 'out').exists()


def test_overfit_starts_anew_with_other_classes(trained, tmp_path, monkeypatch):
    """In a folder of its own; the classes recorded by the run itself stay."""
    model_dir = tmp_path / 'run'
    shutil.copytree(trained[0], model_dir)
    before = contents(model_dir)
    reversed_classes(monkeypatch)
    run(model_dir, [GIN_FILE], (*OVERFIT, 'overfit.target=0.0'), mode='overfit')
    after = contents(model_dir)
    assert all(after[path] == before[path] for path in before)
    assert read_json(model_dir / 'overfit' / 'dataset_info.json')['class_names'][1] == shapes.outlines.NAMES[0]


# Mistakes that a run and --validate refuse alike, before anything is written: bindings, and what the message holds.
REFUSED = {
    'best metric': (["RunConfig.best_metric='mIoU'"], ['RunConfig.best_metric', "'mIoU'", "Did you mean 'miou'?"]),
    'metric of the other task': (
        ['tasks.semantic.metrics=[@metrics.mean_iou, @metrics.coco_ap]'],
        ['tasks.semantic.metrics[1]', '@metrics.coco_ap', 'instances', 'label_map'],
    ),
    'missing weights': (["init.weights='nowhere.h5'"], ['init.weights', 'nowhere.h5']),
    'damaged weights': (["init.weights='damaged.safetensors'"], ['damaged.safetensors']),
    'part that is not there': (["OptimizerStep.part_rates={'bakbone': 0.1}"], ["'bakbone'", 'backbone']),
}


@pytest.mark.parametrize('name', REFUSED)
def test_a_run_and_validate_refuse_alike(tmp_path, monkeypatch, name):
    params, parts = REFUSED[name]
    params = [*PARAMS, *params]
    monkeypatch.syspath_prepend(str(pathlib.Path.cwd()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(published, '_names', lambda: ['resnet50'])  # For a message, it would build every backbone.
    (tmp_path / 'damaged.safetensors').write_bytes(b'{"a": 1}')
    told = set()
    for act in (run, validated):
        with pytest.raises(UserError) as caught:
            act(tmp_path / 'runs' / act.__name__, [GIN_FILE], params)
        told.add(str(caught.value))
    (text,) = told
    assert all(part in text for part in parts), text
    assert {path.name for path in (tmp_path / 'runs').rglob('*') if path.is_file()} == {'.lock'}


def validated(model_dir, gin_files=(), params=(), **settings):
    engine = set_up('one', 'float32', 'off')
    return modes.validate(gin_files, model_dir=str(model_dir), gin_params=params, engine=engine, **settings)


def test_validate_looks_at_the_run_in_the_directory(trained):
    model_dir, _ = trained
    before = contents(model_dir)
    assert 'Valid: shapes/train' in validated(model_dir, [GIN_FILE], PARAMS)
    changed = (*PARAMS, 'OptimizerStep.clip_norm=2.0')
    with pytest.raises(UserError, match='clip_norm: 1.0 -> 2.0'):
        validated(model_dir, [GIN_FILE], changed)
    assert 'Valid' in validated(model_dir, [GIN_FILE], changed, fresh=True)
    assert 'Valid' in validated(model_dir, mode='eval')
    with pytest.raises(UserError, match='ckpt-7'):
        validated(model_dir, mode='eval', checkpoint=str(model_dir / 'ckpt-7.safetensors'))
    assert contents(model_dir) == before


def test_validate_of_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / 'afile').touch()
    for place in ('/proc/run', tmp_path / 'afile', tmp_path / 'afile' / 'run'):
        with pytest.raises(UserError, match=f'--model_dir={place}: cannot write there'):
            validated(place, [GIN_FILE], PARAMS)


def test_validate_leaves_no_directory(tmp_path):
    assert 'Valid' in validated(tmp_path / 'runs' / 'mine', [GIN_FILE], PARAMS)
    assert not list(tmp_path.iterdir())


def test_metric_of_label_maps_in_a_run_of_instances(tmp_path):
    params = (*runs.SMALL, *runs.SMALL_PARTS[runs.INSTANCES], 'tasks.instance.metrics=[@metrics.mean_iou]')
    text = message(tmp_path / 'run', [runs.INSTANCES], params)
    assert 'tasks.instance.metrics[0]: @metrics.mean_iou' in text and 'label_map' in text


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


def test_eval_of_the_weights_themselves(trained):
    """Beside those of the averages, which are the run's."""
    model_dir, _ = trained
    averaged = run(model_dir, mode='eval')
    raw = run(model_dir, mode='eval', weights='raw')
    assert (averaged['weights'], raw['weights'], raw['settings']) == ('ema', 'raw', ['--weights = raw'])
    assert raw['metrics'] != averaged['metrics'] and read_json(model_dir / 'eval' / 'val-4.json') == averaged
    assert '--weights=rwa: expected ema or raw' in message(model_dir, mode='eval', weights='rwa')
    assert '--model=a.onnx' in message(model_dir, mode='eval', weights='raw', model='a.onnx')


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
    expected |= {'predictions.jsonl', 'legend.jpg', 'index.html'}
    assert {path.name for path in folder.iterdir()} == expected
    lines = [json.loads(line) for line in (folder / 'predictions.jsonl').read_text().splitlines()]
    assert [(line['file'], line['output'], line['scale']) for line in lines] == [(name, name, 1.0) for name in names]
    for name in names:
        image = Image.open(folder / f'{name}.png')
        assert image.mode == 'P' and image.size == (72, 40) and np.asarray(image).max() < 8
        assert image.getpalette()[:6] == [16, 32, 48, *distinct_palette(1)[0]]
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
    for part in ('miou', '0.310 after 2 steps', '0.9', 'overfit.target', '2 images', 'overfit/eval', 'learning rate'):
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
    assert modes.find('train').directory(['gin/a.gin', 'gin/b.gin'], None) == 'runs/b'
    assert modes.find('overfit').directory(['experiments/mine/run.gin'], None) == 'runs/mine/overfit'
    assert modes.find('eval').directory(['run.gin'], None) == 'runs/run'
    assert modes.find('overfit').directory(['gin/a.gin'], 'there') == 'there/overfit'
