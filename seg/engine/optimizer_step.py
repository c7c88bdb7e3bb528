"""The settings of a training step beside the optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from seg.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerStep:
    """What happens to the gradients between the loss and the optimizer, and to the weights after it.

    Attributes:
      l2: coefficient λ of the L2 penalty λ/2 Σ w², as its gradient λ w, on kernels only (no biases, no norms). This is
        what the published SGD recipes call weight decay; AdamW's decoupled decay is a setting of the optimizer.
      clip_norm: gradients are scaled so that their norm over all variables is at most this; None for no clipping.
      ema_decay: decay of the exponential moving average of the weights and the batch-norm statistics, which evaluation
        then uses; None for none. The first steps use min(decay, (1 + step) / (10 + step)).
      part_rates: factors on the learning rate by part of the model, such as {'backbone': 0.1} for a pretrained backbone
        under new layers. They scale what the optimizer does to the part's weights, decoupled decay included.
    """

    l2: float = 0.0
    clip_norm: float | None = None
    ema_decay: float | None = None
    part_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.l2 < 0:
            raise UserError(f'OptimizerStep.l2 = {self.l2!r}: expected 0 or more.')
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UserError(f'OptimizerStep.clip_norm = {self.clip_norm!r}: expected a positive norm, or None.')
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError(
                f'OptimizerStep.ema_decay = {self.ema_decay!r}: expected a number between 0 and 1, or None.'
            )
        for part, rate in self.part_rates.items():
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not rate >= 0:
                raise UserError(f'OptimizerStep.part_rates[{part!r}] = {rate!r}: expected a factor of 0 or more.')
