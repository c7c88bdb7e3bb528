"""Small data sets for both targets, with examples that a test can change."""

import numpy as np
import tensorflow as tf

from seg.datasets.base import Dataset, instances
from seg.masks import ragged
from seg.structures import DatasetInfo

SIZE = (6, 8)


class LabelMaps(Dataset):
    """Five images of the classes a and b; `changes` replace keys of their examples."""

    def __init__(self, **changes):
        self.info = DatasetInfo('mine/train', ('a', 'b'), 5, SIZE)
        self.changes = changes

    def load(self, index):
        label = tf.reshape(tf.range(48) % 2, SIZE)
        image = tf.fill([*SIZE, 3], tf.cast(index, tf.uint8))
        return {'image': image, 'label': label} | self.changes

    def image_name(self, index):
        return f'image {index}'


class Instances(LabelMaps):
    """Two instances in each image."""

    def load(self, index):
        masks = np.zeros([2, *SIZE], bool)
        masks[0, 1:3, 2:4] = masks[1, 4:, 5:] = True
        made = instances(ragged.from_dense(tf.constant(masks)), tf.constant([1, 0]), SIZE[0])
        return {'image': tf.zeros([*SIZE, 3], tf.uint8), **made} | self.changes
