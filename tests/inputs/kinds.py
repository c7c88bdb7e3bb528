"""The inputs of both targets without a model, and a data set for them."""

import numpy as np
import tensorflow as tf

from seg.datasets.base import Dataset
from seg.inputs.images import ImageInputs
from seg.inputs.instances import InstanceRows
from seg.inputs.maps import MapRows
from seg.structures import Annotations, DatasetInfo

SETTINGS = {'augments': [], 'slot': 'tasks.mine.augments', 'ignore_label': 255, 'seed': 1, 'stride': 16}


def label_maps(**settings) -> ImageInputs:
    return ImageInputs(MapRows('label_map', 'label', 255), **SETTINGS | {'train_stride': 1} | settings)


def instances(max_objects: int = 3, **settings) -> ImageInputs:
    return ImageInputs(InstanceRows(max_objects, 8), **SETTINGS | {'train_stride': 16, 'mixes': True} | settings)


class Images(Dataset):
    """Images of noise, of given sizes, each with one instance that fills it (class 1), for both targets."""

    def __init__(self, *sizes: tuple[int, int]):
        self._sizes = sizes
        largest = tuple(max(size[axis] for size in sizes) for axis in (0, 1))
        self.info = DatasetInfo('images/train', ('a', 'b'), len(sizes), largest)

    def load(self, index):
        height, width = tf.unstack(tf.gather(self._sizes, index))
        seed = tf.cast(tf.stack([index, 7]), tf.int32)
        image = tf.random.stateless_uniform((height, width, 3), seed, 0, 256, tf.int32)
        area = tf.cast(height * width, tf.float32)
        return {
            'image': tf.ensure_shape(tf.cast(image, tf.uint8), (None, None, 3)),
            'label': tf.ensure_shape(tf.ones((height, width), tf.int32), (None, None)),
            'boxes': tf.cast(tf.stack([[0, 0, height, width]]), tf.float32),
            'classes': tf.constant([1]),
            'is_crowd': tf.constant([False]),
            'area': area[None],
            'masks': tf.RaggedTensor.from_row_lengths(tf.stack([0, height * width]), [2]),
        }

    def image_name(self, index: int) -> str:
        return f'image-{index}'

    def annotations(self, index: int) -> Annotations:
        height, width = self._sizes[index]
        return Annotations(
            height, width, np.float32([[0, 0, height, width]]), np.int32([1]), np.zeros(1, bool), np.ones(1), []
        )
