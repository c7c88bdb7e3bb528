"""The variables of a run by name, their moving averages, and copies to and from the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from seg.errors import UserError


class State:
    """Everything that a checkpoint holds: model, optimizer (with the step) and moving averages.

    Names are `model/<part>/<variable path>`, `ema/…` likewise, and `optimizer/<position>`, or
    `optimizer/<slots>/<position>` for an optimizer that names the kind of its `slots`. They depend only on the
    names of the layers, not on the order in which objects were made.
    """

    def __init__(self, parts: Mapping[str, object], optimizer, strategy: tf.distribute.Strategy, ema: bool):
        """Names the variables.

        Args:
          parts: the model's Keras layers by name.
          optimizer: a built Keras optimizer.
          strategy: the strategy in whose scope all of them were made.
          ema: whether moving averages are kept.
        """
        self._strategy = strategy
        self.optimizer = optimizer
        self.model = {f'{part}/{v.path}': v.value for part, layer in parts.items() for v in layer.variables}
        self.trainable = [v for layer in parts.values() for v in layer.trainable_variables]
        self.ema: dict[str, tf.Variable] = {}
        if ema:
            with strategy.scope():
                for name, variable in self.model.items():
                    if variable.dtype.is_floating:
                        # No aggregation: every replica averages its own copy, and all copies are equal.
                        self.ema[name] = tf.Variable(variable.read_value(), trainable=False, name=f'ema/{name}')
        self._swap = tf.function(self._swap_step, autograph=False)

    def all(self) -> dict[str, tf.Variable]:
        """Returns all variables by their names in checkpoints."""
        folder = self._optimizer_folder()
        optimizer = {f'{folder}/{i:04d}': v.value for i, v in enumerate(self.optimizer.variables)}
        model = {f'model/{name}': v for name, v in self.model.items()}
        return {**model, **{f'ema/{name}': v for name, v in self.ema.items()}, **optimizer}

    def _optimizer_folder(self) -> str:
        slots = getattr(self.optimizer, 'slots', '')
        return f'optimizer/{slots}' if slots else 'optimizer'

    def _converted(self, tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Converts the state of Keras' optimizer if ours has another kind of state."""
        old = [f'optimizer/{i:04d}' for i in range(len(self.optimizer.variables))]
        if self._optimizer_folder() == 'optimizer' or not tensors.keys() >= set(old):
            return tensors
        values = self.optimizer.converted([tensors[name] for name in old])
        new = {f'{self._optimizer_folder()}/{i:04d}': value for i, value in enumerate(values)}
        return {**{name: value for name, value in tensors.items() if name not in old}, **new}

    def to_host(self) -> dict[str, np.ndarray]:
        """Copies all variables to the host."""
        return {name: _first(variable).numpy() for name, variable in self.all().items()}

    def from_host(self, tensors: Mapping[str, np.ndarray], place: str) -> None:
        """Sets all variables on all replicas. The velocity of Keras' SGD is converted, see `seg.optimizers.sgd`.

        Raises:
          UserError: if a name is missing or unknown, or a shape differs.
        """
        variables = self.all()
        tensors = self._converted(tensors)
        problems = [f'{name}: not in the checkpoint' for name in variables if name not in tensors]
        problems += [f'{name}: not in this model' for name in tensors if name not in variables]
        problems += [
            f'{name}: shape {tuple(tensors[name].shape)} in the checkpoint, {tuple(v.shape)} in this model'
            for name, v in variables.items()
            if name in tensors and tuple(v.shape) != tensors[name].shape
        ]
        if problems:
            more = f'\n  … and {len(problems) - 5} more' if len(problems) > 5 else ''
            raise UserError(
                f'{place} was not made by this model and optimizer:\n  '
                + '\n  '.join(problems[:5])
                + more
                + '\nUse the gin file that made it, or start over with --fresh; init.weights takes over single parts.'
            )
        for name, variable in variables.items():
            variable.assign(tf.cast(tensors[name], variable.dtype))

    def update_ema(self, decay: float, step: tf.Tensor) -> None:
        """Updates the averages. Runs on each replica, on its own copies."""
        for name, average in self.ema.items():
            variable = self.model[name]
            count = tf.cast(step, average.dtype)
            rate = tf.minimum(tf.constant(decay, average.dtype), (1 + count) / (10 + count))
            average.assign_sub((1 - rate) * (average - variable))

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
