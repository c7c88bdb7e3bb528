"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Callable

import keras

from seg.number_checks import check_number
from seg.registry import optimizers, schedules


@optimizers.register('adamw')
def adamw(
    *,
    total_steps: int,
    batch_size: int,
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule],
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
) -> keras.optimizers.Optimizer:
    """Adam with decoupled weight decay.

    At step t (from 1), with gradient g, rate lr, decay w and variable x:

        x = x - lr * w * x                         where `optimizers.decay.decays(x)`
        m = b1 * m + (1 - b1) * g                  v = b2 * v + (1 - b2) * g^2
        x = x - lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)

    Epsilon is added to the uncorrected root, the second form of the update in section 2 of Kingma and Ba 2015, as in
    TensorFlow and Keras. torch adds it to the corrected root; the two differ only if gradients are as small as
    epsilon / sqrt(1 - b2^t). Decay: Loshchilov and Hutter 2019. The caller excludes biases and normalisation with
    `exclude_from_weight_decay` before the optimizer is built.

    Args:
      total_steps: supplied.
      batch_size: supplied.
      schedule: reference of a learning rate schedule, such as @schedules.cosine.
      beta_1: decay rate of the gradient's mean, in [0, 1).
      beta_2: decay rate of the squared gradient's mean, in [0, 1).
      epsilon: above 0.
      weight_decay: w, per unit of learning rate.

    Returns:
      Optimizer without clipping.

    Raises:
      UserError: if a setting is out of its range.
    """
    slot = 'optimizers.adamw'
    check_number(f'{slot}.beta_1', beta_1, 0, 1, below=True)
    check_number(f'{slot}.beta_2', beta_2, 0, 1, below=True)
    check_number(f'{slot}.epsilon', epsilon, above=True)
    check_number(f'{slot}.weight_decay', weight_decay)
    factory = schedules.check(schedule, f'{slot}.schedule')
    rate = factory.make(keras.optimizers.schedules.LearningRateSchedule, total_steps=total_steps, batch_size=batch_size)
    return keras.optimizers.AdamW(
        learning_rate=rate,
        beta_1=float(beta_1),
        beta_2=float(beta_2),
        epsilon=float(epsilon),
        weight_decay=float(weight_decay),
        name='adamw',
    )
