"""Exported files that cannot be opened, descriptions, batches, and warm-up requests."""

import dataclasses
import json
import os
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from seg.errors import UserError
from seg.export import formats, model_file, warmup
from seg.export.description import Description

VALUES = {
    'task': 'semantic',
    'format': 'tflite',
    'quantize': 'none',
    'canvas': (8, 16),
    'batch': 2,
    'fills_canvas': False,
    'class_names': ('sky', 'Straße'),
    'original_ids': (7, 11),
    'colors': ((0, 0, 0), (1, 2, 255)),
    'ignore_label': 255,
    'data': 'mine/train',
    'weights': 'ema',
    'step': 3,
    'seg': '0.1.0',
}


def test_description_is_read_as_it_was_written():
    description = Description(**VALUES, check={'miou': 0.5}, forced=True)
    assert Description.read(description.text(), 'file') == description
    assert Description.read(Description(**VALUES).text().encode(), 'file') == Description(**VALUES)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('task', 'depth'),
        ('format', ['onnx']),
        ('canvas', [8]),
        ('canvas', [8, -1]),
        ('batch', 0),
        ('batch', True),
        ('class_names', []),
        ('class_names', 'ab'),
        ('original_ids', [1]),
        ('colors', [[1, 2, 3]]),
        ('colors', [[0, 0, 0], [0, 0, 256]]),
        ('step', 1.5),
        ('forced', 1),
        ('check', None),
        ('weights', 'best'),
    ],
)
def test_wrong_values(key, value):
    values = json.loads(Description(**VALUES).text()) | {key: value}
    with pytest.raises(UserError) as caught:
        Description.read(json.dumps(values), 'model.onnx')
    assert all(text in str(caught.value) for text in ('model.onnx', key, '--mode=export'))


@pytest.mark.parametrize(('content', 'said'), [('{', 'JSON'), ('[]', 'object'), ('{}', 'task')])
def test_no_description(content, said):
    with pytest.raises(UserError, match=said):
        Description.read(content, 'file')


def test_files_that_are_none(tmp_path):
    (tmp_path / 'model.pt').touch()
    (tmp_path / 'folder').mkdir()
    for name in ('absent.onnx', 'model.pt', 'folder'):
        with pytest.raises(UserError, match=rf'{name}.*model\.onnx, model\.tflite'):
            model_file.open_model(str(tmp_path / name))


@pytest.mark.parametrize(
    ('name', 'package'), [('model.onnx', 'onnxruntime'), ('model.tflite', 'ai_edge_litert'), ('model.xml', 'openvino')]
)
def test_a_missing_package(name, package, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b'x' * 100)
    monkeypatch.setattr(model_file.importlib, 'import_module', absent)
    with pytest.raises(UserError) as caught:
        model_file.open_model(str(tmp_path / name))
    assert all(text in str(caught.value) for text in (name, package, "pip install -e '.[export]'"))


def absent(name):
    raise ModuleNotFoundError(f'No module named {name!r}', name=name.partition('.')[0])


@pytest.mark.parametrize(
    ('name', 'package'), [('model.onnx', 'onnxruntime'), ('model.tflite', 'ai_edge_litert'), ('model.xml', 'openvino')]
)
def test_a_damaged_file(name, package, tmp_path):
    pytest.importorskip(package, reason="pip install -e '.[export]' brings it")
    (tmp_path / name).write_bytes(b'x' * 100)
    with pytest.raises(UserError, match=name):
        model_file.open_model(str(tmp_path / name))


def test_other_files_at_the_path(tmp_path):
    os.mkfifo(tmp_path / 'model.onnx')
    with pytest.raises(UserError, match=r'model\.onnx.*FIFO'):
        model_file.open_model(str(tmp_path / 'model.onnx'))
    (tmp_path / 'run [1]' / 'assets.extra').mkdir(parents=True)
    (tmp_path / 'run [1]' / 'saved_model.pb').touch()
    (tmp_path / 'run [1]' / '²').mkdir()  # A digit, and no number.
    (tmp_path / 'run [1]' / 'assets.extra' / 'seg.json').write_text(Description(**VALUES).text())
    with pytest.raises(UserError, match=r'run \[1\].*pattern'):
        model_file.open_model(str(tmp_path / 'run [1]'))


