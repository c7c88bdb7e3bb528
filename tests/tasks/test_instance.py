"""Instance segmentation: batches of instances, evaluation at native size, advice, and the whole way to a score."""

import dataclasses
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from seg import registry
from seg.datasets.base import Dataset, FirstExamples
from seg.errors import UserError
from seg.executor.evaluator import Evaluator
from seg.registry import losses
from seg.structures import PAD_PIXEL, LossTerm
from tests.executor import runs


class Crowded(Dataset):
    """Scenes in which the first instance is a crowd, scenes without instances, and scenes with more of them."""

    def __init__(self, scenes, kind):
        self.info, self._scenes, self._kind = dataclasses.replace(scenes.info, num_examples=4), scenes, kind
        self.image_name, self.annotations = scenes.image_name, scenes.annotations

    def load(self, index):
        example = self._scenes.load(index)
        count = tf.shape(example['boxes'])[0]
        keys = ('boxes', 'classes', 'is_crowd', 'area', 'masks')
        if self._kind == 'crowd':
            example['is_crowd'] = tf.range(count) == 0
        if self._kind == 'empty':
            example |= {key: example[key][:0] for key in keys}
        if self._kind == 'many':
            example |= {key: tf.concat([example[key]] * 4, 0) for key in keys}
        return example


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return runs.build(tmp_path_factory.mktemp('run'), 'heads.box.score_threshold=0.0', gin_files=(runs.INSTANCES,))


def read(source, batches=None):
    data = source.make()
    return [{k: v.numpy() for k, v in batch.items()} for batch in (data.take(batches) if batches else data)]


def perfect(task, dataset):
    """Lets the task detect what the data set holds, with the masks that a training would learn."""

    def predict(batch):
        indices = batch['index'].numpy()
        seed = tf.zeros(2, tf.int32)
        shown = [task.inputs.row(dataset.load(max(int(i), 0)), seed, (64, 64)) for i in indices]
        classes = tf.stack([example['classes'] for example in shown])
        classes = tf.where(indices[:, None] >= 0, classes, -1)
        return {
            'boxes': tf.stack([example['boxes'] for example in shown]),
            'classes': classes,
            'scores': tf.cast(classes >= 0, tf.float32),
            'masks': tf.stack([example['masks'] for example in shown]) / 255,
        }

    return predict


# ---- Input -----------------------------------------------------------------------------------------------------------


def test_training_batch(made):
    (batch,) = read(made.task.training_input(made.train_data, 4), 1)
    assert batch['image'].shape == (4, 64, 64, 3) and batch['image'].dtype == np.float32
    assert batch['boxes'].shape == (4, 8, 4) and batch['classes'].shape == (4, 8) and batch['classes'].dtype == np.int32
    assert batch['masks'].shape == (4, 8, 56, 56) and batch['masks'].dtype == np.uint8
    for i, index in enumerate(batch['index']):
        truth = made.train_data.annotations(int(index))
        count = len(truth.classes)
        order = np.argsort(-np.prod(truth.boxes[:, 2:] - truth.boxes[:, :2], 1), kind='stable')
        np.testing.assert_allclose(batch['boxes'][i, :count], truth.boxes[order])
        np.testing.assert_array_equal(batch['classes'][i, :count], truth.classes[order])
        assert np.all(batch['classes'][i, count:] == -1) and np.all(batch['boxes'][i, count:] == 0)
        # The mask fills the same fraction of each box as the instance.
        share = truth.area[order] / np.prod(truth.boxes[order, 2:] - truth.boxes[order, :2], 1)
        np.testing.assert_allclose(batch['masks'][i, :count].mean((1, 2)) / 255, share, atol=0.03)
        assert np.all(batch['masks'][i, count:] == 0)


def test_crowds_are_not_trained_on(made):
    (batch,) = read(made.task.training_input(Crowded(made.train_data, 'crowd'), 4), 1)
    for i, index in enumerate(batch['index']):
        assert np.sum(batch['classes'][i] >= 0) == len(made.train_data.annotations(int(index)).classes) - 1


