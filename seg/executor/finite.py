"""Checks that losses and gradients of a loop are finite, before any of its results is written."""

from __future__ import annotations

import numpy as np

from seg.engine.base import LoopResult
from seg.errors import UserError
from seg.executor.checkpoints import Checkpoints
from seg.structures import Input


def check(result: LoopResult, before: int, source: Input, checkpoints: Checkpoints) -> None:
    """Checks the losses and gradients of a loop.

    Args:
      result: results of the loop.
      before: number of steps before the loop.
      source: the training data.
      checkpoints: checkpoints of the run, to name the last good one in the message.

    Raises:
      UserError: for the first step that is not finite, with its loss and the images that cause it.
    """
    finite = np.isfinite(result.losses).all(1) & np.isfinite(result.gradient_norm)
    if finite.all():
        return
    i = int(np.argmin(finite))
    broken = [
        f'{name} = {value:g}'
        for name, value in zip(result.terms, result.losses[i], strict=True)
        if not np.isfinite(value)
    ]
    shares = ~np.isfinite(result.totals[i]).all(-1)
    images = source.names(result.index[i][shares] if shares.any() else result.index[i])
    saved = checkpoints.steps()
    raise UserError(
        f'step {before + i + 1}: '
        + (f'loss {", ".join(broken)}' if broken else 'the losses are finite, their gradient is not')
        + f' (learning rate {result.learning_rate[i]:g}, gradient norm {result.gradient_norm[i]:g}).\n'
        f'Images {"with a non-finite contribution" if shares.any() else "of that step"}: {images}.\n'
        f'Last good checkpoint: {f"step {saved[-1]}" if saved else "none"}. Usual causes: a learning rate too high '
        'for this batch size, no warm-up, no pretrained weights; OptimizerStep.clip_norm helps against rare large '
        'gradients.'
    )
