"""Masks of objects as runs: small, and readable at any point without decoding.

The runs of a mask are an ascending list of positions, start, stop, start, stop, …: the mask is set from each start
up to its stop. Position p = column * height + row, as COCO counts. So the pixel at p is set where the number of entries
<= p is odd. They are the ends of COCO's runs, except that the end of the picture is left out where the last run is not
set: the list has an even length, and is empty for an empty mask.

In the graph the masks of N objects are a `tf.RaggedTensor` int32 [N, (ends)].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from seg.structures import Annotations

_MOST_DIGITS = 8  # Of a number in COCO's compressed form, 5 bits each: enough for any picture, and no overflow.


# ---- In the graph ----------------------------------------------------------------------------------------------------


def from_dense(masks: tf.Tensor) -> tf.RaggedTensor:
    """Runs of masks, bool [N, H, W] -> int32 [N, (ends)]. For few and small pictures: N full frames are a lot."""
    count, size = tf.shape(masks)[0], tf.shape(masks)[1] * tf.shape(masks)[2]
    flat = tf.pad(tf.reshape(tf.transpose(masks, [0, 2, 1]), [count, size]), [[0, 0], [1, 1]])
    places = tf.where(flat[:, 1:] != flat[:, :-1])
    return tf.RaggedTensor.from_value_rowids(
        tf.cast(places[:, 1], tf.int32), places[:, 0], nrows=tf.cast(count, tf.int64), validate=False
    )


def from_labels(labels: tf.Tensor) -> tuple[tf.Tensor, tf.RaggedTensor]:
    """Runs of all objects of a picture, from a map that names the object of each pixel.

    Args:
      labels: int32 [H, W]; 0 and below belong to no object.

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
    present, _, runs = tf.unique_with_counts(tf.gather(ids, order))
    ends = tf.reshape(tf.stack([tf.gather(starts, order), tf.gather(stops, order)], axis=1), [-1])
    return present, tf.RaggedTensor.from_row_lengths(ends, 2 * runs, validate=False)


