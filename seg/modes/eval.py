"""`--mode=eval`."""

from __future__ import annotations

from typing import Any

from seg.modes.base import CHECKPOINT, ExperimentMode


class Eval(ExperimentMode):
    """Evaluates a checkpoint of a run on the evaluation data."""

    name = 'eval'
    aliases = ('evaluate', 'evaluation', 'test', 'val', 'validate')
    flags = (CHECKPOINT,)
    needs_eval_data = True

    def execute(self) -> dict[str, Any]:
        from seg.run import settings

        experiment = self.experiment
        return experiment.executor.evaluate(
            experiment.task.evaluation_input(experiment.eval_data, experiment.run_config.evaluation_batch_size),
            self.call.flags['checkpoint'],
            settings.changed_for_evaluation(self.folder),
        )

    def check_weights(self) -> None:
        self.experiment.executor.predictor(self.call.flags['checkpoint'])


MODE = Eval
