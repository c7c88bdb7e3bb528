"""Base class of learning rate schedules: scaling to the batch size, and the warm-up."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras
from keras import ops

from seg.errors import UserError
from seg.number_checks import check_number, check_whole


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate by step: linear warm-up, then the decay of the subclass.

    With `scale = batch_size / reference_batch` (1 without a reference batch) the peak is `base_lr * scale` (Goyal et
    al. 2017). In the first `warmup_steps` steps the rate rises linearly from `warmup_lr * scale` at step 0 to the
    value of the decay at step `warmup_steps`. If the warm-up is as long as the whole training or longer, as in a short
    trial of a long recipe, it is shortened to half of the training; `describe()` says so.

    The rate is computed in float32, or in float64 if that is Keras' floatx.

    Attributes:
      name: name of the schedule in gin, a class attribute of each schedule.
      slot: gin key of the schedule, for messages.
      peak: highest rate, scaled.
      total_steps: steps of the training.
      warmup_steps: steps of the warm-up, after shortening.

    Args:
      total_steps: steps of the training.
      batch_size: images per step, over all replicas.
      base_lr: rate at the end of the warm-up, for batches of `reference_batch` images.
      reference_batch: batch size for which `base_lr` and `warmup_lr` are given; None does not scale them.
      warmup_steps: steps of the warm-up; 0 for none.
      warmup_lr: rate at step 0, scaled like `base_lr`.

    Raises:
      UserError: if a setting is out of its range.
    """

    name: str

    def __init__(
        self,
        total_steps: int,
        batch_size: int,
        base_lr: float,
        reference_batch: int | None,
        warmup_steps: int,
        warmup_lr: float,
    ):
        self.slot = f'schedules.{self.name}'
        self.total_steps = check_whole(f'{self.slot}.total_steps', total_steps)
        self.batch_size = check_whole(f'{self.slot}.batch_size', batch_size)
        self.base_lr = check_number(f'{self.slot}.base_lr', base_lr, above=True)
        self.reference_batch = reference_batch
        if reference_batch is not None:
            check_whole(f'{self.slot}.reference_batch', reference_batch)
        self.asked_warmup_steps = check_whole(f'{self.slot}.warmup_steps', warmup_steps, 0)
        self.warmup_lr = check_number(f'{self.slot}.warmup_lr', warmup_lr)
        if self.warmup_steps and self.warmup_lr > self.base_lr:
            raise UserError(
                f'{self.slot}.warmup_lr = {warmup_lr!r} is above {self.slot}.base_lr = {base_lr!r}. '
                'Expected a rise, both rates for the reference batch.'
            )

    @property
    def scale(self) -> float:
        """Factor of the rates for the batch size."""
        return 1.0 if self.reference_batch is None else self.batch_size / self.reference_batch

    @property
    def peak(self) -> float:
        return self.base_lr * self.scale

    @property
    def warmup_steps(self) -> int:
        if self.asked_warmup_steps < self.total_steps:
            return self.asked_warmup_steps
        return self.total_steps // 2

    @property
    def decay_steps(self) -> int:
        """Steps from the end of the warm-up to the end of the training; at least 1."""
        return self.total_steps - self.warmup_steps

    def remaining(self, step) -> Any:
        """Fraction of the decay that remains: 1 at the end of the warm-up, 0 at the end and after it.

        The subtraction comes before the division, on whole numbers: in float32, `1 - step / total` loses most of its
        digits near the end.
        """
        left = ops.maximum(self.total_steps - step, 0)
        return ops.minimum(left / self.decay_steps, 1.0)

    @abstractmethod
    def decayed(self, step) -> Any:
        """Rate without warm-up at a step, which is a float scalar of at least `warmup_steps`."""

    def __call__(self, step):
        """Rate at a step.

        Args:
          step: scalar, integer or float; exact up to 2^24 in float32.

        Returns:
          Scalar of Keras' floatx, float32 at least.
        """
        dtype = keras.backend.result_type(keras.config.floatx(), 'float32')
        step = ops.cast(step, dtype)
        rate = ops.cast(self.decayed(ops.maximum(step, self.warmup_steps)), dtype)
        if not self.warmup_steps:
            return rate
        start = self.warmup_lr * self.scale
        warm = start + (rate - start) * (step / self.warmup_steps)
        return ops.where(step < self.warmup_steps, warm, rate)

    @abstractmethod
    def details(self) -> str:
        """The subclass's own settings, for `describe`."""

    def describe(self) -> str:
        """One line, such as 'poly: 0.007 x 8/16 = 0.0035, power 0.9 to 0, 30000 steps, warm-up 500 from 0'."""
        rate = f'{self.base_lr:g}'
        if self.reference_batch is not None:
            rate += f' x {self.batch_size}/{self.reference_batch} = {self.peak:g}'
        parts = [rate, self.details(), f'{self.total_steps} steps']
        if self.asked_warmup_steps:
            warmup = f'warm-up {self.warmup_steps} from {self.warmup_lr * self.scale:g}'
            if self.warmup_steps != self.asked_warmup_steps:
                warmup += f' (cut from {self.asked_warmup_steps} to half of the training)'
            parts.append(warmup)
        return f'{self.name}: ' + ', '.join(parts)

    def get_config(self) -> dict[str, Any]:
        return {
            'total_steps': self.total_steps,
            'batch_size': self.batch_size,
            'base_lr': self.base_lr,
            'reference_batch': self.reference_batch,
            'warmup_steps': self.asked_warmup_steps,
            'warmup_lr': self.warmup_lr,
        }


def describe(optimizer: keras.optimizers.Optimizer) -> str:
    """Describes the learning rate of an optimizer in a line; a schedule other than `Schedule` by its class name."""
    rate = optimizer._learning_rate  # The public property is the rate at the present step.
    if isinstance(rate, Schedule):
        return rate.describe()
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return type(rate).__name__
    return f'constant {float(rate):g}'


def rate_at(optimizer: keras.optimizers.Optimizer, step: int) -> float:
    """The learning rate of the step that follows `step` steps."""
    rate = optimizer._learning_rate
    return float(rate(step) if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) else rate)
