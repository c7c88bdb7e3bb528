"""Overfit mode: can the model learn a few images by heart?"""

from __future__ import annotations

import dataclasses
import math

from seg.executor.run_config import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overfit:
    """What `--mode=overfit` does: a model that cannot learn a few images by heart will learn nothing else.

    Attributes:
      num_images: the first images of the training split; also the batch size.
      train_steps: at most this many steps.
      eval_every: how often to look whether the target is reached.
      target: value of `RunConfig.best_metric` at which it ends.
    """

    num_images: int = 8
    train_steps: int = 1000
    eval_every: int = 50
    target: float = 0.9

    def applied(self, run: RunConfig) -> RunConfig:
        """The run's settings with this mode's length and periods."""
        return dataclasses.replace(
            run,
            train_steps=self.train_steps,
            batch_size=self.num_images,
            eval_batch_size=None,
            iterations_per_loop=math.gcd(10, self.eval_every),
            eval_every=self.eval_every,
            save_checkpoints_steps=self.train_steps,
        )
