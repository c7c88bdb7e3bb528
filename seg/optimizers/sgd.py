"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from seg.errors import UserError
from seg.number_checks import check_number
from seg.registry import optimizers, schedules


@optimizers.register('sgd')
def sgd(
    *,
    total_steps: int,
    batch_size: int,
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule],
    momentum: float = 0.9,
    nesterov: bool = False,
) -> keras.optimizers.Optimizer:
    """Gradient descent with momentum, plain or Nesterov's (Sutskever et al. 2013).

    With gradient g, rate lr, momentum u, velocity v (0 at first) and variable x, a step is `v = u * v + g`, then
    `x = x - lr * v`, or with Nesterov `x = x - lr * (g + u * v)`. The rate is outside the velocity, as in the Cloud TPU
    recipes, torch and detectron2, so that a lower rate takes effect at once. (In Keras it is inside, and the steps
    shrink gradually, over about 1 / (1 - u) steps.)

    Args:
      total_steps: supplied.
      batch_size: supplied.
      schedule: reference of a learning rate schedule, such as @schedules.poly.
      momentum: in [0, 1); 0 keeps no velocity.
      nesterov: whether to look ahead.

    Returns:
      Optimizer without weight decay and clipping: the engine adds L2 to the gradient.

    Raises:
      UserError: if a setting is out of its range.
    """
    check_number('optimizers.sgd.momentum', momentum, 0, 1, below=True)
    if nesterov and not momentum:
        raise UserError('optimizers.sgd.nesterov = True needs a momentum above 0.')
    factory = schedules.check(schedule, 'optimizers.sgd.schedule')
    rate = factory.make(keras.optimizers.schedules.LearningRateSchedule, total_steps=total_steps, batch_size=batch_size)
    return SGD(learning_rate=rate, momentum=float(momentum), nesterov=bool(nesterov), name='sgd')


class SGD(keras.optimizers.SGD):
    """Keras' SGD with the rate outside the velocity.

    Attributes:
      slots: name of its slots in checkpoints, which distinguishes them from those of Keras' SGD.
    """

    slots = 'velocity'

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the velocities of the variables."""
        if not self.built:
            keras.optimizers.Optimizer.build(self, variables)
            self.momentums = self.add_optimizer_variables(variables, self.slots) if self.momentum else []

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Takes one step of one variable."""
        gradient = ops.cast(gradient, variable.dtype)
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            momentum = ops.cast(self.momentum, variable.dtype)
            self.assign(velocity, momentum * velocity + gradient)
            gradient = gradient + momentum * velocity if self.nesterov else velocity
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * gradient)

    def converted(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Converts the variables of Keras' SGD, in the order of `variables`, to those of this optimizer.

        In Keras the velocity is the sum of -lr * g. It is divided by the rate of the last step; if that was 0, the
        velocity starts at 0.
        """
        step = int(values[0])
        schedule = self._learning_rate
        last = schedule(max(step - 1, 0)) if callable(schedule) else schedule
        rate = float(ops.convert_to_numpy(last))
        velocities = {id(v) for v in self.momentums} if self.momentum else set()
        return [
            (-value / rate if rate else np.zeros_like(value)).astype(value.dtype) if id(v) in velocities else value
            for v, value in zip(self.variables, values, strict=True)
        ]
