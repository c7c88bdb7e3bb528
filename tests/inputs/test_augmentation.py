"""What augmentations return is held against their contract before anything runs."""

import pytest
import tensorflow as tf

from seg import registry
from seg.errors import UserError
from seg.inputs import augmentation
from seg.registry import augments

EXAMPLE = {
    'image': tf.TensorSpec((8, 8, 3), tf.float32),
    'label': tf.TensorSpec((8, 8), tf.int32),
    'size': tf.TensorSpec((2,), tf.int32),
}


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        (lambda e: e | {'image': tf.cast(e['image'], tf.uint8)}, 'image as uint8'),
        (lambda e: e | {'image': tf.image.resize(e['image'], [4, 4])}, '(4, 4, 3)'),
        (lambda e: e | {'label': e['label'][..., None]}, 'label as int32'),
        (lambda e: {'image': e['image']}, 'a dict with image'),
        (lambda e: e['image'], 'a tensor of shape (8, 8, 3)'),
        (lambda e: None, 'None'),
    ],
)
def test_an_augmentation_that_breaks_the_example(change, found):
    with registry.temporary():

        @augments.register('mine')
        def mine(*, ignore_label):
            """Mine."""

        factories = augments.check_each([mine, mine], 'tasks.semantic.augments')
    zeros = {key: tf.zeros(spec.shape, spec.dtype) for key, spec in EXAMPLE.items()}
    functions = [lambda example, seed: example, lambda example, seed: change(example)]
    data = tf.data.Dataset.range(1).map(lambda i: augmentation.stages(zeros, functions, tf.constant([0, 0])))
    with pytest.raises(UserError) as caught:
        augmentation.check_stages(data.element_spec, factories, 'tasks.semantic.augments')
    text = str(caught.value)
    assert 'tasks.semantic.augments[1]: @augments.mine' in text and found in text and 'expected' in text
