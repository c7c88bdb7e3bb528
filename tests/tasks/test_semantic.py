"""Semantic segmentation: native-size evaluation, views, losses, images and predictions."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from seg.datasets.base import Dataset, FirstExamples
from seg.errors import UserError
from seg.executor.evaluator import Evaluator
from seg.structures import PAD_PIXEL
from seg.tasks.semantic import Semantic
from tests.executor import runs
from tests.models import small_deeplab

SIZES = ((61, 50), (40, 64), (33, 47), (64, 41), (52, 52), (61, 64))


class Ragged(Dataset):
    """Images of different sizes, cut out of the scenes of another data set. Image `broken` cannot be loaded."""

    def __init__(self, scenes, broken: int = -1):
        self.info = dataclasses.replace(scenes.info, name='ragged/val', num_examples=6, max_size=(64, 64))
        self._scenes, self._broken = scenes, broken

    def load(self, index):
        height, width = tf.unstack(tf.gather(SIZES, index))
        with tf.control_dependencies([tf.debugging.Assert(index != self._broken, ['broken'])]):
            example = self._scenes.load(index)
        image, label = example['image'][:height, :width], example['label'][:height, :width]
        return {'image': tf.ensure_shape(image, (None, None, 3)), 'label': tf.ensure_shape(label, (None, None))}

    def image_name(self, index):
        return f'scenes/{index:03d}'


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A task as the demo has it, but for an auxiliary head and three losses."""
    return runs.build(
        tmp_path_factory.mktemp('plain'),
        'models.deeplab_v3plus.output_stride=16',
        'models.deeplab_v3plus.aux_head=@heads.fcn',
        'heads.fcn.channels=8',
        'tasks.semantic.losses=[@losses.softmax_cross_entropy, @losses.dice, @one/losses.softmax_cross_entropy]',
        'one/losses.softmax_cross_entropy.weight=0.5',
        'tasks.semantic.augments=[@augments.scale_crop_flip]',
        'augments.scale_crop_flip.size=(64, 64)',
    )


@pytest.fixture(scope='module')
def views(tmp_path_factory):
    """A task that evaluates at two scales, mirrored as well."""
    return runs.build(
        tmp_path_factory.mktemp('views'),
        'models.deeplab_v3plus.output_stride=8',
        'decoders.deeplab_v3plus.separable=False',
        'tasks.semantic.eval_scales=(0.5, 1.0)',
        'tasks.semantic.eval_flip=True',
    )


def read(source, batches=None):
    data = source.make()
    return [{k: v.numpy() for k, v in batch.items()} for batch in (data.take(batches) if batches else data)]


def scene(made, index):
    """An image of Ragged as it is: image, label."""
    height, width = SIZES[index]
    example = made.eval_data.load(tf.constant(index, tf.int64))
    return example['image'].numpy()[:height, :width], example['label'].numpy()[:height, :width]


def logits(made, batch):
    return made.task.model({'image': batch['image'], 'size': batch['size']}, training=False)['logits']


# ---- Input -----------------------------------------------------------------------------------------------------------


def test_every_image_at_its_own_size_on_one_canvas(plain):
    (batch,) = read(plain.task.evaluation_input(Ragged(plain.eval_data), 6))
    assert batch['image'].shape == (6, 64, 64, 3) and batch['label'].shape == (6, 64, 64)
    np.testing.assert_array_equal(batch['size'], SIZES)
    for i, (height, width) in enumerate(SIZES):
        image, label = scene(plain, i)
        np.testing.assert_allclose(batch['image'][i, :height, :width], image, atol=1e-4)
        np.testing.assert_array_equal(batch['label'][i, :height, :width], label)
        for outside in (np.s_[i, height:], np.s_[i, :, width:]):
            assert np.all(batch['label'][outside] == 255)
            np.testing.assert_allclose(
                batch['image'][outside], np.broadcast_to(PAD_PIXEL, batch['image'][outside].shape)
            )