def test_a_damaged_saved_model(tmp_path):
    (tmp_path / 'assets.extra').mkdir()
    (tmp_path / 'saved_model.pb').write_bytes(b'x' * 100)
    with pytest.raises(UserError, match='not written by'):
        model_file.open_model(str(tmp_path))
    (tmp_path / 'assets.extra' / 'seg.json').write_text(Description(**VALUES).text())
    with pytest.raises(UserError, match='cannot be opened'):
        model_file.open_model(str(tmp_path))


def test_the_newest_version(tmp_path):
    for name in ('2', '10', 'other'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'saved_model.pb').touch()
    assert model_file.newest_version(str(tmp_path)).endswith('10')


class Broken(model_file.ModelFile):
    path, description = 'model.tflite', Description(**VALUES)

    def call(self, inputs):
        raise RuntimeError('shapes are not broadcastable')


def test_a_runtime_that_fails():
    with pytest.raises(UserError, match=r'model\.tflite.*broadcastable'):
        Broken().run(np.zeros((1, 8, 16, 3), np.uint8), np.int32([[8, 16]]))


class Doubled(model_file.ModelFile):
    """A file of two images a call: the sums of the sizes."""

    path, description = 'doubled', Description(**VALUES)
    calls = 0

    def call(self, inputs):
        assert inputs['images'].shape == (2, 8, 16, 3)
        self.calls += 1
        return {'sums': inputs['sizes'].sum(axis=1)}


@pytest.mark.parametrize(('count', 'calls'), [(1, 1), (2, 1), (5, 3)])
def test_a_fixed_batch_is_filled_up(count, calls):
    file = Doubled()
    sizes = np.arange(2 * count, dtype=np.int32).reshape(count, 2)
    found = file.run(np.zeros((count, 8, 16, 3), np.uint8), sizes)
    np.testing.assert_array_equal(found['sums'], sizes.sum(axis=1))
    assert file.calls == calls


def test_the_description_at_the_end_of_a_tflite_file(tmp_path):
    path = tmp_path / 'model.tflite'
    path.write_bytes(b'model')
    for step in (1, 2):
        lines = VALUES | {'class_names': ('sky\nabove', 'Straße')}
        formats._describe_tflite(str(path), dataclasses.replace(Description(**lines), step=step))
        assert path.read_bytes().startswith(b'modelPK')
        with zipfile.ZipFile(path) as archive:
            assert sorted(archive.namelist()) == ['labels.txt', 'seg.json']
            assert archive.read('labels.txt').decode() == 'sky above\nStraße\n'
            assert Description.read(archive.read('seg.json'), 'file').step == step


def fields(content):
    """The fields of a message of protobuf that are bytes, text or messages: [(number, content)]."""
    found = []
    while content:
        (number, wire), content = divmod(content[0], 8), content[1:]
        assert wire == 2
        length = shift = 0
        while True:
            length |= (content[0] & 127) << shift
            more, content, shift = content[0] > 127, content[1:], shift + 7
            if not more:
                break
        found.append((number, content[:length]))
        content = content[length:]
    return found


def test_warmup_requests(tmp_path):
    """The numbers of the fields are those of tensorflow_serving/apis."""
    images = np.arange(200, dtype=np.uint8).reshape(1, 200)
    warmup.write(str(tmp_path), [('serving_default', {'images': images, 'sizes': np.int32([[3, 4]])})])
    (record,) = tf.data.TFRecordDataset(str(tmp_path / 'assets.extra' / warmup.NAME)).as_numpy_iterator()
    ((predict_log, log),) = fields(record)
    ((request, content),) = fields(log)
    (spec, model), *inputs = fields(content)
    assert (predict_log, request, spec, [number for number, _ in inputs]) == (6, 1, 1, [2, 2])
    assert fields(model) == [(3, b'serving_default')]
    found = {}
    for _, entry in inputs:
        (_, name), (_, value) = fields(entry)
        found[name.decode()] = tf.make_ndarray(type(tf.make_tensor_proto(0)).FromString(value))
    np.testing.assert_array_equal(found['images'], images)
    np.testing.assert_array_equal(found['sizes'], [[3, 4]])
