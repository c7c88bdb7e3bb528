"""What data sets have to give: each difference is told with the image, the key, the value and what was expected."""

import re

import numpy as np
import pytest
import tensorflow as tf

from seg.datasets import contract
from seg.errors import UserError
from seg.masks import ragged
from seg.structures import DatasetInfo

SIZE = (6, 8)


class Semantic:
    """Five pictures of the classes a and b."""

    def __init__(self, **changes):
        self.info = DatasetInfo('mine/train', ('a', 'b'), 5, SIZE)
        self._changes = changes

    def load(self, index):
        label = tf.reshape(tf.range(48) % 2, SIZE)
        image = tf.fill([*SIZE, 3], tf.cast(index, tf.uint8))
        return {'image': image, 'label': label} | {k: v for k, v in self._changes.items() if v is not None}

    def image_name(self, index):
        return f'picture {index}'

    def verify(self):
        pass


class Objects(Semantic):
    """Two objects a picture."""

    def load(self, index):
        masks = np.zeros([2, *SIZE], bool)
        masks[0, 1:3, 2:4] = masks[1, 4:, 5:] = True
        masks = ragged.from_dense(tf.constant(masks))
        boxes, area = ragged.boxes_and_areas(masks, SIZE[0])
        objects = {'boxes': boxes, 'classes': tf.constant([1, 0]), 'is_crowd': tf.constant([False, False])}
        image = tf.zeros([*SIZE, 3], tf.uint8)
        return {'image': image, **objects, 'area': area, 'masks': masks} | self._changes

    def annotations(self, index):
        example = self.load(index)
        del example['image']
        return ragged.annotations(example, *SIZE)


def refused(dataset, target, message):
    with pytest.raises(UserError, match=f'(?s){re.escape("mine/train")}.*{message}'):
        contract.verify(dataset, target)


def test_sound_data_sets():
    contract.verify(Semantic(), 'label_map')
    contract.verify(Semantic(label=tf.fill(SIZE, 255)), 'label_map')
    contract.verify(Objects(), 'instances')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'label': tf.fill(SIZE, 52)}, r"'picture 0': label holds 52 \(48 pixels\).* 0\.\.1 \(2 classes\) or 255"),
        ({'label': tf.fill(SIZE, -1)}, r'label holds -1 \(48 pixels\)'),
        ({'label': tf.zeros(SIZE, tf.uint8)}, r'label is uint8, expected int32 \[H, W\]'),
        ({'label': tf.zeros([*SIZE, 1], tf.int32)}, r'label has shape \(6, 8, 1\), expected .*\(6, 8\)'),
        ({'label': tf.zeros([6, 7], tf.int32)}, r'label has shape \(6, 7\), expected .*\(6, 8\)'),
        ({'image': tf.zeros([*SIZE, 3])}, r'image is float32, expected uint8 \[H, W, 3\]'),
        ({'image': tf.zeros([*SIZE, 4], tf.uint8)}, r'image has shape \(6, 8, 4\), expected \[H, W, 3\]'),
        ({'image': tf.zeros([8, 6, 3], tf.uint8)}, r'8 x 6 pixels .* info.max_size is \(6, 8\)'),
    ],
)
def test_labels_of_pixels(changes, message):
    refused(Semantic(**changes), 'label_map', message)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'classes': tf.constant([2, 0])}, r"'picture 0': classes\[0\] is 2\. Expected 0\.\.1"),
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
def test_objects(changes, message):
    refused(Objects(**changes), 'instances', message)


def test_keys_and_methods_that_are_missing():
    with pytest.raises(UserError, match='The data set Semantic has no annotations, which the target instances needs'):
        contract.verify(Semantic(), 'instances')
    refused(Objects(), 'label_map', "without 'label': int32")


def test_one_class():
    dataset = Semantic()
    dataset.info = DatasetInfo('mine/train', ('object',), 5, SIZE)
    refused(dataset, 'label_map', "'object'.*background")


def test_pictures_that_cannot_be_loaded():
    """Some count nowhere; if none of the first can be loaded, nothing can be said of the labels."""

    class Damaged(Semantic):
        def load(self, index):
            tf.debugging.Assert(index >= self._changes['first'], ['cut off'])
            return Semantic().load(index)

    contract.verify(Damaged(first=1), 'label_map')
    refused(Damaged(first=9), 'label_map', r"none of the first 3 .*image 'picture 0': .*cut off")


def test_pictures_that_are_learnt_and_scored(caplog):
    """The same names and pixels are told; the same names of other pictures are not."""

    class Others(Semantic):
        def load(self, index):
            return super().load(index + 9)

    with caplog.at_level('WARNING'):
        contract.warn_of_shared(Semantic(), Others())
    assert not caplog.records
    with caplog.at_level('WARNING'):
        contract.warn_of_shared(Semantic(), Semantic())
    assert '5 of the 5 pictures of mine/train are the same' in caplog.text and "'picture 0'" in caplog.text


def test_files_that_are_learnt_and_scored(tmp_path, caplog):
    """Copies under other names are told; other files of the same length or name are not."""

    class Files(Semantic):
        def image_path(self, index):
            return str(tmp_path / self._changes['folder'] / f'{index}')

    for folder in 'ab':
        (tmp_path / folder).mkdir()
        for n in range(5):
            (tmp_path / folder / f'{n}').write_text(f'{n}{folder}')
    with caplog.at_level('WARNING'):
        contract.warn_of_shared(Files(folder='a'), Files(folder='b'))
    assert not caplog.records
    (tmp_path / 'b' / '3').write_text('1a')
    with caplog.at_level('WARNING'):
        contract.warn_of_shared(Files(folder='a'), Files(folder='b'))
    assert '1 of the 5 pictures' in caplog.text and "such as 'picture 3'" in caplog.text
