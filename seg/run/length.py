"""The length of a run, the one setting of a training that may change when the run continues."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from seg.errors import UserError
from seg.run import run_json
from seg.run.folder import RunFolder
from seg.run.metrics_log import MetricsLog
from seg.run.values import number, whole


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of `RunConfig.train_steps`, as `run.json` records it under `train_steps_changes`.

    Attributes:
      step: steps taken before it.
      before: steps of the whole training until then.
      after: steps of the whole training from then on.
      last_rate: learning rate of the last step taken; None if unknown.
      next_rate: learning rate of the next step; None if there is none.
    """

    step: int
    before: int
    after: int
    last_rate: float | None
    next_rate: float | None

    def text(self) -> str:
        """What the change does to the learning rate."""
        text = f'RunConfig.train_steps: {self.before} -> {self.after}, from step {self.step} on.'
        if self.next_rate is None:
            return f'{text} No steps are left.'
        spans = f'A schedule that depends on the length now spans {self.after} steps'
        if self.last_rate is None:
            return f'{text} {spans}: the learning rate of step {self.step + 1} is {self.next_rate:.4g}.'
        return (
            f'{text} {spans}: the learning rate goes from {self.last_rate:.4g} in step {self.step} to '
            f'{self.next_rate:.4g} in step {self.step + 1}.'
        )


def change(folder: RunFolder, step: int, train_steps: int, rate: Callable[[int], float]) -> Change | None:
    """Compares the length of a run with that of its last start; None if it is the same or unknown.

    Args:
      folder: folder of the run.
      step: steps taken.
      train_steps: steps of the whole training, as set now.
      rate: learning rate of the step after a number of steps, as set now.

    Raises:
      UserError: if more steps were taken.
    """
    if train_steps < step:
        raise UserError(
            f'RunConfig.train_steps = {train_steps}: the run in {folder.path} has taken {step} steps. Set at least '
            f'{step}, or use another --model_dir, or --fresh to start over there.'
        )
    before = whole(run_json.read(folder).get('train_steps'))
    if before is None or before == train_steps:
        return None
    lines = [line for line in MetricsLog(folder.metrics).read().by_step('train') if line['step'] == step]
    last_rate = number(lines[0].get('learning_rate')) if lines else None
    return Change(step, before, train_steps, last_rate, rate(step) if step < train_steps else None)


def changes(folder: RunFolder, new: Change | None) -> list[dict[str, Any]]:
    """The records of all changes, for `run.json`: those that it has, and a new one."""
    known = run_json.read(folder).get('train_steps_changes')
    return [*(known if isinstance(known, list) else ()), *([dataclasses.asdict(new)] if new else ())]
