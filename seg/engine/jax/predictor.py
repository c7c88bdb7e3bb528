"""Prediction on batches made by the host."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import keras
import numpy as np

from seg.engine import base
from seg.engine.jax.devices import ROWS, Devices


class Predictor(base.Predictor):
    """A task's `predict` with the current weights, on batches of one shape: a program that is compiled once."""

    def __init__(self, task, checkpoint: str, devices: Devices):
        self.checkpoint, self.replicas = checkpoint, devices.count
        self._devices = devices
        variables = [variable for part in task.checkpoint_items.values() for variable in part.variables]
        self._values = devices.copied([variable.value for variable in variables])

        def predict(values: list[jax.Array], batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return task.predict(batch)

        self._program = devices.compiled(predict, ROWS)

    def __call__(self, batch: base.HostBatch) -> Predictions:
        return Predictions(self._program(self._values, self._devices.divided(batch)), self._devices)


class Predictions(base.Predictions):
    """The predictions of a batch, on the devices."""

    def __init__(self, values: Mapping[str, jax.Array], devices: Devices):
        self._values, self._devices = values, devices

    def get(self, key: str, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        # All of the row: a part of its own size would be a program of its own.
        found = self._devices.row({key: self._values[key]}, index)[key]
        return found if size is None else found[: size[0], : size[1]]
