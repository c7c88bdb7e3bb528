"""The images of a data set, to be predicted like files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from seg.prediction.reading import ImageError
from seg.prediction.sources import Source


def images(dataset) -> list[Source]:
    """All images of a data set, in its order, with its names; outputs with equal names are numbered.

    Args:
      dataset: a `seg.datasets.base.Dataset`.
    """
    info = dataset.info
    load = tf.function(
        lambda index: dataset.load(index)['image'], input_signature=[tf.TensorSpec([], tf.int64)]
    )  # The label is not read, because this graph does not use it.

    def image(index: int) -> np.ndarray:
        try:
            return load(tf.constant(index, tf.int64)).numpy()
        except tf.errors.OpError as error:
            text = re.sub(r'\{\{.*?\}\}', '', error.message).strip()  # Without names of nodes.
            raise ImageError(text.splitlines()[0] if text else type(error).__name__) from None

    names = [dataset.image_name(index) for index in range(info.num_examples)]
    return [
        Source(name, output, lambda: info.max_size, lambda index=index: image(index), dataset.image_id(index))
        for index, (name, output) in enumerate(zip(names, _distinct(names), strict=True))
    ]


def _distinct(names: Sequence[str]) -> list[str]:
    """Names of outputs: the second image with a name gets the ending `-2`, and so on; `a/b` and `a//b` are one name."""
    taken, found = set(map(os.path.normpath, names)), []
    seen: set[str] = set()
    for name in names:
        unique, number = name, 1
        while os.path.normpath(unique) in (taken if number > 1 else seen):
            number += 1
            unique = f'{name}-{number}'
        seen.add(os.path.normpath(unique))
        taken.add(os.path.normpath(unique))
        found.append(unique)
    return found
