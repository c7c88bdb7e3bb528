"""The first examples of a training, as the model gets them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from seg.errors import as_user_error, shown
from seg.structures import Input


def drawn(task: Any, source: Input, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and figures, uint8 [H, W, 3], of the first examples of a training input; none if the task has none.

    Args:
      task: the task, whose `training_figure` draws.
      source: the training input.
      count: number of examples; unreadable ones are skipped.
    """
    if not count:
        return
    # Bounded, because a stream without a readable image has no end.
    for batch in itertools.islice(source.make(), count):
        arrays = {key: np.asarray(values) for key, values in batch.items()}
        for row in np.flatnonzero(arrays['weight']):
            name = source.image_name(int(arrays['index'][row]))
            with as_user_error(f'experiment.task: {type(task).__name__}.training_figure of {shown(name)}', task):
                pixels = task.training_figure({key: values[row] for key, values in arrays.items()}, name)
            if pixels is None:
                return
            yield name, pixels
            count -= 1
            if not count:
                return
