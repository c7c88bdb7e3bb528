"""The networks of `--raw_heads`, with post-processing in numpy, find what the model finds."""

import ast
import importlib.util
import json
import os
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from seg.errors import UserError
from seg.export import heads, network, postprocess
from seg.export.description import Description
from seg.export.model_file import open_model
from seg.masks import paste
from seg.ops import dispatch
from seg.ops.nms import nms
from tests.export.test_formats import needs
from tests.export.test_image_bytes import BOXES, SIZE
from tests.models import small_rcnn

CANVAS = (64, 96)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *CANVAS, 3)).astype(np.uint8)
IMAGES[2] = 0
SIZES = np.int32([CANVAS, (40, 50), CANVAS])
CLOSE = {'boxes': 1e-2, 'scores': 1e-4, 'classes': 0, 'masks': 1e-3, 'num_detections': 0}


class Model:
    """A small model, its networks, and what it finds."""

    def __init__(self, folder, **settings):
        self.model = small_rcnn.make(**settings)
        small_rcnn.randomize(self.model)
        self.heads = heads.Heads(self.model, CANVAS, str(folder))
        with dispatch.portable():
            found = network.network(self, 'instance', CANVAS, False)(tf.constant(IMAGES), tf.constant(SIZES))
        self.expected = {name: value.numpy() for name, value in found.items()}

    def predict(self, batch):
        return self.model(batch, training=False)

    def run(self, name, inputs):
        """Runs a traced network."""
        traced = self.heads.networks(None)[name]
        assert set(inputs) == {spec.name for spec in traced.specs}
        found = traced.function(None)(*(tf.constant(inputs[spec.name]) for spec in traced.specs))
        return {key: value.numpy() for key, value in found.items()}

    def same(self, found):
        assert set(found) == set(self.expected) and self.expected['num_detections'].min() > 3
        for name, value in self.expected.items():
            assert found[name].dtype == value.dtype and found[name].shape == value.shape
            np.testing.assert_allclose(found[name], value, atol=CLOSE[name])


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return Model(tmp_path_factory.mktemp('heads'))


def test_the_same_detections(small):
    small.same(postprocess.detect(small.run, IMAGES, SIZES, small.heads.settings()))


def test_cascade(tmp_path):
    """The boxes of its heads do not depend on a class, and each head moves those of the one before."""
    cascade = Model(tmp_path, cascade=True)
    cascade.same(postprocess.detect(cascade.run, IMAGES, SIZES, cascade.heads.settings()))


def test_no_network_has_a_loop(small):
    for traced in small.heads.networks(None).values():
        graph = traced.function(None).get_concrete_function().graph
        kinds = {operation.type for operation in graph.get_operations()}
        assert not {kind for kind in kinds if 'While' in kind or 'Suppression' in kind or 'TopK' in kind}


def test_no_weight_is_in_two_networks(small):
    names = [[id(variable) for variable in traced._variables] for traced in small.heads.networks(None).values()]
    flat = sum(names, [])
    assert len(flat) == len(set(flat)) == len(small.model.variables)


def description(small, **more):
    values = {'task': 'instance', 'quantize': 'none', 'canvas': CANVAS, 'fills_canvas': False, 'class_names': ('a',)}
    values |= {'original_ids': None, 'colors': (), 'ignore_label': 255, 'data': 'd', 'weights': 'raw', 'step': 1}
    return Description(**values, seg='0', **more)


@pytest.mark.parametrize(
    'name', ['onnx', *(pytest.param(name, marks=pytest.mark.slow) for name in ('tflite', 'saved_model', 'openvino'))]
)
def test_formats(small, name, tmp_path, monkeypatch):
    """One interface opens all; a single network is refused."""
    needs(name)
    chosen = heads.FORMATS[name]
    batch, path = 1 if chosen.fixed_batch else None, str(tmp_path / chosen.path)
    chosen.write(small.heads, path, batch, 'none', ())
    described = description(small, format=name, batch=batch, heads=small.heads.describe(batch))
    chosen.describe(path, described)
    chosen.describe(path, described)  # As after the check.
    file = open_model(path)
    assert file.description == described
    small.same(file.run(IMAGES, SIZES))
    suffix = os.path.splitext(heads.formats.FORMATS[name].path)[1]
    with pytest.raises(UserError, match=rf'regions{suffix}.*{chosen.path}'):
        open_model(os.path.join(path, f'regions{suffix}'))
    if name == 'onnx':
        monkeypatch.chdir(path)
        the_example_of_the_file(small)


def the_example_of_the_file(small):
    """The file that lies beside the networks, as a user calls it."""
    spec = importlib.util.spec_from_file_location('postprocess', 'postprocess.py')
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    code = re.search(r'for example:\n\n(.*?)\n\nBoxes', copied.__doc__, re.DOTALL)[1].replace('\n    ', '\n')
    names = {'images': IMAGES, 'sizes': SIZES, 'height': CANVAS[0], 'width': CANVAS[1], 'postprocess': copied}
    exec(code.strip().replace('onnxruntime, postprocess', 'onnxruntime'), names)
    small.same(names['found'])
    assert names['pixels'].shape == CANVAS


def test_a_missing_network(small, tmp_path):
    described = description(small, format='onnx', batch=None, heads=small.heads.describe(None))
    (tmp_path / 'seg.json').write_text(described.text())
    with pytest.raises(UserError, match=r'regions\.onnx'):
        open_model(str(tmp_path))


def test_the_description(small):
    found = json.loads(json.dumps(small.heads.describe(None)))
    assert list(found['networks']) == ['regions', 'boxes', 'masks']
    assert found['networks']['boxes']['outputs']['candidates'].startswith('float32 [N, 30, 3, 4]: ')
    assert sum(found['settings']['levels']) == 1536 and found['settings']['score_threshold'] == 0.3


def test_the_file_needs_numpy_alone():
    tree = ast.parse(pathlib.Path(postprocess.__file__).read_text(encoding='utf-8'))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {alias.name for node in nodes for alias in node.names} == {'math', 'numpy'}


def test_suppression():
    """Of boxes on a grid, some with equal scores, against that of the model."""
    generator = np.random.default_rng(3)
    corners = generator.integers(0, 12, (200, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + generator.integers(1, 8, (200, 2))], axis=1).astype(np.float32)
    scores, groups = generator.integers(0, 50, 200).astype(np.float32), generator.integers(0, 3, 200)
    index, valid = nms(boxes[None], scores[None], 0.4, 40, np.int32(groups)[None])
    found = postprocess.suppress(boxes, scores, groups, 0.4, 40)
    np.testing.assert_array_equal(found, index[0][valid[0]])
    assert 10 < len(found) <= 40
    assert len(postprocess.suppress(boxes[:0], scores[:0], groups[:0], 0.4, 40)) == 0


@pytest.mark.parametrize('box', [*BOXES, (30.0, 40.0, 35.0, 45.0), (-9.0, 2.0, -4.0, 8.0)])
def test_pasting(box):
    mask = np.random.default_rng(0).uniform(0, 1, (6, 6)).astype(np.float32)
    top, left, patch = paste.paste(mask, box, *SIZE)
    expected = np.zeros(SIZE, bool)
    expected[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    np.testing.assert_array_equal(postprocess.paste(mask, box, *SIZE), expected)
