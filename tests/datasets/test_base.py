"""The defaults of a data set, and the messages about members without one."""

import numpy as np
import pytest
import tensorflow as tf

from seg.datasets.base import Dataset, FirstExamples, check_target, instances
from seg.errors import UserError
from seg.masks import ragged
from seg.structures import DatasetInfo
from tests.datasets.small import SIZE, Instances, LabelMaps


class Depth(Dataset):
    """A target of none of the built-in tasks."""

    info = DatasetInfo('mine/train', ('a', 'b'), 5, SIZE)

    def load(self, index):
        return {'image': tf.zeros([*SIZE, 3], tf.uint8), 'depth': tf.zeros(SIZE)}


def test_instances_for_scores_are_those_of_load():
    """Boxes, classes, crowds, areas and masks, at the image's size."""
    found, loaded = Instances().annotations(3), Instances().load(3)
    assert (found.height, found.width) == SIZE
    for key in ('boxes', 'classes', 'is_crowd', 'area'):
        np.testing.assert_array_equal(getattr(found, key), loaded[key])
    assert found.boxes.tolist() == [[1, 2, 3, 4], [4, 5, 6, 8]] and found.area.tolist() == [4, 6]
    assert [mask['size'] for mask in found.masks] == [[6, 8]] * 2


def test_an_image_without_instances():
    none = instances(ragged.from_dense(tf.zeros([0, *SIZE], tf.bool)), tf.zeros([0], tf.int32), SIZE[0])
    assert none['boxes'].shape == (0, 4) and none['masks'].nrows() == 0
    assert Instances(**none).annotations(0).masks == []


def test_class_histogram_of_label_maps():
    """24 pixels of 48 are ignored in four of five images, none in one; the last cannot be read."""

    class Some(LabelMaps):
        def load(self, index):
            label = np.zeros(SIZE, np.int32)
            label[0], label[1:4, :4], label[4:, :] = 255, 1, 255
            rows = tf.where(index == 2, 0, label)
            with tf.control_dependencies([tf.debugging.Assert(index != 4, ['damaged'])]):
                return {'image': tf.zeros([*SIZE, 3], tf.uint8), 'label': tf.identity(rows)}

    found = Some().class_histogram()
    assert found.pixels.tolist() == [3 * 12 + 48, 3 * 12] and found.present_pixels.tolist() == [3 * 24 + 48, 3 * 24]


def test_class_histogram_of_instances():
    found = Instances().class_histogram()
    assert found.pixels.tolist() == [5 * 6, 5 * 4] and found.present_pixels.tolist() == [50, 50]


@pytest.mark.parametrize(
    ('dataset', 'call', 'member'),
    [
        (Depth(), lambda d: d.annotations(0), 'annotations(index)'),
        (Depth(), lambda d: d.class_histogram(), 'class_histogram()'),
        (Depth(), lambda d: d.image_name(0), 'image_name(index)'),
        (Dataset(), lambda d: d.load(tf.constant(0, tf.int64)), 'load(index)'),
    ],
)
def test_members_that_are_missing(dataset, call, member):
    with pytest.raises(UserError) as caught:
        call(dataset)
    name = 'mine/train: the data set Depth' if dataset.info else 'Dataset: the data set Dataset'
    assert str(caught.value).startswith(name) and f'no {member}' in str(caught.value)


def test_the_first_examples():
    class Files(Instances):
        def image_path(self, index):
            return f'/data/{index}.png'

    few = FirstExamples(Files(), 2, 'overfit.num_images')
    assert few.info == DatasetInfo('mine/train', ('a', 'b'), 2, SIZE) and few.image_name(1) == 'image 1'
    assert few.image_id(0) == 1 and few.image_path(1) == '/data/1.png' and len(few.annotations(1).masks) == 2
    with pytest.raises(UserError, match='overfit.num_images = 6: mine/train has 5'):
        FirstExamples(Files(), 6, 'overfit.num_images')


def test_a_target_that_is_not_served():
    targets = ('label_map', 'instances')
    check_target('datasets.mine', 'instances', targets)
    with pytest.raises(UserError, match="^datasets.mine: .*'depth'.*'label_map' and 'instances'"):
        check_target('datasets.mine', 'depth', targets)
