"""The state of a training: arrays by their names in checkpoints, and copies to and from the host.

Between two loops the Keras variables hold the state, so that an evaluation reads what the steps have written. A loop
takes it out, since each step reuses the memory of the arrays that it gets, and puts the newest one back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from seg.engine.jax.devices import Devices
from seg.engine.variables import Variables


class State:
    """Everything that a checkpoint holds: model, optimizer (with the step) and moving averages."""

    def __init__(self, variables: Variables, devices: Devices, averages: bool):
        """Copies the variables to all devices.

        Args:
          variables: variables of the model and the optimizer.
          devices: the devices.
          averages: whether moving averages are kept; they start as the weights.
        """
        self._devices = devices
        self._variables = {f'model/{name}': variable for name, variable in variables.model.items()}
        self._variables |= {f'optimizer/{name}': variable for name, variable in variables.optimizer.items()}
        self._names = variables
        self._averages: dict[str, jax.Array] = {}
        self.put(devices.copied(initial_values(variables, averages)))

    def get(self) -> dict[str, jax.Array]:
        """Returns all arrays by their names in checkpoints."""
        return {name: variable.value for name, variable in self._variables.items()} | self._averages

    def put(self, arrays: Mapping[str, jax.Array]) -> None:
        """Sets all arrays."""
        for name, variable in self._variables.items():
            variable.assign(arrays[name])
        self._averages = {name: array for name, array in arrays.items() if name.startswith('ema/')}

    def to_host(self) -> dict[str, np.ndarray]:
        """Copies all arrays to the host."""
        arrays = self.get()
        values = jax.device_get(arrays)  # Sorted by name, as JAX returns all dicts.
        return {name: np.array(values[name]) for name in arrays}

    def from_host(self, tensors: Mapping[str, np.ndarray], place: str) -> None:
        """Sets all arrays; see `Variables.checked`."""
        tensors = self._names.checked(tensors, bool(self._averages), place)
        self.put(self._devices.copied({name: tensors[name].astype(value.dtype) for name, value in self.get().items()}))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the model has the averaged weights, if averages are kept."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        arrays = self.get()
        for name in self._averages:
            model = name.replace('ema/', 'model/', 1)
            arrays[name], arrays[model] = arrays[model], arrays[name]
        self.put(arrays)


def initial_values(variables: Variables, averages: bool) -> dict[str, jax.Array]:
    """Returns the values of all variables by their names in checkpoints, with the averages at their start."""
    values = {f'model/{name}': variable.value for name, variable in variables.model.items()}
    values |= {f'optimizer/{name}': variable.value for name, variable in variables.optimizer.items()}
    averaged = variables.averaged() if averages else ()
    return values | {f'ema/{name}': values[f'model/{name}'] for name in averaged}
