"""Instances in augments: their boxes and views, selection, and the masks in their boxes.

`base` defines views. An augment changes views and boxes; at the end `mask_crops` samples the masks through the views.
"""

from __future__ import annotations

import tensorflow as tf

Example = dict[str, tf.Tensor]

# Keys of an example with one entry for each instance, along the first axis.
KEYS = ('boxes', 'classes', 'is_crowd', 'area', 'masks', 'view', 'frame')
LEAST_SIDE = 1.0  # Smallest side of a box, in pixels; instances with smaller boxes are dropped.


def begin(example: Example, dtype: str = 'float32') -> Example:
    """Converts a loaded example to the form of augments.

    Args:
      example: as a data set loads it.
      dtype: dtype of the image.

    Returns:
      The example with the image in `dtype`, `size`, and `frame` and `view` of each instance, see `base.FIELDS`.
    """
    size = tf.shape(example['image'])[:2]
    count = tf.shape(example['boxes'])[0]
    return example | {
        'image': tf.cast(example['image'], dtype),
        'size': size,
        'masks': example['masks'].with_row_splits_dtype(tf.int64),  # One dtype, so that two examples can be joined.
        'frame': tf.tile(size[None], [count, 1]),
        'view': tf.tile([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], [count, 1, 1]),
    }


def choose(example: Example, indices: tf.Tensor) -> Example:
    """The example with these instances only, in this order; int [M]."""
    return example | {key: tf.gather(example[key], indices) for key in KEYS if key in example}


def move(example: Example, factor: tf.Tensor, offset: tf.Tensor, size: tf.Tensor) -> Example:
    """Moves instances with their image, and drops those outside of it.

    Args:
      example: with instances, before the move.
      factor: float32 [2], for y and x: the point p of the new image was at factor * p + offset. Negative for a mirror
        image.
      offset: float32 [2].
      size: int32 [2], the valid part of the new image.

    Returns:
      The example with new `boxes`, limited to the valid part, `view` and `area` (of the whole instance, at the new
      scale), without the instances whose box is narrower or lower than 1 pixel.
    """
    boxes = (example['boxes'] - tf.tile(offset, [2])) / tf.tile(factor, [2])
    boxes = tf.concat([tf.minimum(boxes[:, :2], boxes[:, 2:]), tf.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    boxes = tf.clip_by_value(boxes, 0.0, tf.cast(tf.tile(size, [2]), tf.float32))
    turn, shift = example['view'][:, :, :2], example['view'][:, :, 2]
    view = tf.concat([turn * factor, (tf.reduce_sum(turn * offset, axis=2) + shift)[:, :, None]], axis=2)
    area = example['area'] / tf.abs(tf.reduce_prod(factor))
    left = tf.reduce_all(boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE, axis=1)
    return choose(example | {'boxes': boxes, 'view': view, 'area': area}, tf.where(left)[:, 0])


def mask_crops(masks: tf.RaggedTensor, frame: tf.Tensor, view: tf.Tensor, boxes: tf.Tensor, side: int) -> tf.Tensor:
    """Each instance's mask in its own box, sampled at the nearest point.

    Cell (i, j) of a box is set if the mask is set at the centre of the cell, mapped to the frame by the view. No mask
    is decoded: a binary search in the run ends finds the column of a cell, and the few ends within the column are
    compared with the cell's row.

    Args:
      masks: int32 [N, (ends)], runs of set pixels, column after column.
      frame: int32 [N, 2], see `base.FIELDS`.
      view: float32 [N, 2, 3].
      boxes: float32 [N, 4], in the augmented image.
      side: cells along each side of a box.

    Returns:
      uint8 [N, side, side]: 255 on the instance, 0 elsewhere.
    """
    centres = (tf.range(side, dtype=tf.float32) + 0.5) / side
    points = boxes[:, :2, None] + (boxes[:, 2:] - boxes[:, :2])[:, :, None] * centres  # [N, 2, side]
    swapped = swaps_axes(view)
    points = tf.where(swapped[:, None, None], points[:, ::-1], points)
    source = tf.cast(tf.floor(tf.reduce_sum(view[:, :, :2], axis=2)[:, :, None] * points + view[:, :, 2:]), tf.int32)
    is_set = look_up(masks, frame, source[:, 0], source[:, 1])
    is_set = tf.where(swapped[:, None, None], tf.transpose(is_set, [0, 2, 1]), is_set)
    return tf.ensure_shape(tf.cast(is_set, tf.uint8) * 255, [None, side, side])


def swaps_axes(view: tf.Tensor) -> tf.Tensor:
    """Whether rows of the image are columns of the frame, bool [N]."""
    return view[:, 0, 1] != 0


def look_up(masks: tf.RaggedTensor, frame: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Whether each mask is set at each pair of these rows and columns of its frame; False outside of the frame.

    Args:
      masks: int32 [N, (ends)].
      frame: int32 [N, 2].
      rows: int32 [N, h].
      columns: int32 [N, w].

    Returns:
      bool [N, h, w].
    """
    height, width = frame[:, :1], frame[:, 1:]
    within = (columns >= 0) & (columns < width)
    columns = tf.cast(tf.where(within, columns, 0), tf.int64)
    sides = tf.cast(frame, tf.int64)
    # One ascending list for all instances: each begins where the positions of the one before it end.
    begins = tf.cumsum(tf.reduce_prod(sides, axis=1), exclusive=True)
    ends = tf.cast(masks.values, tf.int64) + tf.repeat(begins, masks.row_lengths())
    top = begins[:, None] + columns * sides[:, :1]
    passed = tf.searchsorted(ends, tf.reshape(top, [-1]), side='right', out_type=tf.int32)
    later = tf.searchsorted(ends, tf.reshape(top + sides[:, :1] - 1, [-1]), side='right', out_type=tf.int32)
    passed, later = (tf.reshape(places, tf.shape(top)) for places in (passed, later))
    # Every run has two ends, so the number of earlier instances' ends is even and does not change the parity.
    is_set = tf.tile((passed % 2 == 1)[:, None, :], [1, tf.shape(rows)[1], 1])

    def toggle(number, is_set):
        """Toggles all rows at or below the next run end of each column."""
        place = passed + number
        end = tf.cast(tf.gather(ends, tf.minimum(place, tf.size(ends) - 1)) - top, tf.int32)
        end = tf.where(place < later, end, tf.int32.max)
        return number + 1, tf.math.logical_xor(is_set, rows[:, :, None] >= end[:, None, :])

    most = tf.reduce_max(tf.concat([[0], tf.reshape(later - passed, [-1])], axis=0))
    _, is_set = tf.while_loop(lambda number, _: number < most, toggle, [0, is_set])
    return is_set & ((rows >= 0) & (rows < height))[:, :, None] & within[:, None, :]
