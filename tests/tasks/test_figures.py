"""The images of an evaluation: which images, from which batches, and what they show."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from seg.datasets.base import Dataset
from seg.executor import image_table
from seg.executor.evaluator import Evaluator
from seg.structures import LossTerm
from tests.executor import runs

SIZES = ((61, 50), (40, 64), (33, 47), (64, 41), (52, 52), (61, 64), (20, 30))
# Share of the columns that `predicted` gets wrong in each image.
WRONG = (0.3, 0.9, 0.1, 0.5, 0.7, 0.0, 0.2)
BROKEN, IGNORED = 4, 2
CHARTS = ['confusion_matrix', 'class_iou', 'class_pixels']


class Scenes(Dataset):
    """Scenes of different sizes, whose red is 30 times their index. One cannot be loaded, one is ignored as a whole."""

    def __init__(self, scenes):
        self.info = dataclasses.replace(scenes.info, name='scenes/val', num_examples=len(SIZES), max_size=(64, 64))

    def load(self, index):
        height, width = tf.unstack(tf.gather(SIZES, index))
        with tf.control_dependencies([tf.debugging.Assert(index != BROKEN, ['broken'])]):
            image = tf.fill((height, width, 3), tf.cast(30 * index, tf.uint8))
        rows = tf.where(tf.range(height) < height // 2, 0, 1)
        label = tf.where(index == IGNORED, 255, rows[:, None] + tf.zeros((1, width), tf.int32))
        return {'image': tf.ensure_shape(image, (None, None, 3)), 'label': tf.ensure_shape(label, (None, None))}

    def image_name(self, index):
        return f'scene {index}'


def predicted(batch):
    """The truth, but for the first columns of each image; in place of the model."""
    columns = tf.cast(tf.range(64), tf.float32)[None, None]
    width = tf.cast(batch['size'][:, 1], tf.float32) * tf.gather(WRONG, tf.maximum(batch['index'], 0))
    truth = tf.where(batch['label'] == 255, 0, batch['label'])
    classes = tf.where(columns < tf.round(width)[:, None, None], 1 - truth, truth)
    zeros = tf.zeros_like(batch['weight'])
    return {'classes': classes, 'confidence': tf.zeros_like(classes, tf.float32)}, {'none': LossTerm(zeros, zeros + 1)}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return runs.build(tmp_path_factory.mktemp('pictures'))


@pytest.fixture
def task(made, monkeypatch):
    monkeypatch.setattr(made.task, 'evaluate_batch', predicted)
    return made.task


def evaluate(made, batch_size, num_pictures):
    source = made.task.evaluation_input(Scenes(made.eval_data), batch_size)
    return Evaluator(made.task, made.executor.engine).evaluate(source, num_pictures)


@pytest.fixture
def drawn(task, monkeypatch):
    """The names and figures of the images that were kept for drawing, in order; images are one pixel of the index."""
    kept = []

    def image(example, prediction, name, truth, original=task.figure):
        made = original(example, prediction, name, truth)
        kept.append((name, made.miou, made.wrong))
        made.draw = lambda: np.full((1, 1, 3), int(name.split()[1]), np.uint8)
        return made

    monkeypatch.setattr(task, 'figure', image)
    return kept


@pytest.mark.parametrize('batch_size', [1, 3, 4, 7])
def test_fixed_worst_and_best_images(made, drawn, batch_size):
    found = evaluate(made, batch_size, 2)
    images = {image.tag: int(image.pixels[0, 0, 0]) for image in found.figures[:-3]}
    assert images == {'fixed/1': 0, 'fixed/2': 3, 'worst/1': 1, 'worst/2': 3, 'best/1': 5, 'best/2': 6}
    assert [image.tag for image in found.figures[-3:]] == CHARTS
    assert found.examples == 6


def test_worst_is_the_one_with_the_lowest_score(made, drawn):
    """Scores rise from the worst on, and fall from the best on."""
    found = evaluate(made, 3, 2)
    mious = {int(name.split()[1]): miou for name, miou, _ in drawn}
    worst, best = (
        [mious[int(p.pixels[0, 0, 0])] for p in found.figures if p.tag.startswith(kind)] for kind in ('worst', 'best')
    )
    ranked = sorted(miou for miou in mious.values() if miou is not None)
    assert len(ranked) == 5 and worst == ranked[:2] and best == ranked[:-3:-1]
    fixed = [p.tag for p in evaluate(made, 3, 7).figures if '/' in p.tag]
    assert fixed == [f'fixed/{n + 1}' for n in range(6)], 'the ignored one as well'
    shares = {int(name.split()[1]): wrong for name, _, wrong in drawn}
    for i, share in shares.items():
        width = SIZES[i][1]
        assert share is None if i == IGNORED else share == pytest.approx(round(width * WRONG[i]) / width)


def test_device_and_host_agree_on_the_score(made, task):
    batch = next(iter(task.evaluation_input(Scenes(made.eval_data), 7).make()))
    predictions, _ = predicted(batch)
    scores = task.image_scores(batch, predictions).numpy()
    for i in range(7):
        example, prediction = ({k: v[i].numpy() for k, v in part.items()} for part in (batch, predictions))
        miou = task.figure(example, prediction, 'x', None).miou
        assert np.isnan(scores[i]) == (i in (BROKEN, IGNORED)) == (miou is None)
        if miou is not None:
            assert scores[i] == pytest.approx(miou, abs=1e-6)


def test_only_images_that_may_be_shown_come_to_the_host(made, drawn, monkeypatch):
    monkeypatch.setattr(image_table, '_MOST', 1)  # Pictures in the table of all images.
    evaluate(made, 1, 1)
    assert [name for name, _, _ in drawn] == ['scene 0', 'scene 1', 'scene 5']


def test_figures_are_the_same_for_every_batch_size(made, task):
    one, four = (evaluate(made, n, 2).figures for n in (1, 4))
    assert [p.tag for p in one] == [p.tag for p in four]
    for a, b in zip(one, four, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels, a.tag)
        assert a.photo == ('/' in a.tag) and a.pixels.dtype == np.uint8


def test_image_is_shown_at_its_own_size(made, task):
    """Without the padding of the batch: scene 1, of 40 x 64 pixels, five times as large."""
    (strip,) = [p.pixels for p in evaluate(made, 4, 2).figures if p.tag == 'worst/1']
    image = np.all(strip == 30, axis=-1)
    assert image.sum(0).max() >= 200 and image[:, :333].sum(1).max() == 320 and image.sum() < 200 * 320 * 1.3


def test_no_images_at_all(made, task, monkeypatch):
    def refuse(*_):
        raise AssertionError('nothing is to be drawn')

    monkeypatch.setattr(task, 'image_scores', refuse)
    monkeypatch.setattr(task, 'figure', refuse)
    found = evaluate(made, 4, 0)
    assert found.figures == [] and found.metrics['pixels'] == sum(h * w for h, w in SIZES) - 52 * 52 - 33 * 47


def test_details(made, task):
    found = evaluate(made, 4, 0)
    matrix = np.array(found.details['confusion']['pixels'])
    assert matrix.sum() == found.metrics['pixels'] and found.details['confusion']['class_names'] == [
        *made.info.class_names
    ]
