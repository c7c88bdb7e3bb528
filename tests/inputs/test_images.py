"""Training, evaluation and overfit inputs for both targets, without a model."""

import numpy as np
import pytest

from seg import registry
from seg.errors import UserError
from seg.registry import augments
from seg.structures import PAD_PIXEL
from tests.inputs import kinds

KINDS = pytest.mark.parametrize('kind', [kinds.label_maps, kinds.instances])


def read(source, batches=None):
    data = source.make() if batches is None else source.make().take(batches)
    return [{key: value.numpy() for key, value in batch.items()} for batch in data]


@KINDS
@pytest.mark.parametrize('strip', [(1, 2000), (2000, 1)])
def test_an_image_of_a_single_row_is_overfitted(kind, strip):
    """The training size is the one of the first images; the strip keeps one row or column of it."""
    with registry.temporary():

        @augments.register('middle')
        def middle(*, ignore_label):
            """Any size -> 48 x 64."""
            return lambda example, seed: example | crop(example)

        inputs = kind(augments=augments.check_each([middle], 'x'))
        train, evaluation = inputs.overfit(kinds.Images(strip, (48, 64)), 2)
    (batch,), (held,) = read(train, 1), read(evaluation)
    assert batch['image'].shape == held['image'].shape == (2, 48, 64, 3)
    assert np.all(batch['weight'] == 1) and np.all(held['weight'] == 1)
    assert held['size'].tolist() == [[1, 64] if strip[0] == 1 else [48, 1], [48, 64]]
    order = np.argsort(batch['index'])
    np.testing.assert_array_equal(batch['image'][order], held['image'])
    height, width = held['size'][0]
    assert np.ptp(held['image'][0, :height, :width]) > 20, 'the image itself'
    outside = held['image'][0, height:] if strip[0] == 1 else held['image'][0, :, width:]
    np.testing.assert_allclose(outside, np.broadcast_to(PAD_PIXEL, outside.shape))
    if 'label' in held:
        assert np.sum(held['label'][0] == 1) == height * width and np.sum(held['label'][0] == 255) > 0
    else:
        np.testing.assert_array_equal(held['boxes'][0, 0], [0, 0, height, width])
        assert batch['classes'][order][0].tolist() == [1, -1, -1] and np.all(batch['masks'][order][0, 0] == 255)
        assert held['native_size'][0].tolist() == list(strip)


def crop(example):
    """To 48 x 64 pixels of padding, whatever the example is."""
    import tensorflow as tf

    made = {'image': tf.zeros((48, 64, 3)), 'size': tf.constant([48, 64])}
    return made | ({'label': tf.zeros((48, 64), tf.int32)} if 'label' in example else {})


@KINDS
def test_evaluation_at_a_size(kind):
    """Images are scaled to fit, up or down, on the next multiples of the stride."""
    inputs = kind(eval_size=(40, 70))
    assert inputs.canvas((500, 500)) == (48, 80) and kind().canvas((500, 480)) == (512, 480)
    (batch,) = read(inputs.evaluation(kinds.Images((20, 20), (80, 280)), 2))
    assert batch['image'].shape == (2, 48, 80, 3) and batch['size'].tolist() == [[40, 40], [20, 70]]


@KINDS
def test_training_without_a_common_size(kind):
    with pytest.raises(UserError, match=r'tasks.mine.augments: the images of images/train have different sizes'):
        kind().training(kinds.Images((30, 40), (40, 30)), 2)


@KINDS
def test_a_size_that_the_model_refuses(kind):
    def refuse(size, batch_size):
        raise UserError(f'no {size} by {batch_size}')

    with registry.temporary():

        @augments.register('middle')
        def middle(*, ignore_label):
            """Any size -> 48 x 64."""
            return lambda example, seed: example | crop(example)

        inputs = kind(augments=augments.check_each([middle], 'x'), check_size=refuse)
        for make in (inputs.training, inputs.overfit):
            with pytest.raises(UserError, match=r'no \(48, 64\) by 2'):
                make(kinds.Images((30, 40)), 2)


def test_source_of_the_truth():
    images = kinds.Images((30, 40))
    assert kinds.label_maps().evaluation(images, 1).truth is None
    assert kinds.instances().evaluation(images, 1).truth(0).height == 30
