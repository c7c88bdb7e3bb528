"""Rows with a map: a label map, or another value for every pixel."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from seg.errors import UserError
from seg.inputs.images import padded_image
from seg.inputs.rows import Example, Rows, Size
from seg.structures import PAD_PIXEL


class MapRows(Rows):
    """Rows of `image` [H, W, 3] (Keras' floatx), a map [H, W] and `size` int32 [2], the valid part of both.

    Args:
      target: what the task learns from.
      key: key of the map in an example.
      fill: value of the map in the padding, whose pixels count nowhere.
    """

    def __init__(self, target: str, key: str, fill: Any):
        self.target, self._key, self._fill = target, key, fill
        self.blank = {'image': PAD_PIXEL, key: fill, 'size': 1}

    @tf.autograph.experimental.do_not_convert
    def begin(self, example: Example) -> Example:
        if self._key not in example:
            raise UserError(
                f'load of the data set returned {", ".join(sorted(example))}; expected {self._key!r} [H, W] as well: '
                f'the target of the task is {self.target!r}.'
            )
        shape = example[self._key].shape
        if shape.rank != 2:
            raise UserError(
                f'In a graph, load of the data set returned {self._key!r} of shape {shape}; expected [H, W]. The '
                'results of tf.numpy_function and tf.py_function have no shape: '
                f'tf.ensure_shape({self._key}, [None, None]) sets it.'
            )
        image = tf.cast(example['image'], keras.config.floatx())
        return {'image': image, self._key: example[self._key], 'size': tf.shape(image)[:2]}

    @tf.autograph.experimental.do_not_convert
    def follow(self, example: Example, before: tf.Tensor) -> Example:
        return example | {self._key: tf.image.resize(example[self._key][..., None], example['size'], 'nearest')[..., 0]}

    @tf.autograph.experimental.do_not_convert
    def packed(self, example: Example, canvas: Size) -> Example:
        if example['image'].shape[:2] == canvas:
            return {key: example[key] for key in ('image', self._key, 'size')}
        return self.scored(example, example['size'], canvas)

    @tf.autograph.experimental.do_not_convert
    def scored(self, example: Example, native_size: tf.Tensor, canvas: Size) -> Example:
        values, shape = example[self._key], tf.shape(example[self._key])
        padding = [[0, canvas[0] - shape[0]], [0, canvas[1] - shape[1]]]
        values = tf.ensure_shape(tf.pad(values, padding, constant_values=self._fill), canvas)
        return {'image': padded_image(example['image'], canvas), self._key: values, 'size': example['size']}
