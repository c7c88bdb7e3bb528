"""The variables of a run by their names in checkpoints, which all engines share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from seg.engine.frozen import freeze
from seg.errors import UserError
from seg.optimizers.decay import decays


class Variables:
    """The model's and the optimizer's Keras variables by name.

    Names depend on the names of parts and layers alone, not on the order in which objects were made.

    Attributes:
      model: all variables of the model by `<part>/<variable path>`.
      trained: the trained ones among them, in the optimizer's order.
      optimizer: the optimizer's variables: `iteration` and the like, and for each of its slots
        `<slot>/<part>/<variable path>`.
    """

    def __init__(
        self, parts: Mapping[str, Any], optimizer: keras.optimizers.Optimizer, frozen: Sequence[str] | None = None
    ):
        """Freezes variables, builds the optimizer and names everything.

        Args:
          parts: the model's Keras layers by name.
          optimizer: an optimizer that is not built.
          frozen: `OptimizerStep.frozen`.

        Raises:
          UserError: see `freeze`.
        """
        if frozen:
            freeze(parts, frozen)
        self._parts = tuple(parts)
        self._optimizer = optimizer
        self.model = {f'{part}/{v.path}': v for part, layer in parts.items() for v in layer.variables}
        self.trained = {f'{part}/{v.path}': v for part, layer in parts.items() for v in layer.trainable_variables}
        if optimizer.weight_decay is not None:
            optimizer.exclude_from_weight_decay(var_list=[v for v in self.trained.values() if not decays(v)])
        optimizer.build(list(self.trained.values()))
        self.optimizer = dict(zip(_slot_names(optimizer.variables, self.trained), optimizer.variables, strict=True))

    def averaged(self) -> list[str]:
        """Names of the variables of the model that have a moving average: all but integers."""
        return [name for name, variable in self.model.items() if keras.backend.is_float_dtype(variable.dtype)]

    def rates(self, part_rates: Mapping[str, float]) -> dict[str, float]:
        """Returns the factors on the learning rate that are not 1, by names of trained variables.

        Raises:
          UserError: for a part that the model does not have.
        """
        unknown = [part for part in part_rates if part not in self._parts]
        if unknown:
            raise UserError(
                f'OptimizerStep.part_rates: the model has no part {unknown[0]!r}; it has {", ".join(self._parts)}.'
            )
        rates = {name: part_rates.get(name.partition('/')[0], 1) for name in self.trained}
        return {name: rate for name, rate in rates.items() if rate != 1}

    def checked(self, tensors: Mapping[str, np.ndarray], averages: bool, place: str) -> dict[str, np.ndarray]:
        """Returns the tensors of a checkpoint by today's names: `model/…`, `ema/…` and `optimizer/…`.

        Args:
          tensors: tensors of the checkpoint. The optimizer's may have positions for names, as in earlier releases.
          averages: whether moving averages are kept.
          place: path of the checkpoint, for messages.

        Raises:
          UserError: if a name is missing or unknown, or a shape differs.
        """
        shapes = {f'model/{name}': tuple(v.shape) for name, v in self.model.items()}
        shapes |= {f'ema/{name}': shapes[f'model/{name}'] for name in (self.averaged() if averages else ())}
        shapes |= {f'optimizer/{name}': tuple(v.shape) for name, v in self.optimizer.items()}
        tensors = self._without_positions(tensors)
        problems = [f'{name}: not in the checkpoint' for name in shapes if name not in tensors]
        problems += [f'{name}: not in this model' for name in tensors if name not in shapes]
        problems += [
            f'{name}: shape {tuple(tensors[name].shape)} in the checkpoint, {shape} in this model'
            for name, shape in shapes.items()
            if name in tensors and tuple(tensors[name].shape) != shape
        ]
        if problems:
            more = f'\n  … and {len(problems) - 5} more' if len(problems) > 5 else ''
            raise UserError(
                f'{place} was not made by this model and optimizer:\n  '
                + '\n  '.join(problems[:5])
                + more
                + '\nUse the gin file that made it, or start over with --fresh; init.weights takes over single parts.'
            )
        return {name: tensors[name] for name in shapes}

    def _without_positions(self, tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Names the optimizer's entries if they are called `optimizer/<position>` or `optimizer/<slots>/<position>`.

        An optimizer that names the kind of its `slots` converts those without a kind, which are Keras' own.
        """
        kind = getattr(self._optimizer, 'slots', '')
        for folder in dict.fromkeys((f'optimizer/{kind}' if kind else 'optimizer', 'optimizer')):
            old = [f'{folder}/{i:04d}' for i in range(len(self.optimizer))]
            if tensors.keys() >= set(old):
                values = [tensors[name] for name in old]
                if kind and folder == 'optimizer':
                    values = self._optimizer.converted(values)
                new = {f'optimizer/{name}': value for name, value in zip(self.optimizer, values, strict=True)}
                return {name: value for name, value in tensors.items() if name not in old} | new
        return tensors


def _slot_names(variables: Sequence[Any], trained: Mapping[str, Any]) -> list[str]:
    """Returns a name for each of an optimizer's variables.

    Keras names the slot of a variable `<path, with _ for />_<slot>`.
    """
    owners: dict[str, list[str]] = {}  # Parts may have equal paths.
    for name, variable in trained.items():
        owners.setdefault(variable.path.replace('/', '_') + '_', []).append(name)
    names: list[str] = []
    for variable in variables:
        prefix = max((prefix for prefix in owners if variable.name.startswith(prefix)), key=len, default='')
        slot = variable.name.removeprefix(prefix)
        choices = [f'{slot}/{owner}' for owner in owners[prefix]] if prefix else []
        choices += [slot, *(f'{slot}_{i}' for i in range(2, len(variables) + 2))]
        names.append(next(choice for choice in choices if choice not in names))
    return names