def boxes_and_areas(masks: tf.RaggedTensor, height: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes around the set pixels, float32 [N, 4] (y0, x0, y1, x1), and their number, float32 [N].

    Args:
      masks: int32 [N, (ends)]; an empty mask has the box 0, 0, 0, 0.
      height: scalar int32, of the picture.
    """
    count = tf.cast(masks.nrows(), tf.int32)
    starts, stops = masks.values[0::2], masks.values[1::2]
    owner = tf.cast(masks.value_rowids()[0::2], tf.int32)
    first, last = starts // height, (stops - 1) // height
    within = first == last  # A run that goes on into the next column touches the top and the bottom.
    low = tf.stack([tf.where(within, starts % height, 0), first], axis=1)
    high = tf.stack([tf.where(within, (stops - 1) % height + 1, height), last + 1], axis=1)
    low = tf.math.unsorted_segment_min(low, owner, count)
    high = tf.math.unsorted_segment_max(high, owner, count)
    areas = tf.math.unsorted_segment_sum(stops - starts, owner, count)
    boxes = tf.where(areas[:, None] > 0, tf.concat([low, high], axis=1), 0)
    return tf.cast(boxes, tf.float32), tf.cast(areas, tf.float32)


def union(masks: tf.RaggedTensor, size: tf.Tensor) -> tf.Tensor:
    """The pixels that any of the masks covers, bool [H, W], for runs int32 [N, (ends)] in pictures of this size."""
    height, width = tf.unstack(size)
    ends = masks.values[:, None]
    step = tf.where(tf.range(tf.shape(ends)[0]) % 2 == 0, 1, -1)
    covers = tf.cumsum(tf.scatter_nd(ends, step, [height * width + 1]))[:-1]
    return tf.transpose(tf.reshape(covers > 0, [width, height]))


# ---- On the host -----------------------------------------------------------------------------------------------------


class Runs(NamedTuple):
    """Masks of N objects in flat arrays.

    Attributes:
      ends: int32 [sum of M_n], the runs of one object after the other.
      splits: int64 [N + 1]: the runs of object n are `ends[splits[n] : splits[n + 1]]`.
    """

    ends: np.ndarray
    splits: np.ndarray

    def __getitem__(self, n: int) -> np.ndarray:
        return self.ends[self.splits[n] : self.splits[n + 1]]


def from_strings(strings: Sequence[bytes], sizes: np.ndarray) -> tuple[Runs, np.ndarray]:
    """Reads COCO's compressed run-length encodings, all at once.

    COCO writes the lengths of the runs, beginning with one that is not set, each from the fourth on as the difference
    to the length two before it, as signed numbers in base 32: 5 bits per character from the lowest up, a sixth that
    says whether more follow, plus 48.

    Args:
      strings: N strings.
      sizes: int [N], pixels of each picture.

    Returns:
      The runs, and for each object the number of pixels that its runs cover, int64 [N]; -1 where the string is damaged.
      Where that is not the object's size, its runs are empty.
    """
    count = len(strings)
    lengths = np.fromiter(map(len, strings), np.int64, count)
    digits = np.frombuffer(b''.join(strings), np.uint8).astype(np.int64) - 48
    string = np.repeat(np.arange(count), lengths)
    sound = lengths > 0
    sound[string[(digits < 0) | (digits > 63)]] = False
    is_last = (digits & 32) == 0
    final = np.cumsum(lengths)[lengths > 0] - 1
    sound[string[final[~is_last[final]]]] = False
    is_last[final] = True  # A damaged string must not run into the next.

    stops = np.flatnonzero(is_last)
    starts = np.concatenate([[0], stops + 1])[:-1].astype(np.int64)
    used = stops - starts + 1
    string = string[stops]  # From here on, of each number.
    sound[string[used > _MOST_DIGITS]] = False
    place = np.minimum(np.arange(len(digits)) - np.repeat(starts, used), _MOST_DIGITS)
    values = np.add.reduceat((digits & 31) << (5 * place), starts) if len(starts) else np.zeros(0, np.int64)
    values -= np.where(digits[stops] & 16, 1 << (5 * np.minimum(used, _MOST_DIGITS)), 0)

    numbers = np.bincount(string, minlength=count)
    begins = np.cumsum(numbers) - numbers
    index = np.arange(len(values)) - begins[string]
    for chain in (index % 2 == 1, (index % 2 == 0) & (index > 0)):
        values = np.where(chain, _running_sum(np.where(chain, values, 0), string, begins), values)
    sound[string[values < 0]] = False
    ends = _running_sum(values, string, begins)
    covered = np.where(sound, 0, -1)
    last = begins[sound] + numbers[sound] - 1
    covered[sound] = ends[last]

    kept = np.where(covered == sizes, numbers // 2 * 2, 0)
    splits = np.concatenate([[0], np.cumsum(kept)])
    return Runs(ends[index < kept[string]].astype(np.int32), splits), covered


def _running_sum(values, owner, begins):
    """Sums of the values up to and with each one, begun anew for every owner."""
    total = np.cumsum(values)
    before = np.concatenate([[0], total])[begins]
    return total - before[owner]


def host_boxes_and_areas(runs: Runs, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `boxes_and_areas`, for objects of pictures of several heights: float32 [N, 4] and int64 [N]."""
    starts, stops = runs.ends[0::2].astype(np.int64), runs.ends[1::2].astype(np.int64)
    count = len(runs.splits) - 1
    owner = np.repeat(np.arange(count), np.diff(runs.splits) // 2)
    used = stops > starts
    starts, stops, owner = starts[used], stops[used], owner[used]
    height = np.asarray(heights, np.int64)[owner]
    first, last = starts // height, (stops - 1) // height
    within = first == last
    low = np.stack([np.where(within, starts % height, 0), first], axis=1)
    high = np.stack([np.where(within, (stops - 1) % height + 1, height), last + 1], axis=1)
    boxes, areas = np.zeros([count, 4], np.float32), np.zeros(count, np.int64)
    if len(owner):
        begins = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
        boxes[owner[begins]] = np.concatenate(
            [np.minimum.reduceat(low, begins), np.maximum.reduceat(high, begins)], axis=1
        )
        areas[owner[begins]] = np.add.reduceat(stops - starts, begins)
    return boxes, areas


def to_coco(ends: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """The runs of one object as pycocotools has them: `size` [height, width] and `counts`, compressed."""
    counts = np.diff(np.asarray(ends, np.int64), prepend=0, append=height * width).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    return coco_mask.frPyObjects({'size': [height, width], 'counts': counts}, height, width)


def annotations(objects: Mapping[str, Any], height: int, width: int) -> Annotations:
    """The objects of an example, as tensors, as scores take them.

    Args:
      objects: `boxes`, `classes`, `is_crowd`, `area` and `masks` of an example.
      height: of the picture.
      width: of the picture.
    """
    parts = (objects[key].numpy() for key in ('boxes', 'classes', 'is_crowd', 'area'))
    runs = Runs(objects['masks'].values.numpy(), objects['masks'].row_splits.numpy())
    return Annotations(height, width, *parts, [to_coco(runs[n], height, width) for n in range(len(runs.splits) - 1)])
