"""What augments return is held against their contract before anything runs."""

import pytest
import tensorflow as tf

from seg import registry
from seg.augments import instances
from seg.errors import UserError
from seg.inputs import augmentation
from seg.registry import augments
from tests.augments.test_instances import scene

LABEL_MAP = {
    'image': tf.zeros((8, 8, 3)),
    'label': tf.zeros((8, 8), tf.int32),
    'size': tf.constant([8, 8]),
}
INSTANCES = instances.begin(scene(8, 8)[0])


@pytest.mark.parametrize(
    ('example', 'change', 'found', 'expected'),
    [
        (LABEL_MAP, lambda e: e | {'image': tf.cast(e['image'], tf.uint8)}, 'image as a tensor uint8', 'float32'),
        (LABEL_MAP, lambda e: e | {'image': tf.image.resize(e['image'], [4, 4])}, '(4, 4, 3)', '[H, W, 3]'),
        (LABEL_MAP, lambda e: e | {'label': e['label'][..., None]}, 'label as a tensor int32 (8, 8, 1)', '[H, W]'),
        (LABEL_MAP, lambda e: {'image': e['image']}, 'a dict without label, size', 'image, label, size'),
        (LABEL_MAP, lambda e: e['image'], 'a tensor float32 (8, 8, 3)', 'image, label, size'),
        (LABEL_MAP, lambda e: None, 'None', 'image, label, size'),
        (INSTANCES, lambda e: e | {'boxes': e['boxes'][:, :3]}, 'boxes as a tensor float32 (None, 3)', '[N, 4]'),
        (INSTANCES, lambda e: e | {'view': e['view'][:, :, 0]}, 'view as a tensor float32 (None, 2)', '[N, 2, 3]'),
        (INSTANCES, lambda e: e | {'masks': e['masks'].to_tensor()}, 'masks as a tensor int32', '[N, (ends)]'),
        (INSTANCES, lambda e: e | {'area': tf.cast(e['area'], tf.int32)}, 'area as a tensor int32', 'float32 [N]'),
    ],
)
def test_an_augment_that_breaks_the_example(example, change, found, expected):
    data = tf.data.Dataset.from_tensors(example)
    if 'boxes' in example:  # Any number of instances.
        data = data.map(lambda e: instances.choose(e, tf.where(e['classes'] >= 0)[:, 0]))

    def kept():
        """Mine."""
        return lambda example, seed: example

    def mine():
        """Mine."""
        return lambda example, seed: change(example)

    # The next one would fail on what the second returns.
    functions = made(kept, mine, lost_in_what_is_wrong, target='label_map' if example is LABEL_MAP else 'instances')
    with pytest.raises(UserError) as caught:
        data.map(lambda e: augmentation.applied(e, functions, tf.constant([0, 0])))
    text = str(caught.value)
    assert text.startswith('tasks.mine.augments[1]: @augments.mine (tests/inputs/test_augmentation.py:')
    returned, _, wanted = text.partition('; expected ')
    assert found in returned and expected in wanted


def lost_in_what_is_wrong():
    """Cannot do without an example."""
    return lambda example, seed: 1 / 0


def made(*builders, target='instances'):
    with registry.temporary():
        for builder in builders:
            augments.register(builder.__name__)(builder)
        slot = 'tasks.mine.augments'
        return augmentation.build(augments.check_each(builders, slot), slot, target)


@pytest.mark.parametrize('value', [3, lambda example: example, {'image': None}])
def test_what_is_no_augment(value):
    def mine():
        """Mine."""
        return value

    with pytest.raises(UserError, match=r'tasks.mine.augments\[0\]: @augments.mine .*augment\(example, seed\)'):
        made(mine)


def test_a_key_that_the_target_does_not_have():
    """Told in the trial as well, in which nothing is computed."""

    def mine():
        """Mine."""
        return lambda example, seed: example | {'label': example['label'] + 1}

    (augment,) = made(mine)
    with pytest.raises(UserError, match=r"(?s)@augments.mine .*'label'.*The example has area, boxes"):
        tf.data.Dataset.from_tensors(INSTANCES).map(lambda e: augment(e, tf.constant([0, 0])))


def divides(example, seed):
    return example | {'image': example['image'] * (1 // 0)}


def asks(example, seed):
    return example if example['image'][0, 0, 0] > 0 and bool(example['size'][0] > 0) else None


def removes(example, seed):
    del example['size']
    return example | {'image': example['image'] * tf.cast(example['size'][0], tf.float32)}


@pytest.mark.parametrize(
    ('augment', 'found'),
    [(divides, 'ZeroDivisionError'), (asks, 'bool'), (removes, "'size'. The augment has removed it")],
)
def test_an_augment_that_fails_names_the_line(augment, found):
    def mine():
        """Mine."""
        return augment

    (function,) = made(mine, target='label_map')
    with pytest.raises(UserError) as caught:
        tf.data.Dataset.from_tensors(LABEL_MAP).map(lambda e: function(e, tf.constant([0, 0])))
    text = str(caught.value)
    assert 'tasks.mine.augments[0]: @augments.mine' in text and found in text
    line = augment.__code__.co_firstlineno + (2 if augment is removes else 1)
    assert f'failed, tests/inputs/test_augmentation.py:{line}: ' in text
