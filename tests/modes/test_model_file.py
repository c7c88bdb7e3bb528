"""`--model=FILE`: predictions and scores of an exported file are those of the checkpoint that it came from."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

import seg
from seg import modes
from seg.engine import set_up
from seg.errors import UserError
from seg.export import check, exporting, model_file, run_file
from seg.export.description import Description
from tests.executor import runs

PARAMS = (*runs.SMALL, *runs.SMALL_PARTS[runs.SHAPES], runs.BACKBONE)


class Fake:
    """An exported file that computes by the run's own predictor, as a perfect export would."""

    def __init__(self, model_dir, probabilities=True):
        experiment = modes.build(model_dir=str(model_dir), mode='predict', engine=engine())
        self._predictor = experiment.executor.predictor()
        info, self.path = experiment.info, str(model_dir / 'export' / 'model.onnx')
        self._names = ('classes', 'confidence', 'probabilities')[: 3 if probabilities else 2]
        self.description = Description(
            task='semantic', format='onnx', quantize='none', canvas=experiment.task.canvas(info.max_size), batch=2,
            fills_canvas=False, class_names=info.class_names, original_ids=info.original_ids, colors=info.colors,
            ignore_label=info.ignore_label, data=info.name, weights='ema', step=4, seg='0',
            outputs=dict.fromkeys(self._names, ''),
        )  # fmt: skip

    def run(self, images, sizes):
        assert images.dtype == np.uint8 and images.shape[1:3] == self.description.canvas
        found = self._predictor({'image': images.astype(np.float32), 'size': sizes})
        return {name: np.stack([found.get(name, i) for i in range(len(images))]) for name in self._names}


def engine():
    return set_up('one', 'float32', 'off')


def run(**settings):
    return modes.run(engine=engine(), **settings)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The directory of a short training."""
    model_dir = tmp_path_factory.mktemp('trained') / 'run'
    settings = {'gin_params': PARAMS, 'plugin_specs': [runs.BACKBONE_PLUGIN], 'engine': engine()}
    modes.run([runs.SHAPES], model_dir=str(model_dir), mode='train', **settings)
    return model_dir


@pytest.fixture
def exported(trained, monkeypatch):
    """A perfect export of the training, which `open_model` opens."""
    fake = Fake(trained)
    monkeypatch.setattr(model_file, 'open_model', lambda path: fake)
    return fake


def test_scores_are_those_of_the_checkpoint(trained, exported):
    of_run = run(model_dir=str(trained), mode='eval')
    of_file = run(model_dir=str(trained), mode='eval', model=exported.path)
    assert of_file['metrics'] == {name: of_run['metrics'][name] for name in of_file['metrics']}
    assert of_file['checkpoint'] == exported.path and of_file['step'] == 4 and 'miou' in of_file['metrics']
    files = [json.loads(path.read_text()) for path in (trained / 'eval').glob('val-4*.json')]
    assert sorted(len(file['settings']) for file in files) == [0, 1]


def test_predictions_are_those_of_the_checkpoint(trained, exported, tmp_path):
    photos = tmp_path / 'photos'
    photos.mkdir()
    for i, size in enumerate([(40, 50), (150, 90), (64, 64)]):
        pixels = np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f'{i}.png')
    run(model_dir=str(trained), mode='predict', input=[str(photos)], output=str(tmp_path / 'a'), probabilities=True)
    results = run(
        mode='predict', model=exported.path, input=[str(photos)], output=str(tmp_path / 'b'), probabilities=True
    )
    assert results['segmented'] == 3 and results['checkpoint'] == exported.path
    of_run, of_file = (
        {path.name: path.read_bytes() for path in pathlib.Path(tmp_path / name).iterdir()} for name in 'ab'
    )
    assert set(of_run) == set(of_file)
    assert all(of_run[name] == of_file[name] for name in of_run if not name.endswith('.npz'))


def test_loaded_models_predict_what_the_mode_writes(trained, exported, tmp_path):
    """`seg.load` of the run, and of the file, in one process and by turns."""
    paths = [tmp_path / f'{i}.png' for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40 + 30 * i, 50, 3), np.uint8)).save(path)
    run(model_dir=str(trained), mode='predict', input=list(map(str, paths)), output=str(tmp_path / 'out'))
    pathlib.Path(exported.path).parent.mkdir(exist_ok=True)
    pathlib.Path(exported.path).touch()
    of_run, of_file = (seg.load(path, engine=engine()) for path in (trained, exported.path))
    for model in (of_run, of_file, of_run):
        for path, found in zip(paths, model(paths), strict=True):
            written = np.asarray(Image.open(tmp_path / 'out' / path.name))
            np.testing.assert_array_equal(found.classes, written)
            np.testing.assert_array_equal(model(path).classes, written)
    lines = [json.loads(line) for line in (tmp_path / 'out' / 'predictions.jsonl').read_text().splitlines()]
    assert lines[1]['mean_confidence'] == pytest.approx(float(of_run(paths[1]).confidence.mean()), abs=1e-5)
    assert of_run.class_names == of_file.class_names and len(of_run.class_names) == 8
    assert of_run.path.endswith('ckpt-00000004.safetensors') and of_file.path == exported.path


def test_the_keras_model_of_a_run(trained, tmp_path):
    """Called as Keras' users do; `save` says what to do instead."""
    model = seg.load(trained, engine=engine())
    network, images = model.model, np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    expected = np.stack([found.classes for found in model(list(images))])
    calls = (network(images), network({'image': images}), network.predict(images, batch_size=2, verbose=0))
    for outputs in calls:
        agreeing = np.argmax(outputs['logits'], -1) == expected
        assert agreeing.mean() > 0.999  # Constants or variables: the last bits differ.
    network.save_weights(tmp_path / 'a.weights.h5')
    network.load_weights(tmp_path / 'a.weights.h5')
    network.summary(print_fn=lambda *_, **__: None)
    for call in (lambda: network.save(tmp_path / 'a.keras'), network.to_json):
        with pytest.raises(UserError, match=r'seg\.load.*save_weights.*--mode=export'):
            call()
    with pytest.raises(UserError, match='--mode=export'):
        network.export(tmp_path / 'a')
    assert {path.name for path in tmp_path.iterdir()} == {'a.weights.h5'}
    with pytest.raises(UserError, match=r'\[64, 64, 3\]'):
        network(images[0])


