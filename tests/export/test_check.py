"""The check finds exported networks that compute something else, and files that crash."""

import os
import stat
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg import modes
from seg.errors import UserError
from seg.export import apart, check, model_file, network, run_file
from seg.export.run_file import Found, read_found, save_cases
from seg.layers.pixel_norm import PixelNorm
from seg.models import deeplab_v3plus
from seg.ops import dispatch
from seg.structures import PAD_PIXEL
from tests.executor import runs
from tests.export import trained

KINDS = {'semantic': runs.SHAPES, 'instance': runs.INSTANCES}


class Checked:
    """A run, what its checkpoint predicts, and the check of networks in the place of files."""

    def __init__(self, kind, folder):
        experiment = modes.build(mode='eval', **trained.run(folder, KINDS[kind]))
        self.kind, self.task, self.canvas = kind, experiment.task, (64, 64)
        found, _ = experiment.executor.load_model('latest')
        source = self.task.inputs.evaluation(experiment.eval_data, 1, self.canvas)
        predictor = experiment.executor.engine.predictor(self.task, found.path)
        self.check = check.Check(self.task, kind, predictor, check.examples(source, 3), 'loss')

    def figures(self, monkeypatch, wrap=lambda function: function):
        """The figures of the network, traced as for a file."""
        exported = wrap(network.network(self.task, self.kind, self.canvas, probabilities=False))
        with dispatch.portable():
            shapes = tf.TensorSpec((None, *self.canvas, 3), tf.uint8), tf.TensorSpec((None, 2), tf.int32)
            function = tf.function(exported, input_signature=shapes, autograph=False)
            outputs = [
                {n: v.numpy() for n, v in function(*map(tf.constant, case)).items()} for case in self.check._cases
            ]
        monkeypatch.setattr(check, 'run_apart', lambda path, cases: Found(outputs, 0.1))
        return self.check.figures('file')


@pytest.fixture(scope='module')
def semantic(tmp_path_factory):
    return Checked('semantic', tmp_path_factory.mktemp('semantic'))


@pytest.fixture(scope='module')
def instance(tmp_path_factory):
    return Checked('instance', tmp_path_factory.mktemp('instance'))


def test_the_same_network_passes(semantic, instance, monkeypatch):
    """It fills the canvas outside of an image itself; the checkpoint gets padded images."""
    for checked in (semantic, instance):
        figures = checked.figures(monkeypatch)
        assert checked.check.fault(figures, 'none', None) is None
        assert figures['differing'] == 0 and figures['images'] == 3
        assert figures['score_before'] == figures['score_after']
        assert max(figures['largest'].values()) < 1e-2
    assert set(semantic.check._before[0]) == {'classes', 'confidence'}
    assert any((outputs['classes'] >= 0).any() for outputs in instance.check._before)


def swapped(function):
    return lambda images, sizes: function(images[..., ::-1], sizes)


def shifted(function):
    return lambda images, sizes: function(tf.roll(images, 1, axis=1), sizes)


def unpadded(function):
    """The padding is left to the caller."""
    return lambda images, sizes: function(images, tf.zeros_like(sizes) + 64)


@pytest.mark.parametrize(
    ('kind', 'fault'), [('semantic', swapped), ('semantic', shifted), ('semantic', unpadded), ('instance', swapped)]
)
def test_a_fault_around_the_network(kind, fault, request, monkeypatch):
    checked = request.getfixturevalue(kind)
    figures = checked.figures(monkeypatch, fault)
    assert figures['differing'] > 0.001
    assert 'differ' in checked.check.fault(figures, 'none', None)


def test_a_changed_mean_pixel(semantic, monkeypatch):
    layer = next(layer for layer in semantic.task.model.backbone.layers if isinstance(layer, PixelNorm))
    with trained.changed(layer, 'mean', (PAD_PIXEL[0] + 8, *PAD_PIXEL[1:])):
        figures = semantic.figures(monkeypatch)
    assert semantic.check.fault(figures, 'none', None)


def test_another_alignment_of_the_class_map(semantic, monkeypatch):
    def half_pixel(logits, resolution, stride):
        return keras.ops.image.resize(logits, resolution)

    with trained.changed(deeplab_v3plus, 'upsample_bilinear', half_pixel):
        figures = semantic.figures(monkeypatch)
    assert semantic.check.fault(figures, 'none', None)


def test_another_alignment_of_masks_alone(instance, monkeypatch):
    layer = instance.task.model.mask_head
    with trained.changed(layer, 'roi', layer.roi | {'aligned': True}):
        figures = instance.figures(monkeypatch)
    assert instance.check.fault(figures, 'none', None)


