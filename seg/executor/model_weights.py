"""The weights of a model in a checkpoint, checked against the classes and the variables of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seg.errors import UserError, shown
from seg.executor.checkpoints import Checkpoint


def check_classes(found: Checkpoint, names: Sequence[str]) -> None:
    """Refuses a checkpoint that was trained with other classes than `names`.

    Raises:
      UserError: the message has both lists.
    """
    trained = found.metadata.get('class_names')
    if trained is not None and trained != list(names):
        before, now = (', '.join(map(shown, each)) for each in (trained, names))
        raise UserError(
            f'{found.path} was trained with other classes than those of this data set.\n'
            f'  trained: {before}\n  now: {now}\n'
            'Class id = position in the list. Give the data set the same names in the same order, or start a new '
            'training: in another --model_dir, or with --fresh.'
        )


def select(found: Checkpoint, parts: Mapping[str, Any], weights: str = '') -> tuple[dict[str, np.ndarray], bool]:
    """Returns the values of the model's variables by `<part>/<variable path>`, and whether they are moving averages.

    Args:
      found: the checkpoint.
      parts: Keras layers by name.
      weights: `ema` for the moving averages, `raw` for the weights themselves; empty for the averages if there are any.

    Raises:
      UserError: if the checkpoint is of another model, or has no averages.
    """
    averages = any(name.startswith('ema/') for name in found.tensors)
    if weights == 'ema' and not averages:
        raise UserError(f'{found.path} has no moving averages: it was trained without OptimizerStep.ema_decay.')
    averages = averages and weights != 'raw'
    values: dict[str, np.ndarray] = {}
    for part, layer in parts.items():
        for variable in layer.variables:
            name = f'{part}/{variable.path}'
            value = found.tensors.get(f'ema/{name}') if averages else None
            value = found.tensors.get(f'model/{name}') if value is None else value
            if value is None or value.shape != tuple(variable.shape):
                has = 'none' if value is None else f'shape {value.shape}'
                raise UserError(
                    f'{found.path}: {name} has shape {tuple(variable.shape)} in this model and {has} in the '
                    'checkpoint. Use the gin file that it was trained with; without --gin_file, '
                    'model_dir/config.gin is read.'
                )
            values[name] = value
    return values, averages
