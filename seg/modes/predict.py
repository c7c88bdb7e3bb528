"""`--mode=predict`."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from seg.errors import UserError, as_user_error, shown
from seg.modes.base import CHECKPOINT, Call, ExperimentMode, Flag
from seg.prediction.settings import PredictSettings

if TYPE_CHECKING:
    from seg.experiment import Needs
    from seg.prediction.outputs import Outputs


class Predict(ExperimentMode):
    """Predicts images from files or the evaluation data, and writes the outputs of each."""

    name = 'predict'
    aliases = ('prediction', 'inference', 'infer', 'segment')
    flags = (
        CHECKPOINT,
        Flag(
            'input',
            flags.DEFINE_multi_string,
            [],
            'Images: a file, a folder, or a glob in quotes; several are separated by commas or given by several '
            '--input. Default: the evaluation data.',
        ),
        Flag(
            'output',
            flags.DEFINE_string,
            None,
            'Folder to write to. Default: in model_dir, predictions/input, or predictions/<split>.',
        ),
        Flag(
            'probabilities',
            flags.DEFINE_bool,
            False,
            'Also writes the probabilities of all classes, as .npz files.',
        ),
    )
    settings_type = PredictSettings

    def __init__(self, call: Call):
        """Loads the settings and finds the images.

        Raises:
          UserError: for a mistake in the settings, or an input that finds nothing.
        """
        from seg.prediction.sources import from_files

        super().__init__(call)
        inputs, self._output = call.flags['input'], call.flags['output']
        self._images = None  # None stands for the images of the evaluation data.
        if self._output is not None:
            self._output = os.path.expanduser(self._output)
        if inputs:
            self._output = self._output or self.folder.predictions('input')
            self._images = from_files(inputs, self._output)

    def needs(self) -> Needs:
        return dataclasses.replace(super().needs(), eval_data=self._images is None)

    def check_experiment(self) -> None:
        self._writer()  # Refuses settings that do not fit the task, and writes nothing yet.

    def check_weights(self) -> None:
        self.experiment.executor.predictor(self.call.flags['checkpoint'])

    def execute(self) -> dict[str, Any] | None:
        """Predicts in process 0, on its devices; the others wait for it and return None."""
        from seg.executor.agreement import together

        with together(self.engine):
            return self._predict() if self.engine.chief else None

    def _predict(self) -> dict[str, Any]:
        from seg.prediction import data_set, pipeline

        experiment = self.experiment
        info, images = experiment.info, self._images
        if images is None:
            info, images = experiment.eval_data.info, data_set.images(experiment.eval_data)
        outputs = self._writer()
        results = pipeline.predict(
            images,
            experiment.executor.predictor(self.call.flags['checkpoint']),
            outputs,
            size=experiment.task.canvas(info.max_size),
            batch_size=experiment.run_config.evaluation_batch_size,
            settings=self.settings,
        )
        logging.info('Predictions: %s', outputs.folder)
        return results

    def _writer(self) -> Outputs:
        from seg.prediction.outputs import Outputs

        experiment = self.experiment
        folder = self._output or self.folder.predictions(experiment.eval_data.info.name)
        task, call = experiment.task, f'experiment.task: {type(experiment.task).__name__}.writer'
        with as_user_error(call, task):
            writer = task.writer(folder, experiment.info, self.settings, self.call.flags['probabilities'])
        if not isinstance(writer, Outputs):
            raise UserError(f'{call} returned {shown(writer)}; expected a seg.prediction.outputs.Outputs.')
        return writer

    @classmethod
    def failure(cls, results: dict[str, Any] | None) -> str | None:
        from seg.prediction import pipeline

        return pipeline.summary(results) if results and results['failed'] else None


MODE = Predict
