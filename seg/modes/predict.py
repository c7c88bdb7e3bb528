"""`--mode=predict`."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from seg.errors import UserError
from seg.modes.base import CHECKPOINT, Call, Flag
from seg.modes.export import one_device_in_float32
from seg.modes.predicting import MODEL, Predicting
from seg.prediction.settings import PredictSettings

if TYPE_CHECKING:
    from seg.experiment import Needs
    from seg.prediction.outputs import Outputs


_BATCH = 4  # Images of a batch for an exported file that takes any number, without the settings of a run.


class Predict(Predicting):
    """Predicts images from files or the evaluation data, and writes the outputs of each."""

    name = 'predict'
    aliases = ('prediction', 'inference', 'infer', 'segment')
    flags = (
        MODEL,
        CHECKPOINT,
        Flag(
            'runtime',
            flags.DEFINE_string,
            None,
            'onnx, openvino, tflite or saved_model: predicts a run in this runtime. The first call exports the run '
            'and checks the file on the evaluation data. Default: its own framework.',
        ),
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

        self._runtime = call.flags['runtime']
        if self._runtime is not None:
            _check_runtime(self._runtime, call.flags['model'])
        super().__init__(call)
        if self._runtime is not None:
            self.engine = one_device_in_float32(self.engine, f'--runtime={self._runtime}')
        inputs, self._output = call.flags['input'], call.flags['output']
        self._images = None  # None stands for the images of the evaluation data.
        if self._output is not None:
            self._output = os.path.expanduser(self._output)
        if inputs:
            self._output = self._output or self.folder.predictions('input')
            self._images = from_files(inputs, self._output)
        elif self.alone:
            raise UserError(
                f'--model={call.flags["model"]}: name the images with --input. To predict the evaluation data of a '
                'run, give its --model_dir or --gin_file as well.'
            )

    def needs(self) -> Needs:
        return dataclasses.replace(super().needs(), eval_data=self._images is None or self._runtime is not None)

    def prepare(self) -> None:
        self._writer()  # Refuses settings that do not fit the model, and writes nothing yet.

    def execute(self) -> dict[str, Any] | None:
        """Predicts in process 0, on its devices; the others wait for it and return None."""
        from seg.executor.agreement import together

        with together(self.engine):
            return self._predict() if self.engine.chief else None

    def _predict(self) -> dict[str, Any]:
        from seg.prediction import data_set, pipeline

        if self._runtime is not None:
            from seg.export import runtimes

            folder = os.path.join(self.folder.export, 'predict')
            self.file = runtimes.opened(self.experiment, self._runtime, self.call.flags['checkpoint'], folder)
        images, model, outputs = self._images, self.model(), self._writer()
        size = model.canvas
        if images is None:
            images = data_set.images(self.experiment.eval_data)
            if self.file is None:  # A checkpoint predicts on any canvas: the one of these images.
                size = self.experiment.task.canvas(self.experiment.eval_data.info.max_size)
        results = pipeline.predict(
            images,
            model.predictor,
            outputs,
            size=size,
            batch_size=model.batch or (_BATCH if self.alone else self.experiment.run_config.evaluation_batch_size),
            settings=self.settings,
        )
        logging.info('Predictions: %s; index.html shows them.', outputs.folder)
        return results

    def _writer(self) -> Outputs:
        from seg.serving import model

        folder = self._output or self.folder.predictions(self.experiment.eval_data.info.name)
        arguments = (folder, self.settings, self.call.flags['probabilities'])
        if self.file is not None:
            return model.of_file(self.file).writer(*arguments)
        return model.task_writer(self.experiment.task, self.experiment.info, *arguments)

    @classmethod
    def failure(cls, results: dict[str, Any] | None) -> str | None:
        from seg.prediction import pipeline

        return pipeline.summary(results) if results and results['failed'] else None


def _check_runtime(runtime: str, model: str | None) -> None:
    """Refuses a value of `--runtime` before anything is built.

    Raises:
      UserError: with the flag and its value.
    """
    from seg.export.formats import FORMATS

    if runtime not in FORMATS:
        raise UserError(f'--runtime={runtime}: expected one of {", ".join(FORMATS)}.')
    if model is not None:
        raise UserError(f'--runtime={runtime} is for a run, and --model={model} has its own. Leave one of them out.')
    FORMATS[runtime].check_installed(f'--runtime={runtime}')


MODE = Predict
