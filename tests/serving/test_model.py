"""A model from an exported file: what it is given, and what its writers make of its outputs."""

import dataclasses
import threading
import types

import numpy as np
import pytest

from seg.errors import UserError
from seg.export.description import Description
from seg.prediction import canvas
from seg.prediction.settings import PredictSettings
from seg.serving import model
from seg.serving.batching import Batcher
from seg.structures import Detections
from tests.prediction import fakes

ABOUT = Description(
    task='instance', format='tflite', quantize='float16', canvas=(32, 48), batch=1, fills_canvas=True,
    class_names=('a', 'b'), original_ids=(7, 9), colors=(), ignore_label=255, data='mine/train', weights='ema', step=3,
    seg='0',
)  # fmt: skip


class File(types.SimpleNamespace):
    """An exported file that finds the left half of every image."""

    path = 'a/model.tflite'

    def run(self, images, sizes):
        assert images.dtype == np.uint8 and images.shape == (1, 32, 48, 3)
        self.sizes = sizes.copy()
        height, width = sizes[0]
        return {
            'boxes': np.float32([[[0, 0, height, width / 2], [0, 0, 0, 0]]]),
            'scores': np.float32([[0.75, 0]]),
            'classes': np.int32([[1, -1]]),
            'masks': np.ones((1, 2, 5, 5), np.float32),
            'num_detections': np.int32([1]),
        }


def file(**changes):
    return File(description=dataclasses.replace(ABOUT, **changes))


def predicted(made, image):
    writer = made.writer('', PredictSettings())
    plan = writer.plan(image, made.canvas)
    with Batcher(made.predictor, made.canvas, [made.batch or 1], wait=0) as batcher:
        found = plan.prediction(batcher.results(plan, threading.Event()))
        return writer, plan, found if isinstance(found, Detections) else list(found)


@pytest.mark.parametrize(('fills', 'size'), [(True, (32, 32)), (False, (16, 16))])
def test_instances_of_a_small_image(fills, size):
    """It is scaled to fill the canvas if the exported task did so, and the boxes are scaled back."""
    opened = file(fills_canvas=fills)
    made = model.of_file(opened)
    writer, plan, found = predicted(made, fakes.noise(16, 16))
    assert tuple(opened.sizes[0]) == size and plan.scale == size[0] / 16
    np.testing.assert_allclose(found.boxes, [[0, 0, 16, 8]])
    assert found.classes.tolist() == [1] and found.scores.tolist() == [0.75]
    result = writer.result(0, *(values[0] for values in found))
    assert result['category_id'] == 9 and result['bbox'] == [0, 0, 8, 16]
    assert made.format == 'tflite, float16' and len(writer.colors) == 2


def test_class_map_of_a_large_image_without_probabilities():
    """Each pixel gets the class of the nearest pixel of the canvas."""

    def run(images, sizes):
        return {'classes': images[..., 0] // 128, 'confidence': images[..., 0] / np.float32(255)}

    about = dataclasses.replace(ABOUT, task='semantic', outputs={'classes': '', 'confidence': ''})
    image = np.zeros((100, 96, 3), np.uint8)
    image[:, 48:] = 255
    made = model.of_file(types.SimpleNamespace(path='a', description=about, run=run))
    writer, plan, bands = predicted(made, image)
    classes, found = writer.assembled((100, 96), bands)
    assert plan.window(0).shape[:2] == (32, 31) and classes.shape == (100, 96)
    assert (classes[:, :46] == 0).all() and (classes[:, 50:] == 1).all() and len(found['classes']) == 2


def test_nearest_pixels_without_rounding():
    plan = canvas.ShrunkClasses(np.zeros((6, 4, 3), np.uint8), (3, 4))
    small = np.arange(6).reshape(3, 2)
    (band,) = plan.prediction(iter([{'classes': small, 'confidence': small}]))
    assert np.array_equal(band.classes, small.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ('settings', 'probabilities', 'named'),
    [({'large_pictures': 'tile'}, False, 'tile'), ({}, True, '--probabilities')],
)
@pytest.mark.parametrize('task', ['semantic', 'instance'])
def test_settings_that_do_not_fit(task, settings, probabilities, named):
    made = model.of_file(file(task=task))
    with pytest.raises(UserError, match=named):
        made.writer('', PredictSettings(**settings), probabilities)
