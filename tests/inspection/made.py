"""Small data sets of files and arrays, into which tests plant faults."""

import os

import numpy as np
import tensorflow as tf
from PIL import Image

from seg.datasets import image_files
from seg.datasets.base import Dataset
from seg.structures import DatasetInfo

CLASSES = ('ground', 'thing')
SIDE = 80


def random_image(seed, side=SIDE):
    """An image with contrast, of which no two look alike: blocks of random colours, uint8 [side, side, 3]."""
    blocks = np.random.default_rng(seed).integers(0, 256, [8, 8, 3], np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST))


class Files(Dataset):
    """PNG or JPEG images in a folder, in the order of their names; subclasses give the annotations."""

    def __init__(self, folder, split='train', class_names=CLASSES, names=None, ids=None):
        self.names = sorted(os.listdir(folder)) if names is None else names
        self.paths = [os.path.join(folder, name) for name in self.names]
        self.ids = ids or list(range(1, len(self.names) + 1))
        self.info = DatasetInfo(f'mine/{split}', tuple(class_names), len(self.names), (10**4, 10**4))

    def image_name(self, index):
        return os.path.splitext(self.names[index])[0]

    def image_path(self, index):
        return self.paths[index]

    def image_id(self, index):
        return self.ids[index]

    def load(self, index):
        image = image_files.decode_image(tf.io.read_file(tf.gather(self.paths, index)))
        return {'image': image, **self.annotated(index, image)}


class LabelMaps(Files):
    """Label maps by name; by default a thing in the middle of the ground."""

    def __init__(self, folder, labels=None, **settings):
        super().__init__(folder, **settings)
        self.labels = labels or {}

    def annotated(self, index, image):
        def read(index, height, width):
            label = np.zeros((height, width), np.int32)
            label[height // 4 : height // 2, width // 4 : width // 2] = 1
            return np.asarray(self.labels.get(self.image_name(int(index)), label), np.int32)

        shape = tf.shape(image)
        return {'label': tf.ensure_shape(tf.numpy_function(read, [index, shape[0], shape[1]], tf.int32), [None, None])}


class Instances(Files):
    """Rows (class, y0, x0, y1, x1, is_crowd) by name; by default two things."""

    def __init__(self, folder, rows=None, **settings):
        super().__init__(folder, **settings)
        self.rows = rows or {}

    def annotated(self, index, image):
        def read(index):
            rows = self.rows.get(self.image_name(int(index)), [(0, 2, 2, 12, 12, 0), (1, 15, 15, 39, 39, 0)])
            return np.asarray(rows, np.float32).reshape(-1, 6)

        rows = tf.ensure_shape(tf.numpy_function(read, [index], tf.float32), [None, 6])
        boxes = rows[:, 1:5]
        ends = tf.stack([tf.zeros_like(boxes[:, 0]), tf.ones_like(boxes[:, 0])], axis=1)
        return {
            'boxes': boxes,
            'classes': tf.cast(rows[:, 0], tf.int32),
            'is_crowd': rows[:, 5] > 0,
            'area': (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            'masks': tf.RaggedTensor.from_tensor(tf.cast(ends, tf.int32)),
        }


def save(folder, count=4, first=0):
    """Saves PNG images 0.png, 1.png, … Returns the folder."""
    os.makedirs(folder, exist_ok=True)
    for number in range(count):
        Image.fromarray(random_image(first + number)).save(os.path.join(folder, f'{number}.png'))
    return str(folder)
