"""Cosine decay."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from seg.number_checks import check_number
from seg.registry import schedules
from seg.schedules.base import Schedule


@schedules.register('cosine')
class Cosine(Schedule):
    """Half a cosine from the end of the warm-up to the end of the training, without restarts.

    `lr = end + (peak - end) * (1 + cos(pi * (step - warmup_steps) / (total_steps - warmup_steps))) / 2`, with `peak`
    and `end` being `base_lr` and `end_lr` scaled to the batch size; `end` from `total_steps` on. See `Schedule` for
    scaling and warm-up. Paper: Loshchilov and Hutter 2017, 'SGDR'.

    Args:
      total_steps: supplied.
      batch_size: supplied.
      base_lr: rate at the end of the warm-up, for batches of `reference_batch` images.
      end_lr: rate at the end, scaled like `base_lr`.
      reference_batch: batch size for which the rates are given; None does not scale them.
      warmup_steps: steps of linear warm-up.
      warmup_lr: rate at step 0 of the warm-up.

    Raises:
      UserError: if a setting is out of its range.
    """

    name = 'cosine'

    def __init__(
        self,
        *,
        total_steps: int,
        batch_size: int,
        base_lr: float,
        end_lr: float = 0.0,
        reference_batch: int | None = None,
        warmup_steps: int = 0,
        warmup_lr: float = 0.0,
    ):
        super().__init__(total_steps, batch_size, base_lr, reference_batch, warmup_steps, warmup_lr)
        self.end_lr = check_number(f'{self.slot}.end_lr', end_lr)

    def decayed(self, step) -> Any:
        end = self.end_lr * self.scale
        # (1 + cos(pi * x)) / 2 = sin(pi * (1 - x) / 2) ** 2, which keeps its digits near the end.
        return end + (self.peak - end) * ops.square(ops.sin(0.5 * math.pi * self.remaining(step)))

    def details(self) -> str:
        return f'to {self.end_lr * self.scale:g}'

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {'end_lr': self.end_lr}