def test_tolerance(semantic):
    figures = {'differing': 0.002, 'score': 'miou', 'score_before': 0.7, 'score_after': 0.68, 'finite': True}
    figures |= {'images': 3, 'compared': 1000, 'largest': {}}
    fault = semantic.check.fault
    assert '0.200%' in fault(figures, 'none', None) and fault(figures, 'none', 0.002) is None
    assert '0.6800' in fault(figures, 'int8', None) and fault(figures, 'int8', 0.03) is None
    assert fault(figures | {'score_after': 0.8}, 'int8', None) is None
    assert fault(figures | {'finite': False}, 'int8', 1)


@pytest.mark.parametrize(
    ('values', 'quantize', 'said'),
    [
        ({'compared': 0}, 'none', '3 images'),
        ({'score_before': 0.0, 'score_after': 0.0}, 'int8', 'miou'),
        ({'score_before': None, 'score_after': None}, 'int8', 'miou'),
        ({'largest': {'confidence': 0.2}}, 'none', 'confidence'),
        ({'largest': {'confidence': 1e-4, 'probabilities': 0.2}}, 'none', 'probabilities'),
    ],
)
def test_a_comparison_that_proves_nothing_or_too_little(semantic, values, quantize, said):
    figures = {'images': 3, 'compared': 9, 'differing': 0.0, 'largest': {'confidence': 1e-4}, 'finite': True}
    figures |= {'score': 'miou', 'score_before': 0.7, 'score_after': 0.7}
    assert semantic.check.fault(figures, quantize, None) is None
    assert said in semantic.check.fault(figures | values, quantize, None)


def test_a_score_of_images_without_annotations(semantic, monkeypatch):
    monkeypatch.setattr(
        semantic.check,
        '_examples',
        [e._replace(batch=e.batch | {'label': np.full_like(e.batch['label'], 255)}) for e in semantic.check._examples],
    )
    assert semantic.check._scored(semantic.check._before) is None


def test_cases(semantic):
    *images, black, part, three = semantic.check._cases
    assert len(images) == 3 and not black[0].any() and len(three[0]) == 3
    height, width = part[1][0]
    assert (height, width) == (42, 42) and part[0][0, height:].std() > 50


def program(tmp_path, monkeypatch, text):
    """A program in the place of Python, in which files run."""
    path = tmp_path / 'python'
    path.write_text(f'#!/bin/sh\n{text}\n')
    os.chmod(path, stat.S_IRWXU)
    monkeypatch.setattr(apart.sys, 'executable', str(path))


@pytest.mark.parametrize(
    ('text', 'said'),
    [('kill -ABRT $$', 'SIGABRT'), ('echo Traceback >&2; echo no such operation >&2; exit 1', 'no such operation')],
)
def test_a_runtime_that_fails(text, said, tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, text)
    case = np.zeros((1, 8, 8, 3), np.uint8), np.int32([[8, 8]])
    with pytest.raises(UserError, match=said):
        check.run_apart(str(tmp_path / 'model.tflite'), [case])
    assert os.listdir(tmp_path) == ['python']


def test_a_runtime_that_does_not_end(tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, 'exec sleep 60')
    monkeypatch.setattr(apart, '_PATIENCE', 0.1)
    with pytest.raises(UserError, match=r'0\.1 s'):
        apart.run('seg.export.run_file')


class Fixed(model_file.ModelFile):
    """A file of four images a call, each of which takes the time of its own."""

    description = types.SimpleNamespace(canvas=(8, 8), batch=4)
    path = 'fixed'

    def call(self, inputs):
        assert inputs['images'].shape == (4, 8, 8, 3)
        self.whole = inputs['images'].any(axis=(1, 2, 3)).all()
        return {'classes': np.zeros((4, 8, 8), np.uint8)}


def test_the_time_of_a_batch_is_that_of_all_its_images(monkeypatch):
    file = Fixed()
    monkeypatch.setattr(run_file, 'open_model', lambda path: file)
    monkeypatch.setattr(run_file, 'median_seconds', lambda call: (call(), 2.0)[1])
    found = run_file.run('fixed', [(np.ones((1, 8, 8, 3), np.uint8), np.int32([[8, 8]]))])
    assert found.seconds == 0.5 and file.whole and found.outputs[0]['classes'].shape == (1, 8, 8)


def test_files_of_the_process(tmp_path):
    """What the process reads, and what is read from it."""
    cases = [(np.full((n, 4, 4, 3), n, np.uint8), np.full((n, 2), n, np.int32)) for n in (1, 2)]
    save_cases(tmp_path / 'in.npz', cases)
    with np.load(tmp_path / 'in.npz') as given:
        assert set(given.files) == {'images 0', 'sizes 0', 'images 1', 'sizes 1'}
    np.savez(tmp_path / 'out.npz', seconds=0.5, **{'0 classes': [1], '1 classes': [2]})
    found = read_found(tmp_path / 'out.npz', 2)
    assert found.seconds == 0.5 and [o['classes'].tolist() for o in found.outputs] == [[1], [2]]
