"""The settings of a training step besides the optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from seg.errors import UserError, shown
from seg.number_checks import check_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerStep:
    """Treatment of the gradients between loss and optimizer, and of the weights after it.

    Attributes:
      l2: coefficient λ of the L2 penalty λ/2 Σ w², as its gradient λ w, on kernels only (no biases, no norms). The
        published SGD recipes call this weight decay; AdamW's decoupled decay is a setting of the optimizer.
      clip_norm: gradients are scaled so that their norm over all variables is at most this; None for no clipping.
      ema_decay: decay of the exponential moving average of the weights and the batch-norm statistics, which evaluation
        then uses; None for none. The first steps use min(decay, (1 + step) / (10 + step)).
      part_rates: factors on the learning rate by part of the model, such as {'backbone': 0.1} for a pretrained backbone
        under new layers. They scale the optimizer's update of the part's weights, including decoupled decay.
      frozen: what is not trained, as globs of names of variables (`<part>/<path>`, listed in model_info.txt) or of what
        they begin with, such as ['backbone'], ['backbone/stage1_*', 'decoder'] or ['*/bias']; None for nothing. Layers
        of which no variable is trained also keep their statistics. Rates of frozen parts have no effect.
    """

    l2: float = 0.0
    clip_norm: float | None = None
    ema_decay: float | None = None
    part_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    frozen: Sequence[str] | None = None

    def __post_init__(self):
        check_number('OptimizerStep.l2', self.l2)
        if self.clip_norm is not None:
            check_number('OptimizerStep.clip_norm', self.clip_norm, above=True)
        if self.ema_decay is not None:
            check_number('OptimizerStep.ema_decay', self.ema_decay, 0, 1, above=True, below=True)
        for part, rate in self.part_rates.items():
            if check_number(f'OptimizerStep.part_rates[{part!r}]', rate) == 0:
                raise UserError(
                    f'OptimizerStep.part_rates[{part!r}] = 0: expected a factor above 0. To freeze the part, with its '
                    f'statistics: OptimizerStep.frozen = [{part!r}].'
                )
        frozen = self.frozen or ()
        if not isinstance(frozen, list | tuple) or not all(isinstance(each, str) and each for each in frozen):
            raise UserError(
                f'OptimizerStep.frozen = {shown(self.frozen)}: expected a list of patterns, such as '
                "['backbone', 'decoder/*']."
            )