@pytest.mark.parametrize('path', ['missing', '.', 'a.txt', 3])
def test_what_cannot_be_loaded(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.txt').touch()
    with pytest.raises(UserError, match=f'{path}.*expected') as caught:
        seg.load(path, engine=engine())
    assert 'model.onnx' in str(caught.value) or path == 3


def test_settings_without_a_gin_file(exported, tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / 'a.png')
    call = {'mode': 'predict', 'model': exported.path, 'input': [str(tmp_path / 'a.png')], 'engine': engine()}
    assert exported.path in modes.validate(gin_params=['predict.opacity=0.2'], **call)
    with pytest.raises(UserError, match='RunConfig.train_steps'):
        modes.validate(gin_params=['RunConfig.train_steps=2'], **call)
    results = modes.run(**call)
    assert results['output'] == str(pathlib.Path(exported.path).parent / 'predictions' / 'input')


def test_a_file_without_probabilities(trained, monkeypatch, tmp_path):
    fake = Fake(trained, probabilities=False)
    monkeypatch.setattr(model_file, 'open_model', lambda path: fake)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8)).save(tmp_path / 'a.png')
    call = {'mode': 'predict', 'model': fake.path, 'input': [str(tmp_path / 'a.png')], 'output': str(tmp_path / 'out')}
    run(**call)
    assert Image.open(tmp_path / 'out' / 'a.png').size == (200, 300)
    for more in ({'probabilities': True}, {'gin_params': ["predict.large_pictures='tile'"]}):
        with pytest.raises(UserError, match='probabilit'):
            run(**call, **more)


def test_a_run_in_another_runtime(trained, tmp_path, monkeypatch):
    """It is exported once for a checkpoint; the predictions are those of the run's own framework."""
    monkeypatch.setattr(check, 'run_apart', run_file.run)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 90, 3), np.uint8)).save(tmp_path / 'a.png')
    call = {'model_dir': str(trained), 'mode': 'predict', 'input': [str(tmp_path / 'a.png')]}
    run(output=str(tmp_path / 'own'), **call)
    kept = trained / 'export' / 'predict' / 'saved_model'
    for _ in range(2):
        results = run(runtime='saved_model', output=str(tmp_path / 'other'), **call)
        assert results['checkpoint'] == str(kept) and results['segmented'] == 1
        maps = [np.asarray(Image.open(tmp_path / name / 'a.png')) for name in ('own', 'other')]
        assert np.mean(maps[0] == maps[1]) > 0.999
        monkeypatch.setattr(exporting, 'export', None)
    (checkpoint,) = trained.glob('ckpt-*.safetensors')
    os.utime(checkpoint)  # As of a run that was started over.
    with pytest.raises(TypeError):
        run(runtime='saved_model', **call)
    monkeypatch.setattr(exporting, 'export', lambda *_: {'written': False, 'faults': {'saved_model': 'pixels differ'}})
    with pytest.raises(UserError, match='--runtime=saved_model: pixels differ'):
        run(runtime='saved_model', **call)


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        ({'runtime': 'torch'}, ['--runtime=torch', 'openvino']),
        ({'runtime': 'saved_model', 'model': 'a.onnx'}, ['--runtime=saved_model', '--model=a.onnx']),
    ],
)
def test_runtimes_that_cannot_be(trained, settings, named):
    with pytest.raises(UserError) as caught:
        run(mode='predict', model_dir=str(trained), **settings)
    assert all(text in str(caught.value) for text in named)


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        ({'mode': 'predict'}, '--input'),
        ({'mode': 'eval'}, '--model_dir'),
        ({'mode': 'predict', 'checkpoint': 'best'}, '--checkpoint=best'),
    ],
)
def test_calls_that_cannot_be(exported, settings, named):
    with pytest.raises(UserError, match=named):
        run(model=exported.path, **settings)


def test_a_file_of_other_classes(trained, exported):
    names = tuple(reversed(exported.description.class_names))
    exported.description = dataclasses.replace(exported.description, class_names=names)
    with pytest.raises(UserError, match='other classes'):
        run(model_dir=str(trained), mode='eval', model=exported.path)


def test_images_beyond_the_canvas(trained, exported):
    exported.description = dataclasses.replace(exported.description, canvas=(16, 16))
    with pytest.raises(UserError, match='--canvas='):
        run(model_dir=str(trained), mode='eval', model=exported.path)
