"""`--mode=eval`."""

from __future__ import annotations

from typing import Any

from seg.errors import UserError
from seg.modes.base import CHECKPOINT, WEIGHTS, Call
from seg.modes.predicting import MODEL, Predicting


class Eval(Predicting):
    """Evaluates a checkpoint of a run, or an exported file, on the evaluation data."""

    name = 'eval'
    aliases = ('evaluate', 'evaluation', 'test', 'val', 'validate')
    flags = (MODEL, CHECKPOINT, WEIGHTS)
    needs_eval_data = True

    def __init__(self, call: Call):
        weights, model = call.flags['weights'], call.flags['model']
        if weights not in ('', 'ema', 'raw'):
            raise UserError(f'--weights={weights}: expected ema or raw.')
        if weights and model is not None:
            raise UserError(f'--weights={weights} and --model={model}: the file has its own. Leave one of them out.')
        super().__init__(call)
        if self.alone:
            raise UserError(
                f'--model={call.flags["model"]}: give the --model_dir of its run, or a --gin_file, for the evaluation '
                'data and the metrics.'
            )

    def check_weights(self) -> None:
        if self.file is None:
            self.experiment.executor.load_model(self.call.flags['checkpoint'], self.call.flags['weights'])

    def execute(self) -> dict[str, Any]:
        from seg.run import settings

        experiment, changed = self.experiment, settings.changed_for_evaluation(self.folder)
        source = experiment.task.evaluation_input(experiment.eval_data, experiment.run_config.evaluation_batch_size)
        if self.file is None:
            weights = self.call.flags['weights']
            other = ['--weights = raw'] if weights == 'raw' else []
            return experiment.executor.evaluate(source, self.call.flags['checkpoint'], [*changed, *other], weights)
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
