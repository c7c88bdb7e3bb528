"""Decay in steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from seg.errors import UserError
from seg.number_checks import check_number
from seg.registry import schedules
from seg.schedules.base import Schedule


@schedules.register('step')
class Step(Schedule):
    """Constant rate that is multiplied by `gamma` at each boundary, as in the Mask R-CNN recipes.

    `lr = peak * gamma ** (number of boundaries b with b <= step)`. Boundaries count from step 0, including the warm-up;
    a boundary beyond the end of a short trial has no effect. Without boundaries the rate is constant. See `Schedule`
    for scaling and warm-up.

    Args:
      total_steps: supplied.
      batch_size: supplied.
      base_lr: rate at the end of the warm-up, for batches of `reference_batch` images.
      boundaries: increasing step numbers, or fractions of the training between 0 and 1, such as (0.66667, 0.88889); the
        step of a boundary has the new rate.
      gamma: factor at each boundary, above 0 and at most 1.
      reference_batch: batch size for which the rates are given; None does not scale them.
      warmup_steps: steps of linear warm-up.
      warmup_lr: rate at step 0 of the warm-up.

    Raises:
      UserError: if a setting is out of its range, or a boundary lies within the warm-up.
    """

    name = 'step'

    def __init__(
        self,
        *,
        total_steps: int,
        batch_size: int,
        base_lr: float,
        boundaries: Sequence[int | float] = (),
        gamma: float = 0.1,
        reference_batch: int | None = None,
        warmup_steps: int = 0,
        warmup_lr: float = 0.0,
    ):
        super().__init__(total_steps, batch_size, base_lr, reference_batch, warmup_steps, warmup_lr)
        known = isinstance(boundaries, Sequence) and (
            all(type(b) is int and b > 0 for b in boundaries) or all(type(b) is float and 0 < b < 1 for b in boundaries)
        )
        if not known or list(boundaries) != sorted(set(boundaries)):
            raise UserError(
                f'schedules.step.boundaries = {boundaries!r}: expected increasing step numbers above 0, such as '
                '(15000, 20000), or increasing fractions of the training, such as (0.66667, 0.88889).'
            )
        self.boundaries = tuple(round(b * total_steps) if type(b) is float else b for b in boundaries)
        # In a short trial of a long recipe, fractions of the training may fall into the warm-up, which is not a
        # mistake.
        if self.boundaries and boundaries[0] >= 1 and self.boundaries[0] < self.warmup_steps:
            raise UserError(
                f'schedules.step.boundaries = {boundaries!r}: the first lies within the warm-up of '
                f'{self.warmup_steps} steps (schedules.step.warmup_steps).'
            )
        self.gamma = check_number(f'{self.slot}.gamma', gamma, 0, 1, above=True)

    def decayed(self, step) -> Any:
        # A chain of `where`, not a power of a count: each rate is then exactly the product as written.
        rate = ops.full_like(step, self.peak)
        for i, boundary in enumerate(self.boundaries, start=1):
            rate = ops.where(step >= boundary, ops.full_like(step, self.peak * self.gamma**i), rate)
        return rate

    def details(self) -> str:
        if not self.boundaries:
            return 'constant'
        return f'x {self.gamma:g} at ' + ', '.join(str(b) for b in self.boundaries)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {'boundaries': self.boundaries, 'gamma': self.gamma}
