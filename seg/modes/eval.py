"""`--mode=eval`."""

from __future__ import annotations

from typing import Any

from seg.errors import UserError
from seg.modes.base import CHECKPOINT, Call
from seg.modes.predicting import MODEL, Predicting


class Eval(Predicting):
    """Evaluates a checkpoint of a run, or an exported file, on the evaluation data."""

    name = 'eval'
    aliases = ('evaluate', 'evaluation', 'test', 'val', 'validate')
    flags = (MODEL, CHECKPOINT)
    needs_eval_data = True

    def __init__(self, call: Call):
        super().__init__(call)
        if self.alone:
            raise UserError(
                f'--model={call.flags["model"]}: give the --model_dir of its run, or a --gin_file, for the evaluation '
                'data and the metrics.'
            )

    def execute(self) -> dict[str, Any]:
        from seg.run import settings

        experiment, changed = self.experiment, settings.changed_for_evaluation(self.folder)
        source = experiment.task.evaluation_input(experiment.eval_data, experiment.run_config.evaluation_batch_size)
        if self.file is None:
            return experiment.executor.evaluate(source, self.call.flags['checkpoint'], changed)
        from seg.serving.evaluation import FileEvaluation

        about = self.file.description
        return experiment.executor.evaluate_file(
            source,
            FileEvaluation(self.file, experiment.task.class_names),
            path=self.file.path,
            step=about.step,
            averages=about.weights == 'ema',
            settings=[*changed, f'--model = {about.format}, quantize {about.quantize}'],
        )


MODE = Eval