def test_images_without_instances(made):
    (batch,) = read(made.task.training_input(Crowded(made.train_data, 'empty'), 4), 1)
    assert np.all(batch['classes'] == -1) and np.all(batch['weight'] == 1) and np.all(batch['masks'] == 0)
    terms = made.task.loss_terms({key: tf.constant(value) for key, value in batch.items()}, tf.constant(0))
    assert all(np.all(np.isfinite(term.total)) for term in terms.values())
    for name in ('rpn_box', 'box_regression', 'mask'):
        np.testing.assert_array_equal(terms[name].total, 0)
    advice = made.task.advice({'objects': 0.0, 'left_out': 0.0, 'anchors_matched': 0.0})
    assert 'no instance' in advice


def test_the_largest_instances_are_kept_and_the_others_are_reported(made):
    dataset = Crowded(made.train_data, 'many')
    (batch,) = read(made.task.training_input(dataset, 4), 1)
    for i, index in enumerate(batch['index']):
        boxes = made.train_data.annotations(int(index)).boxes
        areas = np.sort(np.prod(boxes[:, 2:] - boxes[:, :2], 1))[::-1].repeat(4)
        kept = np.prod(batch['boxes'][i, :, 2:] - batch['boxes'][i, :, :2], 1)
        np.testing.assert_allclose(kept, areas[:8])
        assert batch['left_out'][i] == len(areas) - 8
    advice = made.task.advice({'objects': 8.0, 'left_out': 7.5, 'anchors_matched': 1.0})
    assert advice.startswith('7.5 ') and 'tasks.instance.max_objects = 8' in advice
    assert made.task.advice({'objects': 8.0, 'left_out': 7.5, 'anchors_matched': 1.0}) is None, 'told once'


def test_advice_on_anchors(made):
    made.task.training_input(made.train_data, 4)
    advice = made.task.advice({'objects': 3.0, 'left_out': 0.0, 'anchors_matched': 0.0})
    assert 'heads.rpn.anchor_scale' in advice and 'the anchors 16, 32, 64, 128, 256.' in ' '.join(advice.split())
    sizes = np.concatenate([made.train_data.annotations(i).boxes for i in range(6)])
    middle = np.median(np.sqrt(np.prod(sizes[:, 2:] - sizes[:, :2], 1)))
    assert f'median {middle:.0f}' in advice


def test_evaluation_batch(made):
    batches = read(made.task.evaluation_input(made.eval_data, 4))
    assert [batch['weight'].tolist() for batch in batches] == [[1] * 4, [1, 1, 0, 0]]
    assert np.all(batches[1]['classes'][2:] == -1)
    np.testing.assert_array_equal(batches[0]['native_size'], [[64, 64]] * 4)
    truth = made.eval_data.annotations(1)
    np.testing.assert_allclose(batches[0]['boxes'][1, : len(truth.boxes)], truth.boxes)


def test_evaluation_scales_images_to_fit(tmp_path):
    made = runs.build(tmp_path, 'tasks.instance.eval_size=(96, 150)', gin_files=(runs.INSTANCES,))
    assert made.task.data_limits().eval_size == (96, 150) and made.task.canvas((64, 64)) == (96, 160)
    (batch,) = read(made.task.evaluation_input(made.eval_data, 6))
    assert batch['image'].shape == (6, 96, 160, 3)
    np.testing.assert_array_equal(batch['size'], [[96, 96]] * 6)
    np.testing.assert_allclose(batch['image'][:, :, 96:], np.broadcast_to(PAD_PIXEL, (6, 96, 64, 3)))
    truth = made.eval_data.annotations(0)
    np.testing.assert_allclose(batch['boxes'][0, : len(truth.boxes)], 1.5 * truth.boxes, rtol=1e-6)