def test_canvas_is_the_next_multiple_of_the_stride(plain):
    dataset = Ragged(plain.eval_data)
    dataset.info = dataclasses.replace(dataset.info, max_size=(65, 80))
    assert read(plain.task.evaluation_input(dataset, 2), 1)[0]['image'].shape == (2, 80, 80, 3)


def test_unreadable_image(plain):
    batches = read(plain.task.evaluation_input(Ragged(plain.eval_data, broken=2), 4))
    weight = np.concatenate([batch['weight'] for batch in batches])
    assert weight.tolist() == [1, 1, 0, 1, 1, 1, 0, 0]
    for i in (2,):
        assert np.all(batches[0]['label'][i] == 255) and np.all(batches[0]['size'][i] == 1)
        np.testing.assert_allclose(batches[0]['image'][i, 5, 5], PAD_PIXEL)


def test_training_images_have_the_crop_size(plain):
    (batch,) = read(plain.task.training_input(Ragged(plain.train_data), 4), 1)
    assert batch['image'].shape == (4, 64, 64, 3) and batch['image'].dtype == np.float32
    assert batch['label'].shape == (4, 64, 64) and batch['size'].dtype == np.int32


def test_training_images_of_different_sizes(views):
    """Without an augmentation that gives them one."""
    with pytest.raises(UserError, match='ragged/val have different sizes .*scale_crop_flip'):
        views.task.training_input(Ragged(views.train_data), 4)


def test_training_images_of_a_random_size(plain, monkeypatch):
    """Though their shape can be computed for any one seed."""

    def crop(example, seed):
        side = tf.random.stateless_uniform([], seed, 32, 64, tf.int32)
        parts = {key: example[key][:side, :side] for key in ('image', 'label')}
        return {**example, **parts, 'size': tf.stack([side, side])}

    monkeypatch.setattr(plain.task.inputs, 'augments', [crop])
    with pytest.raises(UserError, match='different sizes'):
        plain.task.training_input(plain.train_data, 4)


def test_overfit_inputs(plain):
    """The same few images for both, whole, without augmentation, at the training size."""
    train, evaluation = plain.task.overfit_inputs(FirstExamples(Ragged(plain.train_data), 3, 'overfit.num_images'), 3)
    (held,) = read(evaluation)
    assert held['index'].tolist() == [0, 1, 2]
    # 61 x 50, 40 x 64 and 33 x 47 pixels, each scaled to fill 64 x 64.
    assert held['size'].tolist() == [[64, 52], [40, 64], [45, 64]]
    for batch in read(train, 3):
        assert sorted(batch['index']) == [0, 1, 2]
        for i, index in enumerate(batch['index']):
            for key in ('image', 'label', 'size'):
                np.testing.assert_array_equal(batch[key][i], held[key][index])
    image, label = scene(plain, 1)  # It fills the width as it is.
    train_scene = plain.train_data.load(tf.constant(1, tf.int64))
    np.testing.assert_allclose(held['image'][1, :40], train_scene['image'][:40], atol=1e-3)
    np.testing.assert_array_equal(held['label'][1, :40], train_scene['label'][:40])
    assert np.all(held['label'][1, 40:] == 255)
    with pytest.raises(UserError, match='overfit.num_images = 7: ragged/val has 6'):
        FirstExamples(Ragged(plain.train_data), 7, 'overfit.num_images')


def test_one_value_per_channel_is_refused_before_training(tmp_path):
    """The normalisation's own message, alone; two images are enough."""
    made = runs.build(tmp_path, 'BATCH_SIZE=1')
    with pytest.raises(UserError) as caught:
        made.task.training_input(made.train_data, 1)
    message = str(caught.value)
    assert message.startswith(
        "models.deeplab_v3plus.norm = 'sync': the batch normalisation 'deeplab_v3plus_decoder/aspp/image_pooling/norm'"
    )
    assert 'RunConfig.batch_size' in message and '\n' not in message
    made.task.training_input(made.train_data, 2)


# ---- Losses and evaluation -------------------------------------------------------------------------------------------


