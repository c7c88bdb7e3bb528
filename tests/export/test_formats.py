"""Each format runs in its own runtime and finds what the network finds; needs the extra `export`."""

import dataclasses
import importlib

import numpy as np
import pytest
import tensorflow as tf

from seg import modes
from seg.export import formats, network
from seg.export.description import Description
from seg.export.model_file import open_model
from seg.export.tracing import Traced, images_on
from tests.executor import runs
from tests.export import trained

CANVAS = (64, 64)
NAMES = ('onnx', 'tflite', 'openvino')


def needs(name):
    for package in formats.FORMATS[name].packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip("pip install -e '.[export]' brings the converters")


class Network:
    """The traced network of a run, and what it finds in three images, one of them black."""

    def __init__(self, kind, gin_file, folder):
        experiment = modes.build(mode='eval', **trained.run(folder, gin_file))
        experiment.executor.load_model('latest')
        task, self.kind, self.names = experiment.task, kind, experiment.info.class_names
        variables = [variable for part in task.checkpoint_items.values() for variable in part.variables]
        self.traced = Traced(
            network.network(task, kind, CANVAS, False), variables, images_on(CANVAS), str(folder / 'scratch')
        )
        load = lambda i: experiment.eval_data.load(tf.constant(i, tf.int64))['image']  # noqa: E731
        images = np.stack([load(0), np.zeros((*CANVAS, 3)), load(1)])
        self.cases = images.astype(np.uint8), np.int32([CANVAS, CANVAS, (40, 64)])
        self.expected = {k: v.numpy() for k, v in self.traced.function(None)(*map(tf.constant, self.cases)).items()}

    def file(self, name, folder, quantize='none'):
        """An exported file, open in its runtime."""
        chosen = formats.FORMATS[name]
        batch = 1 if chosen.fixed_batch else None
        path = str(folder / chosen.path)
        images = [tuple(array[i : i + 1] for array in self.cases) for i in range(3)]
        chosen.write(self.traced, path, batch, quantize, images)
        described = Description(
            task=self.kind,
            format=name,
            quantize=quantize,
            canvas=CANVAS,
            batch=batch,
            fills_canvas=False,
            class_names=self.names,
            original_ids=None,
            colors=(),
            ignore_label=255,
            data='shapes/train',
            weights='raw',
            step=4,
            seg='0.1.0',
            outputs=network.meanings(self.expected, self.kind),
        )
        chosen.describe(path, dataclasses.replace(described, forced=True))
        chosen.describe(path, described)  # The last one counts.
        file = open_model(path)
        assert file.description == described and formats.size(path) > 10_000
        return file


@pytest.fixture(scope='module')
def semantic(tmp_path_factory):
    return Network('semantic', runs.SHAPES, tmp_path_factory.mktemp('semantic'))


@pytest.fixture(scope='module')
def instance(tmp_path_factory):
    return Network('instance', runs.INSTANCES, tmp_path_factory.mktemp('instance'))


@pytest.mark.parametrize('name', NAMES)
def test_semantic(semantic, name, tmp_path):
    needs(name)
    found = semantic.file(name, tmp_path).run(*semantic.cases)
    assert set(found) == {'classes', 'confidence'} and found['classes'].dtype == np.uint8
    inside = np.ones((3, *CANVAS), bool)
    inside[2, 40:] = False
    np.testing.assert_array_equal(found['classes'][inside], semantic.expected['classes'][inside])
    np.testing.assert_allclose(found['confidence'][inside], semantic.expected['confidence'][inside], atol=1e-4)


@pytest.mark.parametrize(('quantize', 'dtype'), [('float16', np.float16), ('dynamic', np.int8), ('int8', np.int8)])
def test_quantized(semantic, quantize, dtype, tmp_path):
    """Noise in the place of weights loses more than a trained model, so what int8 finds is not compared."""
    needs('tflite')
    file = semantic.file('tflite', tmp_path, quantize)
    found = file.run(*semantic.cases)
    if quantize != 'int8':
        agreement = np.mean(found['classes'][0] == semantic.expected['classes'][0])
        assert agreement > {'float16': 0.98, 'dynamic': 0.8}[quantize]
    assert np.all((found['confidence'] >= 1 / 8) & (found['confidence'] <= 1.001))
    from ai_edge_litert.interpreter import Interpreter

    assert dtype in {tensor['dtype'] for tensor in Interpreter(model_path=file.path).get_tensor_details()}


@pytest.mark.parametrize('name', ['tflite', *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[::2])])
def test_instance(instance, name, tmp_path):
    needs(name)
    found = instance.file(name, tmp_path).run(*instance.cases)
    expected = instance.expected
    np.testing.assert_array_equal(found['classes'], expected['classes'])
    np.testing.assert_array_equal(found['num_detections'], np.sum(expected['classes'] >= 0, axis=1))
    assert found['num_detections'].max() > 0
    for name, close in (('boxes', 1e-2), ('scores', 1e-4), ('masks', 1e-3)):
        np.testing.assert_allclose(found[name], expected[name], atol=close)


def test_no_operation_is_tensorflows_own(instance):
    """Nor has a sliced tensor more than five axes."""
    graph = instance.traced.function(None).get_concrete_function().graph
    functions = [graph, *(graph._get_function(name).graph for name in graph._functions)]
    operations = [operation for function in functions for operation in function.get_operations()]
    assert not [op.type for op in operations if 'Sparse' in op.type]
    ranks = [o.shape.rank for op in operations if op.type == 'StridedSlice' for o in (*op.inputs, *op.outputs)]
    assert max(rank for rank in ranks if rank is not None) <= 5