def test_images_of_different_sizes_need_an_augmentation(made):
    dataset = Crowded(made.train_data, 'plain')
    load = dataset.load
    dataset.load = lambda index: load(index) | {'image': load(index)['image'][: 30 + tf.cast(index, tf.int32)]}
    with pytest.raises(UserError, match='different sizes .*scale_crop_flip'):
        made.task.training_input(dataset, 4)


def test_copy_paste_through_the_task(tmp_path):
    """Objects of other scenes come on top of a scene's own, and batches are the same whenever they are made."""
    made = runs.build(
        tmp_path,
        'tasks.instance.augments=[@augments.scale_crop_flip, @augments.copy_paste]',
        'augments.scale_crop_flip.size=(64, 64)',
        'augments.copy_paste.probability=1.0',
        'augments.copy_paste.object_probability=1.0',
        'tasks.instance.max_objects=16',
        gin_files=(runs.INSTANCES,),
    )
    source = made.task.training_input(made.train_data, 4)
    (batch,), (again,) = read(source, 1), read(source, 1)
    own = [len(made.train_data.annotations(int(index)).classes) for index in batch['index']]
    count = np.sum(batch['classes'] >= 0, 1)
    assert np.all(count > 0) and np.sum(count) > np.sum(own)
    for name, value in batch.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


# ---- Scores ----------------------------------------------------------------------------------------------------------


def test_perfect_detections_score_one(made, monkeypatch):
    """From the batch over the device, the masks at native size and the metric, and back: nothing is lost."""
    tf.config.run_functions_eagerly(True)
    try:
        monkeypatch.setattr(made.task, 'predict', perfect(made.task, made.eval_data))
        for batch_size in (4, 1):
            source = made.task.evaluation_input(made.eval_data, batch_size)
            metrics = Evaluator(made.task, made.executor.engine).evaluate(source, 1).metrics
            assert metrics['box_ap'] == pytest.approx(1) and metrics['mask_ap50'] == pytest.approx(1), batch_size
            assert metrics['mask_ap'] > 0.9, 'masks have 56 cells a side'
    finally:
        tf.config.run_functions_eagerly(False)


def test_scores_do_not_depend_on_the_batch_size(made):
    found = [
        Evaluator(made.task, made.executor.engine).evaluate(made.task.evaluation_input(made.eval_data, size), 0)
        for size in (4, 1)
    ]
    assert found[0].metrics.keys() == found[1].metrics.keys() and found[0].metrics['detections'] > 0
    for name, value in found[0].metrics.items():
        assert found[1].metrics[name] == pytest.approx(value, abs=1e-6), name


def test_image_scores(made):
    """2 TP / (detections + instances), by boxes and classes."""
    nothing = [0.0, 0.0, 0.0, 0.0]
    a, b, c = [0.0, 0.0, 10.0, 10.0], [0.0, 20.0, 10.0, 30.0], [1.0, 0.0, 11.0, 10.0]
    batch = {
        'boxes': tf.constant([[a, b], [a, b], [nothing] * 2, [nothing] * 2, [a, nothing]]),
        'classes': tf.constant([[0, 1], [0, 1], [-1, -1], [-1, -1], [2, -1]]),
    }
    predictions = {
        'boxes': tf.constant([[a, b, c], [c, b, nothing], [nothing] * 3, [a, nothing, nothing], [a, b, c]]),
        'classes': tf.constant([[0, 1, 0], [0, 0, -1], [-1] * 3, [0, -1, -1], [2, 2, 2]]),
        'scores': tf.constant([[0.9, 0.9, 0.4], [0.9, 0.8, 0.0], [0.0] * 3, [0.7, 0.0, 0.0], [0.9, 0.8, 0.7]]),
    }
    # All right; one right of two, two instances; no instance; one where there is none; one instance, found twice.
    expected = [1, 2 / 4, np.nan, 0, 2 / 4]
    np.testing.assert_allclose(made.task.image_scores(batch, predictions), expected)


