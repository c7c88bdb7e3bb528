"""A data set without files: its classes and the size of its images, from which the shapes of batches follow."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from seg.datasets.base import Dataset, instances
from seg.errors import UserError
from seg.masks import ragged
from seg.structures import ClassHistogram, DatasetInfo


class Described(Dataset):
    """The data set that a reader returns without a folder, for compilations (`--topology`), which need shapes only.

    Its only example is a black image without instances. As with files, sizes and numbers are unknown in a graph. A
    run uses the data set that `fetch` makes; without `fetch`, it refuses this one.

    Args:
      info: classes and largest image; the number of examples is 1.
      target: what the task learns from.
      refusal: the message of a run.
      fetch: makes the data set that a run uses instead, of published files; None if there is none.
    """

    def __init__(self, info: DatasetInfo, target: str, refusal: str, fetch: Callable[[], Dataset] | None = None):
        self.info, self._target, self._refusal, self.fetch = info, target, refusal, fetch

    def verify(self) -> None:
        raise UserError(self._refusal)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        none = 0 * tf.cast(index, tf.int32)  # 0, but not a constant of the graph.
        height, width = tf.unstack(tf.constant(self.info.max_size) + none)
        image = tf.zeros([height, width, 3], tf.uint8)
        if self._target == 'label_map':
            return {'image': image, 'label': tf.zeros([height, width], tf.int32)}
        masks = ragged.from_dense(tf.zeros([none, height, width], tf.bool))
        return {'image': image, **instances(masks, tf.zeros([none], tf.int32), height)}

    def image_name(self, index: int) -> str:
        return f'{self.info.name}/{index}'

    def class_histogram(self) -> ClassHistogram:
        """Equal numbers: the class weights are constants of a step, and do not change its cost."""
        ones = tf.ones([self.info.num_classes], tf.int64).numpy()
        return ClassHistogram(ones, ones)
