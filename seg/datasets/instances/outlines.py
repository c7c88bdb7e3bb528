"""Draws outlines in a graph, with the pixels that pycocotools sets.

pycocotools rounds the points of a polygon to a grid of a fifth of a pixel, and walks along each edge on this grid. In
each column of pixels an edge sets the row at which it crosses the column's middle, if it does. A pixel belongs to the
polygon if the number of crossings above it is odd. Here each crossing is computed directly, so the work grows with the
width of an outline in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from seg.masks.runs import Runs

GRID = 5  # Cells of the grid in a pixel, as in pycocotools.


class Outlines(NamedTuple):
    """Outlines of N instances, any number of each.

    Attributes:
      points: uint16 or int32 [P, 2], x and y on the grid.
      splits: int64 [R + 1]: the points of outline r are `points[splits[r] : splits[r + 1]]`.
      owners: int32 [R], ascending: the instance of each outline.
    """

    points: tf.Tensor
    splits: tf.Tensor
    owners: tf.Tensor


def to_grid(pixels: np.ndarray) -> np.ndarray:
    """Rounds coordinates in pixels to the grid as pycocotools does, towards zero: float64 -> int32."""
    return (GRID * pixels + 0.5).astype(np.int32)


def draw(outlines: Outlines, heights: tf.Tensor, widths: tf.Tensor, columns: tf.Tensor | None = None):
    """The union of the outlines of each instance.

    Args:
      outlines: of N instances.
      heights: int32 [N], height of each instance's image in pixels.
      widths: int32 [N].
      columns: int32 [R], the only column to draw of each outline; None for all.

    Returns:
      int32 [N, (ends)], a `tf.RaggedTensor`, see `seg.masks.runs`.
    """
    count = tf.shape(heights, out_type=tf.int64)[0]
    outline, column, row = _crossings(outlines, heights, widths, columns)
    owner = tf.gather(outlines.owners, outline)
    position = tf.cast(column * tf.gather(heights, owner) + row, tf.int64)
    # The pixels of the largest image, so that one number holds outline and position.
    span = tf.cast(tf.reduce_max(tf.concat([heights * widths, [0]], axis=0)), tf.int64) + 1
    place, _, times = tf.unique_with_counts(tf.sort(tf.cast(outline, tf.int64) * span + position))
    place = tf.boolean_mask(place, times % 2 == 1)  # Starts and stops of each outline, one after the other.
    outline = place // span
    place += (tf.gather(tf.cast(outlines.owners, tf.int64), outline) - outline) * span
    if outlines.owners.shape[0] != 1:
        is_alone = tf.reduce_all(outlines.owners[1:] != outlines.owners[:-1])
        place = tf.cond(is_alone, lambda: place, lambda: _united(place))
    return tf.RaggedTensor.from_value_rowids(
        tf.cast(place % span, tf.int32), place // span, nrows=count, validate=False
    )


def draw_on_host(outlines: Outlines, height: int, width: int) -> Runs:
    """The same as `draw` for the instances of one image, from arrays; there are as many as the last owner says.

    All data sets share the graph.
    """
    count = int(outlines.owners[-1]) + 1 if len(outlines.owners) else 0
    with tf.device('CPU:0'):
        points, splits, owners = outlines
        values, splits = _graph(
            points.astype(np.int32), splits, owners, *(np.full(count, side, np.int32) for side in (height, width))
        )
    return Runs(values.numpy(), splits.numpy())


@tf.function(
    input_signature=[
        tf.TensorSpec([None, 2], tf.int32),
        tf.TensorSpec([None], tf.int64),
        *(tf.TensorSpec([None], tf.int32) for _ in range(3)),
    ],
    autograph=False,
)
def _graph(points, splits, owners, heights, widths):
    found = draw(Outlines(points, splits, owners), heights, widths)
    return found.values, found.row_splits


def _united(place: tf.Tensor) -> tf.Tensor:
    """Starts and stops of unions, ascending, from starts and stops of parts, alternating."""
    order = tf.argsort(place, stable=True)
    position, which = tf.unique(tf.gather(place, order))
    steps = tf.where(order % 2 == 0, 1, -1)
    covers = tf.cumsum(tf.math.unsorted_segment_sum(steps, which, tf.size(position))) > 0
    return tf.boolean_mask(position, covers != tf.concat([[False], covers[:-1]], axis=0)[: tf.size(covers)])


def _crossings(outlines, heights, widths, columns):
    """Outline, column and row of every crossing of an edge with the middle of a column of pixels, int32 [crossings]."""
    points, splits, owners = tf.cast(outlines.points, tf.int32), outlines.splits, outlines.owners
    lengths = tf.cast(splits[1:] - splits[:-1], tf.int32)
    number, total = tf.size(owners), tf.shape(points)[0]
    outline = tf.repeat(tf.range(number), lengths)
    following = tf.range(1, total + 1)
    first, last = tf.cast(splits[:-1], tf.int32), tf.cast(splits[1:], tf.int32) - 1
    following = tf.tensor_scatter_nd_update(following, last[:, None], first)
    begin, end = points, tf.gather(points, following)
    low, high = tf.minimum(begin[:, 0], end[:, 0]), tf.maximum(begin[:, 0], end[:, 0])
    # The middle of column c lies between the cells 5 c + 2 and 5 c + 3.
    start = (low + 2) // GRID
    stop = (high + 2) // GRID
    if columns is None:
        start = tf.maximum(start, 0)
        stop = tf.minimum(stop, tf.gather(tf.gather(widths, owners), outline))
    else:
        only = tf.gather(columns, outline)
        start, stop = tf.maximum(start, only), tf.minimum(stop, only + 1)
    times = tf.maximum(stop - start, 0)
    crosses = tf.where(times > 0)[:, 0]
    times, start, outline = (tf.gather(part, crosses) for part in (times, start, outline))
    edge = tf.repeat(tf.range(tf.size(crosses)), times)
    column = tf.gather(start - tf.cumsum(times, exclusive=True), edge) + tf.range(tf.size(edge))
    row = _rows(*(tf.gather(part, crosses) for part in (begin, end)), edge, GRID * column + 2)
    outline = tf.gather(outline, edge)
    height = tf.cast(tf.gather(tf.gather(heights, owners), outline), tf.float64)
    row = tf.clip_by_value((row + 0.5) / GRID - 0.5, tf.zeros([], tf.float64), height)
    return outline, column, tf.cast(tf.math.ceil(row), tf.int32)


def _rows(begin, end, edge, cell):
    """The lower y, on the grid, of the two steps of an edge on either side of its crossing; float64 [crossings].

    pycocotools takes one step for each cell along the longer extent of an edge, from its left or upper end.

    Args:
      begin: int32 [edges, 2], x and y of one end.
      end: int32 [edges, 2], of the other.
      edge: int32 [crossings], the edge of each.
      cell: int32 [crossings], the x on the left of the crossing.
    """
    extent = tf.abs(end - begin)
    is_steep = extent[:, 0] < extent[:, 1]
    is_turned = tf.where(is_steep, begin[:, 1] > end[:, 1], begin[:, 0] > end[:, 0])[:, None]
    begin, end = tf.where(is_turned, end, begin), tf.where(is_turned, begin, end)
    begin, change = tf.cast(begin, tf.float64), tf.cast(end - begin, tf.float64)
    slope = tf.where(is_steep, change[:, 0] / change[:, 1], change[:, 1] / change[:, 0])
    slope, x, y, is_steep = (tf.gather(part, edge) for part in (slope, begin[:, 0], begin[:, 1], is_steep))
    cell = tf.cast(cell, tf.float64)
    step = cell - x
    flat = tf.minimum(_whole(y + slope * step + 0.5), _whole(y + slope * (step + 1) + 0.5))
    # A steep edge reaches the crossing at the first step whose x is beyond it.
    step = tf.math.ceil((cell + 0.5 - x) / slope) - 1
    for _ in range(2):
        passed = (x + slope * step + 0.5 >= cell + 1) == (slope > 0)
        step = tf.where(passed, step, step + 1)
    return tf.where(is_steep, y + step - 1, flat)


def _whole(value):
    """Rounds towards zero, as C's conversion to integers does."""
    return tf.where(value < 0, tf.math.ceil(value), tf.math.floor(value))
