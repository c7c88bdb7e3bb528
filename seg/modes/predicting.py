"""What the modes share that predict with the checkpoint of a run, or with an exported file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from seg.errors import UserError
from seg.modes.base import CHECKPOINT, ExperimentMode, Flag

if TYPE_CHECKING:
    from seg.experiment import Experiment
    from seg.prediction.settings import PredictSettings
    from seg.serving.model import Model

MODEL = Flag(
    'model',
    flags.DEFINE_string,
    None,
    'An exported file in place of a checkpoint: model.onnx, model.tflite, saved_model, or openvino/model.xml. '
    '--mode=benchmark_model takes several, separated by commas.',
)


class Predicting(ExperimentMode):
    """A mode that predicts.

    With `--model`, and neither gin files nor a model_dir, nothing is built: the file says all that is needed.

    Attributes:
      file: the exported file of `--model`, open; None without the flag.
      alone: whether there is nothing but that file.
    """

    file = None

    @property
    def alone(self) -> bool:
        call = self.call
        return call.flags['model'] is not None and not call.gin_files and call.model_dir is None

    def gin_files(self) -> Sequence[str]:
        return () if self.alone else super().gin_files()

    def open_files(self) -> None:
        path = self.call.flags['model']
        if path is not None:
            self.open(path, self.call.flags['checkpoint'])

    def open(self, path: str, checkpoint: str) -> None:
        """Opens the file of `--model`, and refuses a `--checkpoint` beside it.

        Raises:
          UserError: for a file that cannot be opened.
        """
        from seg.export.model_file import open_model

        if checkpoint != CHECKPOINT.default:
            raise UserError(
                f'--checkpoint={checkpoint} and --model={path}: the file has its own weights. Leave one of them out.'
            )
        self.file = open_model(path)

    def load_settings(self) -> str:
        if not self.alone:
            return super().load_settings()
        from seg import config, modes

        modes.load_parts(self.call.plugin_specs)
        config.parse([], self.call.gin_params)
        return os.path.dirname(os.path.abspath(os.path.expanduser(self.call.flags['model'])))

    def build(self) -> Experiment | None:
        if not self.alone:
            return super().build()
        from seg import config

        self.settings, self.experiment = self.read_settings(), None
        config.report_unused([])
        return None

    def validated(self) -> str:
        if self.file is None:
            return super().validated()
        about = self.file.description
        return f'{self.file.path}, {about.format}, {about.data}, {len(about.class_names)} classes'

    def check_weights(self) -> None:
        if self.file is None:
            self.experiment.executor.predictor(self.call.flags['checkpoint'])

    def model(self) -> Model:
        """The model: the exported file, or the run with the weights of a checkpoint."""
        from seg.serving import model

        if self.file is not None:
            return model.of_file(self.file)
        experiment = self.experiment
        return model.of_run(experiment.executor, experiment.task, experiment.info, self.call.flags['checkpoint'])


def predict_settings() -> PredictSettings:
    """The settings of `--mode=predict`, which also hold for other modes that predict."""
    from seg import config

    return config.injected('predict')()
