"""The images of a data set, to be predicted like files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from seg.datasets import checking, contract
from seg.datasets.base import Dataset
from seg.errors import reason, shown
from seg.prediction.reading import ImageError
from seg.prediction.sources import Source


def images(dataset: Dataset, positions: Sequence[int] | None = None) -> list[Source]:
    """Images of a data set with its names; outputs with equal names are numbered.

    As in a training, unreadable files are failures of single images, and any other exception of a plugin's `load` is a
    mistake in its code.

    Args:
      dataset: the data set.
      positions: which images; None for all of them, in the data set's order.

    Raises:
      UserError: if `load` cannot be part of a graph. A source's `load` raises it for a mistake in the plugin's code.
    """
    info = dataset.info
    load = tf.function(
        lambda index: contract.load_in_graph(dataset, index)['image'], input_signature=[tf.TensorSpec([], tf.int64)]
    )  # The label is not read, because this graph does not use it.
    load.get_concrete_function()

    def image(index: int) -> np.ndarray:
        try:
            return load(tf.constant(index, tf.int64)).numpy()
        except Exception as error:
            if checking.unreadable(error):
                raise ImageError(reason(error)) from None
            what = f'{info.name}, image {shown(dataset.image_name(index))}: load'
            raise contract.load_failed(dataset, what, error) from error

    positions = range(info.num_examples) if positions is None else positions
    names = [dataset.image_name(index) for index in positions]
    return [
        Source(name, output, lambda: info.max_size, lambda index=index: image(index), dataset.image_id(index))
        for index, name, output in zip(positions, names, _distinct(names), strict=True)
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
