"""`--mode=train_and_eval`, the default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seg.modes.base import FRESH, TOPOLOGY
from seg.modes.training import Training

if TYPE_CHECKING:
    from seg.structures import Input


class TrainAndEval(Training):
    """Trains, evaluates every RunConfig.eval_every steps and at the end, and keeps the best checkpoint."""

    name = 'train_and_eval'
    aliases = ('train_and_evaluate', 'train_eval', 'train_and_val')
    flags = (FRESH, TOPOLOGY)
    needs_eval_data = True

    def evaluated(self) -> Any:
        return self.experiment.eval_data

    def inputs(self) -> tuple[Input, ...]:
        experiment, run = self.experiment, self.experiment.run_config
        return (
            experiment.task.training_input(experiment.train_data, run.batch_size),
            experiment.task.evaluation_input(experiment.eval_data, run.evaluation_batch_size),
        )

    def execute(self) -> dict[str, Any]:
        return self.experiment.executor.train_and_evaluate(*self._inputs)


MODE = TrainAndEval
