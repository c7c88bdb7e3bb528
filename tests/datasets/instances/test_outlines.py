"""Outlines are drawn with pycocotools' pixels; polygons give the same masks whether they are drawn late or at once."""

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from seg.datasets.instances import coco_json, collected, outlines, plain_polygons
from seg.datasets.instances.outlines import Outlines
from tests.datasets import coco_files
from tests.datasets.coco_files import SIZES, annotation, contents, verified, write

folder = coco_files.folder


def polygon(draw, height, width):
    """A polygon x0, y0, x1, y1, …: all over the image, beyond it, on whole numbers, or a few pixels large."""
    count = int(draw.integers(3, 13))
    points = draw.uniform(0, 1, [count, 2]) * [width, height]
    kind = draw.integers(4)
    if kind == 1:
        points = draw.uniform(-20, 80, [count, 2])
    elif kind == 2:
        points = points.round()
    elif kind == 3:
        points = points[0] + draw.uniform(-2, 2, [count, 2])
    return points.reshape(-1)


def ends(encoded):
    steps = np.diff(coco_mask.decode(encoded).T.reshape(-1).astype(int), prepend=0, append=0)
    return np.flatnonzero(steps).tolist()


def test_pixels_are_those_of_pycocotools():
    draw = np.random.default_rng(0)
    for trial in range(600):
        height, width = draw.integers(1, 60, 2).tolist() if trial % 20 else draw.integers(300, 700, 2).tolist()
        parts = [[polygon(draw, height, width) for _ in range(draw.integers(1, 4))] for _ in range(draw.integers(1, 5))]
        flat = [part for instance in parts for part in instance]
        drawn = Outlines(
            np.concatenate([outlines.to_grid(part.reshape(-1, 2)) for part in flat]),
            np.cumsum([0, *(len(part) // 2 for part in flat)]),
            np.repeat(np.arange(len(parts), dtype=np.int32), [len(instance) for instance in parts]),
        )
        found = outlines.draw_on_host(drawn, height, width)
        for n, instance in enumerate(parts):
            wanted = ends(coco_mask.merge(coco_mask.frPyObjects(instance, height, width)))
            assert found[n].tolist() == wanted, (trial, n)


def test_instances_without_an_outline_have_no_runs():
    outline = Outlines(np.int32([[5, 5], [60, 5], [60, 60]]), np.int64([0, 3]), np.int32([1]))
    drawn = outlines.draw(Outlines(*map(tf.constant, outline)), tf.fill([3], 20), tf.fill([3], 20))
    assert [len(row) > 0 for row in drawn.to_list()] == [False, True, False]
    none = Outlines(tf.zeros([0, 2], tf.int32), tf.zeros([1], tf.int64), tf.zeros([0], tf.int32))
    assert outlines.draw(none, tf.fill([2], 20), tf.fill([2], 20)).to_list() == [[], []]


def shoelace(points):
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, axis=0).T
    return abs((x * next_y - next_x * y).sum()) / 2


@pytest.fixture
def many(folder):
    """A file with polygons of all kinds, some of which need not be drawn before their image is loaded."""
    data, draw = contents(), np.random.default_rng(1)
    for n in range(300):
        image = n % 2
        height, width = SIZES[image]
        parts = [polygon(draw, height, width) for _ in range(draw.integers(1, 3))]
        x, y = np.concatenate(parts)[::2], np.concatenate(parts)[1::2]
        box = [x.min(), y.min(), np.ptp(x), np.ptp(y)]
        if n % 3 == 1:
            box[n % 4] += draw.uniform(-5, 5)
        area = sum(shoelace(part.reshape(-1, 2)) for part in parts) if n % 5 else draw.uniform(-50, 500)
        entry = annotation(10 + n, image, [part.tolist() for part in parts], bbox=box, area=area)
        for key in ('bbox', 'area'):
            if draw.uniform() < 0.2:
                del entry[key]
        data['annotations'].append(entry)
    write(folder, data)
    return folder


def values(dataset):
    """The results of `load` and `annotations` of a data set."""
    for index in range(dataset.info.num_examples):
        example, truth = dataset.load(tf.constant(index, tf.int64)), dataset.annotations(index)
        for key in ('boxes', 'classes', 'is_crowd', 'area'):
            np.testing.assert_array_equal(example[key], getattr(truth, key))
        assert example['masks'].to_list() == [ends(mask) for mask in truth.masks]
        yield example['boxes'].numpy().tolist(), example['area'].numpy().tolist(), example['masks'].to_list()


def test_late_and_early_drawing_give_the_same(many, monkeypatch, caplog):
    late = verified(many)
    log, found = caplog.text, list(values(late))
    assert len(late._arrays.point_splits) > 100 and len(late._arrays.ends) > 100
    histogram = late.class_histogram()
    nothing = plain_polygons.find([], np.zeros([0, 2], np.int64))
    monkeypatch.setattr(plain_polygons, 'find', lambda polygons, sizes: nothing)
    caplog.clear()
    early = verified(many)
    assert not len(early._arrays.points) and list(values(early)) == found and caplog.text == log
    assert all((one == other).all() for one, other in zip(early.class_histogram(), histogram, strict=True))


def test_typed_and_tolerant_reading_give_the_same(many, monkeypatch, caplog):
    log, found = (dataset := verified(many), caplog.text)[1], list(values(dataset))
    monkeypatch.setattr(coco_json, '_read_ordinary', coco_json._read_any)
    caplog.clear()
    tolerant = verified(many)
    assert list(values(tolerant)) == found and caplog.text == log and tolerant.info == dataset.info
    monkeypatch.undo()
    monkeypatch.setattr(collected, 'CHUNK', 7)
    assert list(values(verified(many))) == found


def test_an_ordinary_file_is_read_piece_by_piece(many, monkeypatch):
    monkeypatch.setattr(coco_json, '_read_any', None)
    assert verified(many).info.num_examples == 3