def test_loss_names(plain):
    (batch,) = read(plain.task.training_input(plain.train_data, 2), 1)
    terms = plain.task.loss_terms(batch, tf.constant(0))
    names = ['softmax_cross_entropy', 'dice', 'softmax_cross_entropy_2']
    assert list(terms) == names + [f'auxiliary_{name}' for name in names]
    one, other = terms['softmax_cross_entropy'], terms['softmax_cross_entropy_2']
    np.testing.assert_allclose(other.total, 0.5 * one.total.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(other.weight, one.weight)
    assert all(term.total.shape == term.weight.shape == (2,) for term in terms.values())


def test_bad_settings(tmp_path):
    for setting, message in (
        ('losses=[]', 'tasks.semantic.losses is empty'),
        ('metrics=@metrics.mean_iou', r'tasks.semantic.metrics: expected a list of metrics, \[@metrics.<name>, …\]'),
        ('augments=3', 'tasks.semantic.augments: expected a list of augments, .* received 3'),
        ('eval_scales=(0,)', 'eval_scales'),
    ):
        with pytest.raises(UserError, match=message):
            runs.build(tmp_path, f'tasks.semantic.{setting}')


def test_validation_loss(plain):
    """The mean over all labelled pixels of the data set: not over batches, and without padding."""
    source = plain.task.evaluation_input(Ragged(plain.eval_data), 4)
    found = Evaluator(plain.task, plain.executor.engine).evaluate(source)
    total = count = right = 0
    for batch in read(source):
        values = logits(plain, batch).numpy().astype(np.float64)
        labelled = (batch['label'] != 255) & (batch['weight'] > 0)[:, None, None]
        truth, values = batch['label'][labelled], values[labelled]
        total += np.sum(np.log(np.exp(values).sum(-1)) - values[np.arange(len(truth)), truth])
        right += np.sum(values.argmax(-1) == truth)
        count += len(truth)
    assert count == sum(height * width for height, width in SIZES) == found.metrics['pixels']
    assert found.examples == 6
    assert found.metrics['loss/softmax_cross_entropy'] == pytest.approx(total / count, rel=1e-5)
    assert found.metrics['pixel_accuracy'] == pytest.approx(right / count, abs=1e-4)
    names = ('softmax_cross_entropy', 'dice', 'softmax_cross_entropy_2')
    assert found.metrics['loss'] == pytest.approx(sum(found.metrics[f'loss/{name}'] for name in names))


def test_result_does_not_depend_on_the_batch_size(views):
    evaluator = Evaluator(views.task, views.executor.engine)
    one, four = (evaluator.evaluate(views.task.evaluation_input(Ragged(views.eval_data), n)) for n in (1, 4))
    assert one.examples == four.examples == 6 and one.metrics.keys() == four.metrics.keys()
    for name, value in one.metrics.items():
        assert four.metrics[name] == pytest.approx(value, abs=2e-4, rel=1e-4), name


def mirrored(values, size):
    """Mirrors the columns of each image, in numpy; the padding at the right stays there."""
    values = np.array(values)
    for i, (_, width) in enumerate(size):
        values[i, :, :width] = values[i, :, :width][:, ::-1].copy()
    return values


def test_views_by_hand(views):
    """Of each image by itself, without a canvas."""
    (batch,) = read(views.task.evaluation_input(Ragged(views.eval_data), 6))
    found = views.task.predict(batch)
    for i, (height, width) in enumerate(SIZES):
        image = batch['image'][i : i + 1, :height, :width]
        probabilities = []
        for scale in (0.5, 1.0):
            size = np.int32([[int(side * scale + 0.5) for side in (height, width)]])
            scaled = tf.image.resize(image, size[0]).numpy()
            for step in (1, -1):
                values = logits(views, {'image': scaled[:, :, ::step], 'size': size})[:, :, ::step]
                probabilities.append(tf.nn.softmax(tf.image.resize(values, (height, width)))[0].numpy())
        mean = np.mean(probabilities, 0)
        np.testing.assert_allclose(found['confidence'][i, :height, :width], mean.max(-1), atol=1e-5)
        clear = np.diff(np.sort(mean, -1)[..., -2:])[..., 0] > 1e-4
        np.testing.assert_array_equal(found['classes'][i, :height, :width][clear], mean.argmax(-1)[clear])
        assert clear.mean() > 0.9


@pytest.mark.parametrize(('width', 'scale'), [(48, 0.9), (64, 1.1), (80, 0.6), (7, 0.05)])
def test_views_at_scales_without_a_whole_width(width, scale):
    """A model whose logits are its pixels gives them back, scaled and mirrored, on any canvas."""

    class Pixels:
        def __call__(self, batch, training):
            assert np.all(batch['size'] >= 1) and np.all(batch['size'] <= batch['image'].shape[1:3])
            return {'logits': batch['image']}

    task = Semantic.__new__(Semantic)
    task._model = Pixels()
    size = np.int32([[16, width], [9, width - 3]])
    for canvas in ((16, width), (32, width + 40)):
        image = np.zeros((2, *canvas, 3), np.float32)
        image[..., 0] = np.arange(canvas[1])
        found = task._logits({'image': tf.constant(image), 'size': tf.constant(size)}, scale, True).numpy()
        for i, (height, own) in enumerate(size):
            margin = int(1 / scale) + 1  # Half a pixel of the smaller image at either end.
            inner = np.s_[i, :height, margin : max(own - margin, margin), 0]
            np.testing.assert_allclose(found[inner], image[inner], atol=1e-3)


@pytest.mark.parametrize(('scale', 'flip'), [(1.0, True), (0.7, False), (1.3, True)])
def test_views_do_not_depend_on_the_canvas(plain, scale, flip):
    small_deeplab.randomize(plain.task.model)
    image = np.random.default_rng(0).uniform(0, 255, (37, 50, 3)).astype('float32')
    found = []
    for canvas in ((37, 50), (48, 64), (96, 112)):
        placed = np.tile(np.float32(PAD_PIXEL), (1, *canvas, 1))
        placed[0, :37, :50] = image
        batch = {'image': tf.constant(placed), 'size': tf.constant([[37, 50]])}
        found.append(plain.task._logits(batch, scale, flip)[0, :37, :50].numpy())
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5 * np.abs(found[0]).max())


