"""The first training examples, drawn as the model gets them."""

import types

import numpy as np
import pytest

from seg.errors import UserError
from seg.executor import first_examples
from seg.structures import Input
from seg.tasks.base import Task
from seg.tasks.instance import Instance
from seg.tasks.semantic import Semantic

COLORS = ((250, 0, 0), (0, 250, 0))


def source(*weights):
    """Batches of two rows; row i of the stream is image i, with this weight."""

    def make():
        for first in range(0, len(weights), 2):
            rows = np.arange(first, first + 2)
            yield {'index': rows, 'weight': np.asarray(weights, np.float32)[rows], 'image': rows[:, None] + 10}

    return Input(make, 2, None, 'mine/train', lambda index: f'image {index}')


class Drawing(types.SimpleNamespace):
    def training_figure(self, example, name):
        return None if self.none else example['image']


def test_examples_are_drawn_in_their_order_without_unreadable_ones():
    drawn = first_examples.drawn(Drawing(none=False), source(1, 0, 1, 1, 1, 1), 3)
    assert [(name, int(pixels[0])) for name, pixels in drawn] == [('image 0', 10), ('image 2', 12), ('image 3', 13)]
    assert list(first_examples.drawn(Drawing(none=True), source(1, 1), 3)) == []
    assert list(first_examples.drawn(None, None, 0)) == []
    assert list(first_examples.drawn(Drawing(none=False), source(0, 0, 0, 0, 1, 1), 2)) == []  # It would not end.
    assert Task.training_figure(None, {}, 'a') is None


def test_the_error_of_a_plugin_names_the_image():
    class Broken:
        def training_figure(self, example, name):
            return {}['pixels']

    with pytest.raises(UserError, match=r"Broken.training_figure of 'image 0' failed.*test_first_examples.py:\d+"):
        list(first_examples.drawn(Broken(), source(1, 1), 3))


def test_label_maps_are_drawn_with_their_padding():
    task = types.SimpleNamespace(
        class_names=('ground', 'thing'), _colors=COLORS, _info=types.SimpleNamespace(ignore_label=255)
    )
    label = np.full((64, 64), 255, np.int32)
    label[:32, :32], label[32:, :32] = 1, 0
    example = {'image': np.full((64, 64, 3), 80.0, np.float32), 'label': label, 'size': np.array([64, 32])}
    pixels = Semantic.training_figure(task, example, 'street').reshape(-1, 3).astype(int)
    for color in ((250, 0, 0), (0, 250, 0), (224, 224, 192)):  # Of both classes, and of the padding.
        mixed = np.round(np.asarray(color) * 0.55 + 80 * 0.45)
        assert np.sum(np.abs(pixels - mixed).max(axis=1) <= 1) > 5_000, color


def test_instances_are_drawn_from_their_masks():
    task = types.SimpleNamespace(class_names=('a', 'b'), _colors=COLORS)
    masks = np.zeros((3, 28, 28), np.uint8)
    masks[0, :, :14] = masks[1] = 255
    example = {
        'image': np.full((64, 64, 3), 80.0, np.float32),
        'boxes': np.array([[8, 8, 56, 56], [4, 4, 6, 6], [0, 0, 0, 0]], np.float32),
        'classes': np.array([1, 0, -1], np.int32),
        'masks': masks,
    }
    pixels = Instance.training_figure(task, example, 'cells').astype(int)
    green = (pixels[..., 1] > pixels[..., 0] + 40) & (pixels[..., 1] > pixels[..., 2] + 40)
    columns = np.flatnonzero(green.sum(axis=0) > 50)
    half = 24 * 320 / 64  # Pixels of the left half of the box, in the panel.
    assert half <= len(columns) <= 1.3 * half
