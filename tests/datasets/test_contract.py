"""The contract of data sets: each difference is reported with the image, the key, the value and what was expected."""

import re

import numpy as np
import pytest
import tensorflow as tf

from seg.datasets import contract
from seg.errors import UserError
from seg.structures import DatasetInfo
from tests.datasets.small import SIZE, Instances, LabelMaps

SLOT = 'experiment.train_data: @datasets.mine (lab/data.py:7)'


def refused(dataset, target, message):
    with pytest.raises(UserError, match=f'(?s){re.escape("mine/train")}.*{message}'):
        contract.verify(dataset, target, SLOT)


def test_sound_data_sets():
    contract.verify(LabelMaps(), 'label_map', SLOT)
    contract.verify(LabelMaps(label=tf.fill(SIZE, 255)), 'label_map', SLOT)
    contract.verify(Instances(), 'instances', SLOT)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'label': tf.fill(SIZE, 52)}, r"'image 0': label holds 52 \(48 pixels\).* 0\.\.1 \(2 classes\) or 255"),
        ({'label': tf.fill(SIZE, -1)}, r'label holds -1 \(48 pixels\)'),
        ({'label': tf.zeros(SIZE, tf.uint8)}, r'label is uint8, expected int32 \[H, W\]'),
        ({'label': tf.zeros([*SIZE, 1], tf.int32)}, r'label has shape \(6, 8, 1\), expected .*\(6, 8\)'),
        ({'label': tf.zeros([6, 7], tf.int32)}, r'label has shape \(6, 7\), expected .*\(6, 8\)'),
        ({'image': tf.zeros([*SIZE, 3])}, r'image is float32, expected uint8 \[H, W, 3\]'),
        ({'image': tf.zeros([*SIZE, 4], tf.uint8)}, r'image has shape \(6, 8, 4\), expected \[H, W, 3\]'),
        ({'image': tf.zeros([8, 6, 3], tf.uint8)}, r'8 x 6 pixels .* info.max_size is \(6, 8\)'),
    ],
)
def test_label_maps(changes, message):
    refused(LabelMaps(**changes), 'label_map', message)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'classes': tf.constant([2, 0])}, r"'image 0': classes\[0\] is 2\. Expected 0\.\.1"),
        ({'classes': tf.constant([1])}, r'boxes 2, classes 1, is_crowd 2, area 2, masks 2'),
        ({'classes': tf.constant([1.0, 0.0])}, r'classes is float32, expected int32 \[N\]'),
        ({'boxes': tf.constant([[1.0, 2, 3, np.nan]] * 2)}, r'boxes\[0\] is \[1\.0, 2\.0, 3\.0, nan\]'),
        ({'boxes': tf.constant([[2.0, 1, 4, 3], [0, 5, 8, 20]])}, r'boxes\[1\] is .*6 x 8 pixels'),
        ({'boxes': tf.constant([[4.0, 1, 2, 3]] * 2)}, r'boxes\[0\] is .*y0 <= y1'),
        ({'boxes': tf.zeros([2, 5])}, r'boxes has shape \(2, 5\)'),
        ({'masks': tf.zeros([2, *SIZE], tf.bool)}, r'masks is .*tf.RaggedTensor int32'),
        ({'masks': tf.ragged.constant([[1, 4], [7, 5]], dtype=tf.int32)}, r'masks\[1\] is \[7, 5\].*0\.\.48'),
        ({'masks': tf.ragged.constant([[1], [5, 7]], dtype=tf.int32)}, r'masks\[0\] is \[1\]'),
    ],
)
def test_instances(changes, message):
    refused(Instances(**changes), 'instances', message)


def test_keys_of_another_target():
    refused(
        LabelMaps(), 'instances', r"'image 0': load returned 'image', 'label'.*boxes \(float32 \[N, 4\]\).*is_crowd"
    )
    refused(Instances(), 'label_map', "load returned 'area', .*'label_map' also needs label .int32 .H, W..")


def test_values_that_are_not_data_sets():
    with pytest.raises(UserError) as caught:
        contract.verify([1, 2], 'label_map', SLOT)
    assert str(caught.value).startswith(SLOT) and 'list' in str(caught.value) and 'base.Dataset' in str(caught.value)


@pytest.mark.parametrize(
    ('info', 'found'),
    [
        (None, 'info is None'),
        (DatasetInfo('mine/train', ('a', 'b'), 0, SIZE), 'info.num_examples is 0'),
        (DatasetInfo('mine/train', ('a', 'b'), 5, (6.5, 8)), 'info.max_size is (6.5, 8)'),
    ],
)
def test_impossible_facts(info, found):
    dataset = LabelMaps()
    dataset.info = info
    with pytest.raises(UserError) as caught:
        contract.verify(dataset, 'label_map', SLOT)
    assert found in str(caught.value) and (SLOT if info is None else 'mine/train') in str(caught.value)


def test_a_target_of_a_plugin():
    """Its own keys are not checked; image and sizes are."""
    depth = tf.zeros(SIZE)
    contract.verify(LabelMaps(label=depth, depth=depth), 'depth', SLOT)
    refused(LabelMaps(image=tf.zeros([*SIZE, 3])), 'depth', r'image is float32, expected uint8')
    refused(LabelMaps(image=tf.zeros([8, 6, 3], tf.uint8)), 'depth', r'info.max_size is \(6, 8\)')


def test_annotations_that_do_not_fit():
    class Fewer(Instances):
        def annotations(self, index):
            return super().annotations(index)._replace(masks=[])

    class Dicts(Instances):
        def annotations(self, index):
            return super().annotations(index)._asdict()

    refused(Fewer(), 'instances', 'annotations: lengths boxes 2, .*masks 0.*one entry of each key')
    refused(Dicts(), 'instances', 'annotations returned .*expected a seg.structures.Annotations')


def test_one_class():
    dataset = LabelMaps()
    dataset.info = DatasetInfo('mine/train', ('object',), 5, SIZE)
    refused(dataset, 'label_map', "'object'.*background")


def test_images_that_cannot_be_loaded():
    """Some are left out; if none of the first can be loaded, the labels cannot be checked."""

    class Damaged(LabelMaps):
        def __init__(self, first):
            super().__init__()
            self._first = first

        def load(self, index):
            tf.debugging.Assert(index >= self._first, ['cut off'])
            return super().load(index)

    contract.verify(Damaged(1), 'label_map', SLOT)
    refused(Damaged(9), 'label_map', r"none of the first 3 .*image 'image 0': .*cut off")


def test_a_load_that_fails_names_the_line():
    class Broken(LabelMaps):
        def load(self, index):
            return {'image': tf.zeros([*SIZE, 3], tf.uint8), 'label': missing}  # noqa: F821

    line = Broken.load.__code__.co_firstlineno + 1
    with pytest.raises(UserError) as caught:
        contract.verify(Broken(), 'label_map', SLOT)
    parts = (SLOT, "'image 0'", f'tests/datasets/test_contract.py:{line}: NameError')
    assert all(part in str(caught.value) for part in parts)


def test_class_names_that_are_one_text():
    with pytest.raises(UserError, match="mine/train: class_names is 'wide'"):
        DatasetInfo('mine/train', ('wide'), 1, SIZE)
