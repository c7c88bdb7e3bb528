"""The pictures of a data set, to be predicted like files."""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf

from seg.prediction.reading import PictureError
from seg.prediction.sources import Source


def pictures(dataset) -> list[Source]:
    """All pictures of a data set, in its order and under its names.

    Args:
      dataset: with `info`, `load(index)`, `image_name(index)` and, where its files number the pictures,
        `image_id(index)`.
    """
    info = dataset.info
    number = getattr(dataset, 'image_id', lambda index: index + 1)
    load = tf.function(
        lambda index: dataset.load(index)['image'], input_signature=[tf.TensorSpec([], tf.int64)]
    )  # The label is not read: nothing in this graph needs it.

    def image(index: int) -> np.ndarray:
        try:
            return load(tf.constant(index, tf.int64)).numpy()
        except tf.errors.OpError as error:
            text = re.sub(r'\{\{.*?\}\}', '', error.message).strip()  # Names of nodes.
            raise PictureError(text.splitlines()[0] if text else type(error).__name__) from None

    def source(index: int) -> Source:
        name = dataset.image_name(index)
        return Source(name, name, lambda: info.max_size, lambda: image(index), number(index))

    return [source(index) for index in range(info.num_examples)]
