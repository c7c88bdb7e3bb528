"""Rows with instances."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from seg.augments import instances
from seg.datasets.base import Dataset
from seg.inputs.images import padded_image
from seg.inputs.rows import Example, Rows, Size
from seg.structures import PAD_PIXEL, Annotations


class InstanceRows(Rows):
    """Rows of an image and its instances, in `max_objects` places (M); empty places have class -1.

    Training rows hold `image` [H, W, 3] (Keras' floatx), `size` int32 [2], its valid part, `boxes` float32 [M, 4],
    `classes` int32 [M], `masks` uint8 [M, mask_size, mask_size], each over its box, and `left_out` int32 [], the
    number of instances beyond M. Evaluation rows have `native_size` int32 [2], the image's size as loaded, in place of
    `masks` and `left_out`. Crowds are omitted.

    Args:
      max_objects: places.
      mask_size: side of a mask.
    """

    target = 'instances'
    blank = {'image': PAD_PIXEL, 'size': 1, 'native_size': 1, 'classes': -1}

    def __init__(self, max_objects: int, mask_size: int):
        self._places, self._mask_size = max_objects, mask_size

    @tf.autograph.experimental.do_not_convert
    def begin(self, example: Example) -> Example:
        return instances.begin(example, keras.config.floatx())

    @tf.autograph.experimental.do_not_convert
    def follow(self, example: Example, before: tf.Tensor) -> Example:
        size = example['size']
        return instances.move(example, tf.cast(before, tf.float32) / tf.cast(size, tf.float32), tf.zeros([2]), size)

    @tf.autograph.experimental.do_not_convert
    def packed(self, example: Example, canvas: Size) -> Example:
        """The largest instances come first."""
        boxes = example['boxes']
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        wanted = tf.where(example['is_crowd'], -1.0, area)
        count = tf.reduce_sum(tf.cast(wanted >= 0, tf.int32))
        order = tf.argsort(wanted, direction='DESCENDING', stable=True)[: tf.minimum(count, self._places)]
        chosen = instances.choose(example, order)
        masks = instances.mask_crops(*(chosen[key] for key in ('masks', 'frame', 'view', 'boxes')), self._mask_size)
        return {
            'image': padded_image(example['image'], canvas),
            'size': example['size'],
            'boxes': _filled(chosen['boxes'], self._places, 0),
            'classes': _filled(chosen['classes'], self._places, -1),
            'masks': _filled(masks, self._places, 0),
            'left_out': tf.maximum(count - self._places, 0),
        }

    @tf.autograph.experimental.do_not_convert
    def scored(self, example: Example, native_size: tf.Tensor, canvas: Size) -> Example:
        counted = ~example['is_crowd']
        return {
            'image': padded_image(example['image'], canvas),
            'size': example['size'],
            'native_size': native_size,
            'boxes': _filled(tf.boolean_mask(example['boxes'], counted), self._places, 0),
            'classes': _filled(tf.boolean_mask(example['classes'], counted), self._places, -1),
        }

    def truth(self, dataset: Dataset) -> Callable[[int], Annotations]:
        return dataset.annotations


def _filled(values: tf.Tensor, count: int, fill: int) -> tf.Tensor:
    """The first `count` rows, filled up."""
    values = values[:count]
    padding = [[0, count - tf.shape(values)[0]], *[[0, 0]] * (len(values.shape) - 1)]
    return tf.ensure_shape(tf.pad(values, padding, constant_values=fill), (count, *values.shape[1:]))
