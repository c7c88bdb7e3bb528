"""Runs of the masks of one image's instances as TensorFlow tensors.

The masks of N instances are a `tf.RaggedTensor` int32 [N, (ends)]; `seg.masks.runs` explains the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from seg.errors import UserError
from seg.masks import runs
from seg.structures import Annotations


def from_dense(masks: tf.Tensor) -> tf.RaggedTensor:
    """Runs of masks: bool [N, H, W] -> int32 [N, (ends)]. Meant for few instances or small images.

    Raises:
      UserError: for another dtype, such as uint8 with values of 0 and 255, or another number of axes.
    """
    if masks.dtype != tf.bool or masks.shape.rank not in (None, 3):
        raise UserError(
            f'seg.masks.ragged.from_dense: masks is {masks.dtype.name} of shape {masks.shape}, expected bool '
            '[N, H, W]. Write masks > 0 for values of 0 and 255; from_labels takes a map of instance numbers.'
        )
    count, size = tf.shape(masks)[0], tf.shape(masks)[1] * tf.shape(masks)[2]
    flat = tf.pad(tf.reshape(tf.transpose(masks, [0, 2, 1]), [count, size]), [[0, 0], [1, 1]])
    places = tf.where(flat[:, 1:] != flat[:, :-1])
    return tf.RaggedTensor.from_value_rowids(
        tf.cast(places[:, 1], tf.int32), places[:, 0], nrows=tf.cast(count, tf.int64), validate=False
    )


def from_labels(labels: tf.Tensor) -> tuple[tf.Tensor, tf.RaggedTensor]:
    """Runs of all instances of an image, from a map with the instance id of each pixel.

    Args:
      labels: int32 [H, W]; 0 and below mean no instance.

    Returns:
      The ids that occur, int32 [N], ascending, and the runs of each, int32 [N, (ends)].
    """
    flat = tf.reshape(tf.transpose(labels), [-1])
    begins = tf.concat([tf.fill([tf.minimum(1, tf.size(flat))], True), flat[1:] != flat[:-1]], axis=0)
    starts = tf.cast(tf.where(begins)[:, 0], tf.int32)
    stops = tf.concat([starts[1:], tf.shape(flat)], axis=0)[: tf.size(starts)]
    ids = tf.gather(flat, starts)
    order = tf.argsort(tf.where(ids > 0, ids, 0), stable=True)
    order = order[tf.math.count_nonzero(ids <= 0, dtype=tf.int32) :]
    present, _, number = tf.unique_with_counts(tf.gather(ids, order))
    ends = tf.reshape(tf.stack([tf.gather(starts, order), tf.gather(stops, order)], axis=1), [-1])
    return present, tf.RaggedTensor.from_row_lengths(ends, 2 * number, validate=False)


def boxes_and_areas(masks: tf.RaggedTensor, height: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes around the set pixels, float32 [N, 4] (y0, x0, y1, x1), and numbers of set pixels, float32 [N].

    Args:
      masks: int32 [N, (ends)]; an empty mask has the box 0, 0, 0, 0.
      height: height of the image, scalar int32.
    """
    count = tf.cast(masks.nrows(), tf.int32)
    starts, stops = masks.values[0::2], masks.values[1::2]
    owner = tf.cast(masks.value_rowids()[0::2], tf.int32)
    first, last = starts // height, (stops - 1) // height
    within = first == last  # A run over two columns touches the top and the bottom.
    low = tf.stack([tf.where(within, starts % height, 0), first], axis=1)
    high = tf.stack([tf.where(within, (stops - 1) % height + 1, height), last + 1], axis=1)
    low = tf.math.unsorted_segment_min(low, owner, count)
    high = tf.math.unsorted_segment_max(high, owner, count)
    areas = tf.math.unsorted_segment_sum(stops - starts, owner, count)
    boxes = tf.where(areas[:, None] > 0, tf.concat([low, high], axis=1), 0)
    return tf.cast(boxes, tf.float32), tf.cast(areas, tf.float32)


def union(masks: tf.RaggedTensor, size: tf.Tensor) -> tf.Tensor:
    """Union of masks: runs int32 [N, (ends)] in an image of `size` (height, width) -> bool [H, W]."""
    height, width = tf.unstack(size)
    ends = masks.values[:, None]
    step = tf.where(tf.range(tf.shape(ends)[0]) % 2 == 0, 1, -1)
    covers = tf.cumsum(tf.scatter_nd(ends, step, [height * width + 1]))[:-1]
    return tf.transpose(tf.reshape(covers > 0, [width, height]))


def painted(masks: tf.RaggedTensor, labels: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """A label map of masks; later ones are painted over earlier ones.

    Args:
      masks: int32 [N, (ends)], runs in the image.
      labels: int32 [N], the label of each mask.
      height: height of the image, scalar int32.
      width: width of the image.

    Returns:
      int32 [H, W]; 0 where there is no mask.
    """
    starts, lengths = masks.values[0::2], masks.values[1::2] - masks.values[0::2]
    owner = tf.cast(masks.value_rowids()[0::2], tf.int32)
    before = tf.cumsum(lengths, exclusive=True)
    pixels = tf.range(tf.reduce_sum(lengths)) + tf.repeat(starts - before, lengths)
    above = tf.math.unsorted_segment_max(tf.repeat(owner + 1, lengths), pixels, height * width)
    label = tf.gather(tf.concat([[0], labels], axis=0), tf.maximum(above, 0))
    return tf.transpose(tf.reshape(label, [width, height]))


def annotations(example: Mapping[str, Any], height: int, width: int) -> Annotations:
    """Annotations for metrics, from the tensors of an example.

    Args:
      example: `boxes`, `classes`, `is_crowd`, `area` and `masks`, as a data set's `load` returns them.
      height: height of the image in pixels.
      width: width of the image in pixels.
    """
    parts = (example[key].numpy() for key in ('boxes', 'classes', 'is_crowd', 'area'))
    masks = runs.Runs(example['masks'].values.numpy(), example['masks'].row_splits.numpy())
    encoded = [runs.to_coco(masks[n], height, width) for n in range(len(masks.splits) - 1)]
    return Annotations(height, width, *parts, encoded)