def test_self_test(made, caplog):
    with caplog.at_level(logging.INFO):
        made.task.self_test(made.eval_data)
    assert 'the instances of 2 image(s) score an AP of 1' in caplog.text


# ---- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'setting, message',
    [
        ('tasks.instance.max_objects=0', r'tasks.instance.max_objects = 0: expected a whole number of at least 1'),
        ('tasks.instance.mask_size=2.5', r'tasks.instance.mask_size = 2.5'),
        ('tasks.instance.eval_size=(5,)', r'tasks.instance.eval_size = \(5,\): expected \(height, width\)'),
        ('tasks.instance.losses=[]', r'tasks.instance.losses is empty'),
        (
            'tasks.instance.losses=[@losses.dice]',
            r"tasks.instance.losses\[0\]: @losses.dice .*'label_map'.*'instances'",
        ),
    ],
)
def test_wrong_settings(tmp_path, setting, message):
    with pytest.raises(UserError, match=message):
        runs.build(tmp_path, setting, gin_files=(runs.INSTANCES,))


def test_semantic_segmentation_takes_no_losses_of_instances(tmp_path):
    with pytest.raises(UserError, match=r"tasks.semantic.losses\[0\]: @losses.mask .*'instances'.*'label_map'"):
        runs.build(tmp_path, 'tasks.semantic.losses=[@losses.mask]')


def test_overfit_inputs(made):
    train, evaluation = made.task.overfit_inputs(FirstExamples(made.train_data, 2, 'overfit.num_images'), 2)
    (batch,), (other,) = read(train, 1), read(evaluation)
    assert sorted(batch['index']) == [0, 1] and other['index'].tolist() == [0, 1]
    np.testing.assert_array_equal(batch['image'][np.argsort(batch['index'])], other['image'])
    assert len(evaluation.truth(0).classes) == np.sum(other['classes'][0] >= 0)


# ---- What is refused before training ---------------------------------------------------------------------------------


def test_a_batch_normalisation_of_one_value(tmp_path):
    """One scene of 32 pixels is one cell of c5, which batch normalisation cannot learn from; two are enough."""
    tiny = ('CROP=(32, 32)', 'BATCH_SIZE=1')
    with pytest.raises(UserError, match="models.mask_rcnn.norm = 'sync': .*one value per channel") as caught:
        made = runs.build(tmp_path / 'one', *tiny, gin_files=(runs.INSTANCES,))
        made.task.training_input(made.train_data, 1)
    assert 'RunConfig.batch_size' in str(caught.value)
    made = runs.build(tmp_path / 'frozen', *tiny, "models.mask_rcnn.norm='frozen'", gin_files=(runs.INSTANCES,))
    made.task.training_input(made.train_data, 1)


@pytest.mark.parametrize('fits', [True, False])
def test_a_loss_from_elsewhere(tmp_path, fits):
    with registry.temporary():

        @losses.register('far_boxes', target='instances')
        def far_boxes():
            """The length of all box codes."""

            def loss(outputs, batch, step):
                lengths = keras.ops.sum(keras.ops.abs(outputs['boxes'][0]['deltas']), (2, 3))
                total = keras.ops.sum(lengths, 1)
                return LossTerm(total if fits else lengths, keras.ops.ones_like(total))

            return loss

        settings = 'tasks.instance.losses=[@losses.box_class, @losses.far_boxes]'
        if fits:
            task = runs.build(tmp_path, settings, gin_files=(runs.INSTANCES,)).task
            assert list(task._losses) == ['box_class', 'far_boxes']
        else:
            with pytest.raises(UserError) as caught:
                runs.build(tmp_path, settings, gin_files=(runs.INSTANCES,))
            text = str(caught.value)
            assert 'tasks.instance.losses[1]: @losses.far_boxes' in text and 'total (2, 32)' in text
