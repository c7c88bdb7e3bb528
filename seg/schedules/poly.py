"""Polynomial decay."""

from __future__ import annotations

from typing import Any

from keras import ops

from seg.number_checks import check_number
from seg.registry import schedules
from seg.schedules.base import Schedule


@schedules.register('poly')
class Poly(Schedule):
    """Polynomial decay from the end of the warm-up to the end of the training, as in the DeepLab recipes.

    `lr = end + (peak - end) * (1 - (step - warmup_steps) / (total_steps - warmup_steps)) ** power`, with `peak` and
    `end` being `base_lr` and `end_lr` scaled to the batch size; `end` from `total_steps` on. See `Schedule` for scaling
    and warm-up. Paper: Liu et al. 2015, 'ParseNet'; Chen et al. 2018, 'DeepLab'.

    Args:
      total_steps: supplied.
      batch_size: supplied.
      base_lr: rate at the end of the warm-up, for batches of `reference_batch` images; 0.007 in the DeepLab v3+
        paper's runs on PASCAL VOC with 16 images.
      power: exponent, above 0.
      end_lr: rate at the end, scaled like `base_lr`.
      reference_batch: batch size for which the rates are given; None does not scale them.
      warmup_steps: steps of linear warm-up.
      warmup_lr: rate at step 0 of the warm-up.

    Raises:
      UserError: if a setting is out of its range.
    """

    name = 'poly'

    def __init__(
        self,
        *,
        total_steps: int,
        batch_size: int,
        base_lr: float,
        power: float = 0.9,
        end_lr: float = 0.0,
        reference_batch: int | None = None,
        warmup_steps: int = 0,
        warmup_lr: float = 0.0,
    ):
        super().__init__(total_steps, batch_size, base_lr, reference_batch, warmup_steps, warmup_lr)
        self.power = check_number(f'{self.slot}.power', power, above=True)
        self.end_lr = check_number(f'{self.slot}.end_lr', end_lr)

    def decayed(self, step) -> Any:
        end = self.end_lr * self.scale
        return end + (self.peak - end) * ops.power(self.remaining(step), self.power)

    def details(self) -> str:
        return f'power {self.power:g} to {self.end_lr * self.scale:g}'

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {'power': self.power, 'end_lr': self.end_lr}
