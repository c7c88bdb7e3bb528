"""Rows with a label map."""

from __future__ import annotations

import keras
import tensorflow as tf

from seg.inputs.images import padded_image
from seg.inputs.rows import Example, Rows, Size
from seg.structures import PAD_PIXEL


class LabelMapRows(Rows):
    """Rows of `image` [H, W, 3] (Keras' floatx), `label` int32 [H, W] and `size` int32 [2], the valid part of both.

    Args:
      ignore_label: label of padding.
    """

    target = 'label_map'

    def __init__(self, ignore_label: int):
        self._ignore_label = ignore_label
        self.blank = {'image': PAD_PIXEL, 'label': ignore_label, 'size': 1}

    def begin(self, example: Example) -> Example:
        image = tf.cast(example['image'], keras.config.floatx())
        return {'image': image, 'label': example['label'], 'size': tf.shape(image)[:2]}

    def follow(self, example: Example, before: tf.Tensor) -> Example:
        label = tf.image.resize(example['label'][..., None], example['size'], 'nearest')[..., 0]
        return example | {'label': label}

    def packed(self, example: Example, canvas: Size) -> Example:
        if example['image'].shape[:2] == canvas:
            return {key: example[key] for key in ('image', 'label', 'size')}
        return self.scored(example, example['size'], canvas)

    def scored(self, example: Example, native_size: tf.Tensor, canvas: Size) -> Example:
        label, shape = example['label'], tf.shape(example['label'])
        padding = [[0, canvas[0] - shape[0]], [0, canvas[1] - shape[1]]]
        label = tf.ensure_shape(tf.pad(label, padding, constant_values=self._ignore_label), canvas)
        return {'image': padded_image(example['image'], canvas), 'label': label, 'size': example['size']}
