"""Prediction on batches made by the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seg.engine import base
from seg.engine.tensorflow.devices import graph


class Predictor(base.Predictor):
    """A task's `predict` with the current weights, on batches of one shape: a graph that is traced once."""

    def __init__(self, task, checkpoint: str, strategy: tf.distribute.Strategy, jit_compile: bool):
        self.checkpoint = checkpoint
        self._strategy, self.replicas = strategy, strategy.num_replicas_in_sync
        on_cpu = all('CPU' in device for device in strategy.extended.worker_devices)
        predict = task.predict if jit_compile or not on_cpu else with_constants(task)
        replica = graph(predict, jit_compile)
        self._run = graph(lambda batch: self._strategy.run(replica, args=(batch,)))

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Predictions:
        if self.replicas == 1:
            pieces = {key: tf.constant(value) for key, value in batch.items()}
        else:
            divided = {key: np.split(value, self.replicas) for key, value in batch.items()}
            pieces = {
                key: self._strategy.experimental_distribute_values_from_function(
                    lambda context, rows=rows: tf.constant(rows[context.replica_id_in_sync_group])
                )
                for key, rows in divided.items()
            }
        local = self._strategy.experimental_local_results
        return Predictions({key: local(value) for key, value in self._run(pieces).items()})


def with_constants(task) -> Callable[[Any], Any]:
    """Returns the task's `predict` with the current weights as constants, for a graph on the CPU.

    TensorFlow then folds normalisations and casts into the kernels once, and oneDNN reorders them once. With variables,
    oneDNN's code for kernels in their own order takes two to three times as long.
    """
    variables = [variable for part in task.checkpoint_items.values() for variable in part.variables]
    values = [variable.numpy() for variable in variables]

    def predict(batch: Any) -> Any:
        constants = [(variable, tf.constant(value)) for variable, value in zip(variables, values, strict=True)]
        with keras.StatelessScope(state_mapping=constants):
            return task.predict(batch)

    return predict


class Predictions(base.Predictions):
    """The predictions of a batch, on the devices."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = values

    def get(self, key: str, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        parts = self._values[key]
        part, index = divmod(index, parts[0].shape[0])
        found = parts[part][index]
        return (found if size is None else found[: size[0], : size[1]]).numpy()
