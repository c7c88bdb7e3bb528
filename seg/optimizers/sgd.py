"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Callable

import keras

from seg.errors import UserError
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
    """Gradient descent with momentum, plain or Nesterov's.

    With gradient g, rate lr, momentum u and variable x, a step is `v = u * v - lr * g`, then `x = x + v`, or with
    Nesterov (Sutskever et al. 2013) `x = x + u * v - lr * g`. The rate is inside v, so a changed rate reaches the
    older gradients in v no more; at a constant rate this equals the form `v = u * v + g`, `x = x - lr * v`.

    Args:
      total_steps: supplied.
      batch_size: supplied.
      schedule: reference of a learning rate schedule, such as @schedules.poly.
      momentum: in [0, 1); 0 keeps no velocity.
      nesterov: whether to look ahead.

    Returns:
      Optimizer without weight decay and clipping: L2 is added to the gradient before it arrives here.

    Raises:
      UserError: if a setting is out of its range.
    """
    if isinstance(momentum, bool) or not isinstance(momentum, int | float) or not 0 <= momentum < 1:
        raise UserError(f'optimizers.sgd.momentum = {momentum!r}: expected a number of at least 0 and below 1.')
    if nesterov and not momentum:
        raise UserError('optimizers.sgd.nesterov = True needs a momentum above 0.')
    rate = schedules.build(schedule, 'optimizers.sgd.schedule', total_steps=total_steps, batch_size=batch_size)
    return keras.optimizers.SGD(learning_rate=rate, momentum=float(momentum), nesterov=bool(nesterov), name='sgd')
