"""The door to the backend for operations on boxes; see `seg.ops.dispatch`.

Timings are of two Zen 5 cores under TensorFlow 2.21.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from seg.ops import dispatch


def weighted_rows(cells: Any, index: Any, weight: Any, neutral: Callable[[Any, Any, Any], Any]) -> Any:
    """Returns `neutral(cells, index, weight)`: sum over t of weight[k, t] * cells[index[k, t]].

    On the CPU this is one product with a sparse matrix, whose gradient is the product with its transpose. Both are
    parallel over rows of their result, so the gradient has the same bits every time. (`tf.image.crop_and_resize`, which
    could do the same per map, loses updates in its gradient: two threads add to one cell without a lock.)

    Args:
      cells: [M, C]; the gradient flows to it only.
      index: int32 [K, T].
      weight: [K, T] in a precision of at least float32.
      neutral: the same with `keras.ops`.

    Returns:
      [K, C] in the dtype of `cells`, summed in that of `weight`.
    """
    if not dispatch.has_host_kernels():
        return neutral(cells, index, weight)
    import tensorflow as tf

    dtype = tf.convert_to_tensor(cells).dtype
    rows, taps = index.shape[0] or tf.shape(index)[0], index.shape[1]
    places = tf.stack([tf.repeat(tf.range(rows), taps), tf.reshape(index, [-1])], axis=-1)
    matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.cast(places, tf.int64),
        values=tf.reshape(weight, [-1]),
        dense_shape=tf.cast([rows, tf.shape(cells)[0]], tf.int64),
    )

    @tf.custom_gradient
    def product(cells: Any) -> tuple:
        def gradient(dy: Any) -> Any:
            transposed = tf.raw_ops.SparseMatrixTranspose(input=matrix, type=weight.dtype)
            back = tf.raw_ops.SparseMatrixMatMul(a=transposed, b=tf.cast(dy, weight.dtype))
            return tf.ensure_shape(tf.cast(back, dtype), cells.shape)

        out = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=tf.cast(cells, weight.dtype))
        return tf.ensure_shape(tf.cast(out, dtype), [index.shape[0], cells.shape[1]]), gradient

    return product(tf.convert_to_tensor(cells))


def nms(boxes: Any, scores: Any, iou_threshold: float, max_output: int, groups: Any, neutral: Callable) -> tuple:
    """Returns `neutral(boxes, scores, iou_threshold, max_output, groups)`, of which `seg.ops.nms` tells the meaning.

    On the CPU in float32 by a kernel that takes each group by itself, and all groups and images at the same time. It
    returns no indices. Boxes are therefore sorted, and their ranks given to it in place of scores.

    Args:
      boxes: [B, N, 4], no end before its start.
      scores: [B, N], -inf for boxes that are not to be chosen, no NaN.
      iou_threshold: 0..1.
      max_output: places per image.
      groups: int32 [B, N] of small numbers from 0 on, or None.
      neutral: the same with `keras.ops`.

    Returns:
      `(index int32 [B, max_output], valid bool [B, max_output])`.
    """
    if not dispatch.has_host_kernels() or keras.backend.standardize_dtype(boxes.dtype) != 'float32':
        return neutral(boxes, scores, iou_threshold, max_output, groups)
    import tensorflow as tf

    count = boxes.shape[1]
    scores, order = tf.math.top_k(scores, count)
    # From `count` down to 1, since the kernel takes its own empty places for boxes of a score of -1.
    ranks = tf.where(scores > -float('inf'), tf.range(count, 0, -1, dtype=tf.float32), 0)[..., None]
    if groups is not None:
        group = tf.gather(groups, order, batch_dims=1)[..., None]
        ranks = tf.where(group == tf.range(tf.reduce_max(groups) + 1), ranks, 0)
    _, chosen, _, found = tf.raw_ops.CombinedNonMaxSuppression(
        boxes=tf.gather(boxes, order, batch_dims=1)[:, :, None],
        scores=ranks,
        max_output_size_per_class=max_output,
        max_total_size=max_output,
        iou_threshold=iou_threshold,
        score_threshold=0.5,
        clip_boxes=False,
    )
    valid = tf.range(max_output) < found[:, None]
    place = tf.where(valid, count - tf.cast(chosen, tf.int32), 0)
    index = tf.gather(order, place, batch_dims=1)
    # The kernel's shape function does not see how many places there are.
    shape = [boxes.shape[0], max_output]
    return tf.ensure_shape(tf.where(valid, index, 0), shape), tf.ensure_shape(valid, shape)
