"""The variables of a run by name, their moving averages, and copies to and from the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from seg.engine.optimizer_step import OptimizerStep
from seg.engine.tensorflow.devices import graph
from seg.engine.variables import Variables


class State:
    """Everything that a checkpoint holds: model, optimizer (with the step) and moving averages."""

    def __init__(
        self,
        parts: Mapping[str, object],
        optimizer,
        strategy: tf.distribute.Strategy,
        settings: OptimizerStep,
    ):
        """Builds the optimizer.

        Args:
          parts: the model's Keras layers by name.
          optimizer: a Keras optimizer that is not built.
          strategy: the strategy in whose scope all of them were made.
          settings: whether moving averages are kept, and what is frozen.
        """
        self._strategy = strategy
        self.optimizer = optimizer
        self.ema: dict[str, tf.Variable] = {}
        with strategy.scope():
            self.variables = Variables(parts, optimizer, settings.frozen)
            self.model = {name: variable.value for name, variable in self.variables.model.items()}
            for name in self.variables.averaged() if settings.ema_decay is not None else ():
                # No aggregation: every replica averages its own copy, and all copies are equal.
                self.ema[name] = tf.Variable(self.model[name].read_value(), trainable=False, name=f'ema/{name}')
        self._swap = graph(self._swap_step)

    def all(self) -> dict[str, tf.Variable]:
        """Returns all variables by their names in checkpoints."""
        model = {f'model/{name}': v for name, v in self.model.items()}
        ema = {f'ema/{name}': v for name, v in self.ema.items()}
        return {**model, **ema, **{f'optimizer/{name}': v.value for name, v in self.variables.optimizer.items()}}

    def to_host(self) -> dict[str, np.ndarray]:
        """Copies all variables to the host."""
        return {name: _first(variable).numpy() for name, variable in self.all().items()}

    def from_host(self, tensors: Mapping[str, np.ndarray], place: str) -> None:
        """Sets all variables on all replicas; see `Variables.checked`."""
        tensors = self.variables.checked(tensors, bool(self.ema), place)
        for name, variable in self.all().items():
            variable.assign(tf.cast(tensors[name], variable.dtype))

    def update_ema(self, decay: float, step: tf.Tensor) -> None:
        """Updates the averages. Runs on each replica, on its own copies."""
        shares: dict[tf.DType, tf.Tensor] = {}
        for name, average in self.ema.items():
            if average.dtype not in shares:
                count = tf.cast(step, average.dtype)
                shares[average.dtype] = 1 - tf.minimum(tf.constant(decay, average.dtype), (1 + count) / (10 + count))
            average.assign_sub(shares[average.dtype] * (average - self.model[name]))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the model has the averaged weights, if averages are kept."""
        if self.ema:
            self._swap()
        try:
            yield
        finally:
            if self.ema:
                self._swap()

    def _swap_step(self) -> None:
        def swap(variable, average):
            before = tf.identity(variable)
            with tf.control_dependencies([before]):
                with tf.control_dependencies([variable.assign(average)]):
                    average.assign(before)

        for name, average in self.ema.items():
            self._strategy.extended.update(self.model[name], swap, args=(average,), group=True)


def _first(variable: tf.Variable) -> tf.Variable:
    return variable.values[0] if isinstance(variable, tf.distribute.DistributedValues) else variable
