"""`--mode=export`: files, what they say, and what is refused."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seg import files, modes
from seg.errors import UserError
from seg.export import check, exporting, formats, network, run_file
from seg.export.description import Description
from seg.export.model_file import open_model
from seg.prediction.canvas import upscaled
from tests.executor import runs
from tests.export import trained


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return trained.run(tmp_path_factory.mktemp('run'), runs.SHAPES)


@pytest.fixture(scope='module')
def exported(run):
    """The results of an export, and its folder."""
    patch = pytest.MonkeyPatch()
    patch.setattr(check, 'run_apart', run_file.run)
    results = modes.run(mode='export', format=['saved_model'], images=2, probabilities=True, **run)
    patch.undo()
    return results, results['output']


def test_the_file_computes_what_the_checkpoint_computes(exported):
    results, output = exported
    figures = results['files']['saved_model']
    assert results['written'] and figures['differing'] == 0 and figures['largest']['confidence'] < 1e-4
    assert figures['score'] == 'miou' and figures['score_before'] == figures['score_after']
    assert output.endswith('export') and sorted(os.listdir(output)) == ['export.json', 'saved_model']
    assert not [name for name in os.listdir(os.path.dirname(output)) if '.tmp-' in name]


def test_description(exported):
    _, output = exported
    file = open_model(os.path.join(output, 'saved_model'))
    found = file.description
    assert (found.task, found.format, found.canvas, found.batch) == ('semantic', 'saved_model', (64, 64), None)
    assert found.class_names[:2] == ('background', 'disc') and found.step == 4 and found.weights == 'raw'
    assert found.check['images'] == 2 and not found.forced
    assert set(found.outputs) == {'classes', 'confidence', 'probabilities'}
    with open(os.path.join(output, 'export.json'), encoding='utf-8') as index:
        values = json.load(index)['files']
    assert Description.of(values['saved_model'], 'export.json') == found


def test_run(exported):
    """Any number of images; the values outside of an image do not count."""
    file = open_model(os.path.join(exported[1], 'saved_model', '1'))
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    sizes = np.int32([[64, 64], [40, 30], [64, 64]])
    found = file.run(images, sizes)
    assert found['classes'].shape == (3, 64, 64) and found['classes'].dtype == np.uint8
    images[1, 40:], images[1, :, 30:] = 7, 7
    again = file.run(images[1:2], sizes[1:2])
    np.testing.assert_array_equal(again['classes'][0, :40, :30], found['classes'][1, :40, :30])
    with pytest.raises(ValueError, match='float32'):
        file.run(images.astype(np.float32), sizes)


@pytest.mark.parametrize('size', [(40, 50), (64, 64), (100, 81)])
def test_image_bytes(exported, size):
    """The signature `image_bytes` gives the class map of an image at its own size."""
    signature = tf.saved_model.load(os.path.join(exported[1], 'saved_model', '1')).signatures['image_bytes']
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    content = tf.io.encode_png(pixels)
    found = signature(image_bytes=content)
    assert found['classes'].shape == size
    small = pixels
    if size == (100, 81):
        small = np.asarray(Image.fromarray(pixels).resize((52, 64), Image.Resampling.BILINEAR))
    image = np.zeros((1, 64, 64, 3), np.uint8)
    height, width = small.shape[:2]
    image[0, :height, :width] = small
    whole = open_model(os.path.join(exported[1], 'saved_model')).run(image, np.int32([[height, width]]))
    probabilities = np.concatenate([band for _, band in upscaled(whole['probabilities'][0, :height, :width], size)])
    agreeing = np.mean(found['classes'].numpy() == probabilities.argmax(-1))
    assert agreeing == 1 if small is pixels else agreeing > 0.97  # TensorFlow and Pillow round differently.


def test_another_format_joins(exported, tmp_path):
    """The index keeps what is there of other formats."""
    output, description = tmp_path / 'export', open_model(os.path.join(exported[1], 'saved_model')).description
    for path, name in (('model.onnx', 'onnx'), ('model.tflite', 'tflite'), ('model.onnx', 'onnx')):
        made = tmp_path / 'made'
        made.mkdir(exist_ok=True)
        (made / path).write_text(name)
        exporting._install(str(made), str(output), {path: dataclasses.replace(description, format=name)})
    assert sorted(os.listdir(output)) == ['export.json', 'model.onnx', 'model.tflite']
    assert set(json.loads((output / 'export.json').read_text())['files']) == {'model.onnx', 'model.tflite'}


def install(folder, output, name, description):
    made = folder / 'made'
    made.mkdir(parents=True)
    (made / f'model.{name}').write_text('new')
    exporting._install(str(made), str(output), {f'model.{name}': dataclasses.replace(description, format=name)})


def test_two_exports_at_once(exported, tmp_path):
    description = open_model(os.path.join(exported[1], 'saved_model')).description
    with concurrent.futures.ThreadPoolExecutor() as pool:
        done = [
            pool.submit(install, tmp_path / str(i), tmp_path / 'out', ('onnx', 'tflite')[i % 2], description)
            for i in range(6)
        ]
    assert not [future.exception() for future in done if future.exception()]
    assert set(json.loads((tmp_path / 'out' / 'export.json').read_text())['files']) == {'model.onnx', 'model.tflite'}


def test_a_kill_while_files_are_moved(exported, run, tmp_path, monkeypatch):
    """The former file is whole, and the same command may be given again, also after a first export."""
    description = open_model(os.path.join(exported[1], 'saved_model')).description
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, 'write_json', killed)
        install(tmp_path / 'one', tmp_path / 'out', 'onnx', description)
    modes.validate(mode='export', format=['saved_model'], output=str(tmp_path / 'out'), **run)
    install(tmp_path / 'two', tmp_path / 'out', 'onnx', description)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'replace', killed)
        install(tmp_path / 'three', tmp_path / 'out', 'onnx', description)
    assert (tmp_path / 'out' / 'model.onnx').read_text() == 'new'
    assert list(json.loads((tmp_path / 'out' / 'export.json').read_text())['files']) == ['model.onnx']


def killed(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize('content', ['', '[]', '{"files": []}'])
def test_a_damaged_index_is_written_anew(content, exported, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'export.json').write_text(content)
    description = open_model(os.path.join(exported[1], 'saved_model')).description
    install(tmp_path / 'one', tmp_path / 'out', 'onnx', description)
    assert list(json.loads((tmp_path / 'out' / 'export.json').read_text())['files']) == ['model.onnx']


def test_the_temporary_folder_is_on_the_disk_of_the_output(tmp_path):
    """An output that exists may be a link to another disk; what killed exports left is removed."""
    (tmp_path / 'there').mkdir()
    (tmp_path / 'link').symlink_to('there')
    for left in (tmp_path / 'new.tmp-999999999', tmp_path / 'there' / 'export.tmp-999999999'):
        left.mkdir()
    for name, parent in (('link', 'there'), ('new', '.')):
        with exporting._scratch(str(tmp_path / name)) as scratch:
            assert os.path.samefile(os.path.dirname(scratch), tmp_path / parent)
    assert sorted(os.listdir(tmp_path)) == ['link', 'there'] and not os.listdir(tmp_path / 'there')


@pytest.mark.parametrize('force', [False, True])
def test_a_file_that_computes_something_else(run, tmp_path, force, monkeypatch):
    monkeypatch.setattr(check, 'run_apart', run_file.run)
    right = network.network

    def swapped(*arguments, **named):
        function = right(*arguments, **named)
        return lambda images, sizes: function(images[..., ::-1], sizes)

    monkeypatch.setattr(network, 'network', swapped)
    output = tmp_path / 'out'
    results = modes.run(
        mode='export', format='saved_model, saved_model', images=1, output=str(output), force=force, **run
    )
    fault = results['faults']['saved_model']
    assert 'pixels differ' in fault and results['written'] == force == output.exists()
    assert os.listdir(tmp_path) == (['out'] if force else [])
    failure = modes.find('export').failure(results)
    if force:
        assert failure is None and open_model(str(output / 'saved_model')).description.forced
    else:
        assert fault in failure and '--force' in failure


def test_a_description_that_cannot_be_stored(run, tmp_path, monkeypatch):
    def describe(path, description):
        raise ValueError('no such property')

    monkeypatch.setitem(
        formats.FORMATS,
        'saved_model',
        formats.FORMATS['saved_model']._replace(write=lambda *_: None, describe=describe),
    )
    with pytest.raises(UserError, match=r'--format=saved_model.*no such property'):
        modes.run(mode='export', format='saved_model', images=1, output=str(tmp_path / 'out'), **run)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        ({}, ['--format', 'saved_model, onnx, tflite, openvino']),
        ({'format': ['saved_model'], 'raw_heads': True}, ['--raw_heads', 'mask_rcnn', '--probabilities']),
        ({'format': ['onxx']}, ['--format=onxx', 'onnx']),
        ({'format': ['saved_model'], 'quantize': 'int4'}, ['--quantize', 'int4', 'int8']),
        ({'format': ['saved_model'], 'quantize': 'int8'}, ['--quantize=int8', '--format=saved_model', 'none']),
        ({'format': ['saved_model'], 'canvas': ['64']}, ['--canvas=64', 'height,width']),
        ({'format': ['saved_model'], 'canvas': ['8', '64']}, ['--canvas=8,64', '16']),
        ({'format': ['saved_model'], 'batch': 0}, ['--batch=0']),
        ({'format': ['saved_model'], 'images': 0}, ['--images=0']),
        ({'format': ['saved_model'], 'tolerance': 2.0}, ['--tolerance=2.0']),
        ({'format': ['saved_model'], 'weights': 'mean'}, ['--weights', 'mean', 'ema']),
        ({'format': ['saved_model'], 'weights': 'ema'}, ['no moving averages', 'ema_decay']),
    ],
)
def test_refused(run, flags, said):
    with pytest.raises(UserError) as caught:
        modes.validate(mode='export', **run | flags)
    assert all(text in str(caught.value) for text in said), caught.value


def test_an_output_of_others_is_kept(run, tmp_path):
    (tmp_path / 'saved_model').mkdir()
    with pytest.raises(UserError, match=r'saved_model.*export\.json'):
        modes.validate(mode='export', format=['saved_model'], output=str(tmp_path), **run)


def test_an_output_that_is_no_folder(run, tmp_path):
    (tmp_path / 'file').touch()
    (tmp_path / 'link').symlink_to('nowhere')
    for name, said in (('file', 'folder'), ('link', 'folder'), ('run [1]', 'pattern')):
        with pytest.raises(UserError) as caught:
            modes.validate(mode='export', format=['saved_model'], output=str(tmp_path / name), **run)
        assert f'--output={tmp_path / name}' in str(caught.value) and said in str(caught.value)


def test_missing_package(run, monkeypatch):
    monkeypatch.setitem(formats.FORMATS, 'onnx', formats.FORMATS['onnx']._replace(packages=('not_there',)))
    with pytest.raises(UserError, match=r"--format=onnx needs not_there: pip install -e '\.\[export\]'"):
        modes.validate(mode='export', format=['onnx'], **run)


def test_table():
    figures = {
        'differing': 0.00021,
        'agreeing': 0.99876,
        'largest': {'boxes': 0.25, 'scores': 1e-4},
        'score': 'mask_ap',
        'score_before': 0.5,
        'score_after': 0.499,
        'bytes': 1_234_567,
        'milliseconds_before': 12.0,
        'milliseconds_after': 3.0,
    }
    values = {'task': 'instance', 'format': 'tflite', 'quantize': 'float16', 'canvas': (64, 64), 'batch': 1}
    values |= {'fills_canvas': False, 'class_names': ('a',), 'original_ids': None, 'colors': (), 'ignore_label': 255}
    values |= {'data': 'd', 'weights': 'raw', 'step': 1, 'seg': '0', 'check': figures}
    head, line = exporting.table({'model.tflite': Description(**values)}).splitlines()
    assert head.split()[:3] == ['file', 'quantize', 'differing']
    for text in ('0.0210%', '99.8760%', 'boxes 0.25', 'mask_ap 0.5000 -> 0.4990', '1.23', '12.0 -> 3.0'):
        assert text in line


def test_the_example_of_the_page(exported, tmp_path, monkeypatch, capsys):
    """`docs/export.md` opens a file from Python."""
    page = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'export.md'
    (block,) = re.findall(r'^```python\n(.*?)^```$', page.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)
    (tmp_path / 'runs' / 'mine').mkdir(parents=True)
    (tmp_path / 'runs' / 'mine' / 'export').symlink_to(exported[1])
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert "'classes': (1, 64, 64)" in capsys.readouterr().out
