"""Prediction on batches that the host makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from seg.structures import Hardware


class Predictor:
    """A task's `predict` over batches of one shape: a graph that is traced once.

    Attributes:
      checkpoint: path of the file that the weights are from.
      replicas: among which a batch has to divide.
    """

    def __init__(self, task, hardware: Hardware, checkpoint: str):
        self.checkpoint = checkpoint
        self._strategy, self.replicas = hardware.strategy, hardware.num_replicas
        graph = tf.function(task.predict, jit_compile=hardware.jit_compile or None)
        self._run = tf.function(lambda batch: self._strategy.run(graph, args=(batch,)))

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Predictions:
        """Predicts a global batch. A GPU may still be at it on return."""
        if self.replicas == 1:
            shares = {key: tf.constant(value) for key, value in batch.items()}
        else:
            parts = {key: np.split(value, self.replicas) for key, value in batch.items()}
            shares = {
                key: self._strategy.experimental_distribute_values_from_function(
                    lambda context, part=part: tf.constant(part[context.replica_id_in_sync_group])
                )
                for key, part in parts.items()
            }
        local = self._strategy.experimental_local_results
        return Predictions({key: local(value) for key, value in self._run(shares).items()})


class Predictions:
    """The predictions of a batch, on the devices."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = values

    def get(self, key: str, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Copies what was predicted for one image to the host.

        Args:
          key: of the prediction, such as `classes`.
          index: of the image in the global batch.
          size: (height, width) of the upper left part of a map; None for the whole of it, whatever its shape.
        """
        parts = self._values[key]
        part, index = divmod(index, parts[0].shape[0])
        found = parts[part][index]
        return (found if size is None else found[: size[0], : size[1]]).numpy()