def test_mirrored_images_have_mirrored_predictions(views):
    """Where both views count, left and right are the same."""
    (batch,) = read(views.task.evaluation_input(views.eval_data, 6))
    found = views.task.predict(batch)
    flipped = views.task.predict(batch | {'image': mirrored(batch['image'], batch['size'])})
    np.testing.assert_allclose(flipped['confidence'], found['confidence'].numpy()[:, :, ::-1], atol=1e-5)


def test_predictions_are_those_of_the_evaluation(plain):
    (batch,) = read(plain.task.evaluation_input(Ragged(plain.eval_data), 6))
    found, evaluated = plain.task.predict(batch), plain.task.evaluate_batch(batch)[0]
    for key in ('classes', 'confidence'):
        np.testing.assert_allclose(found[key], evaluated[key], atol=1e-6)
    assert found['classes'].dtype == tf.int32 and found['probabilities'].dtype == tf.float32
    np.testing.assert_allclose(found['probabilities'].numpy().sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(found['probabilities'].numpy().argmax(-1), found['classes'])


# ---- For people ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(plain):
    """A batch with an unreadable image, and predictions that are the truth plus one."""
    (batch,) = read(plain.task.evaluation_input(Ragged(plain.eval_data, broken=1), 6))
    classes = np.where(batch['label'] == 255, 0, (batch['label'] + 1) % plain.info.num_classes).astype(np.int32)
    return batch, {'classes': classes}


def test_summary(plain):
    assert plain.task.summary({'miou': 0.5, 'loss': 1.25, 'pixels': 9}) == 'miou 0.5000, loss 1.2500'
