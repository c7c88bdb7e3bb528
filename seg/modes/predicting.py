"""What the modes share that predict with the checkpoint of a run, or with an exported file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from seg.errors import UserError, shown
from seg.modes.base import CHECKPOINT, Call, ExperimentMode, Flag
from seg.run.folder import RunFolder

if TYPE_CHECKING:
    from seg.engine.base import Engine
    from seg.experiment import Experiment
    from seg.prediction.settings import PredictSettings
    from seg.serving.arrays import ImagePredictor
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


class _Loading(Predicting):
    """What `seg.load` does: builds a model, without data, and predicts nothing yet."""

    name = 'predict'  # Its settings.
    flags = (MODEL, CHECKPOINT)

    def read_settings(self) -> PredictSettings:
        return predict_settings()

    def execute(self) -> ImagePredictor:
        from seg.serving.arrays import ImagePredictor

        network = None if self.alone else getattr(self.experiment.task, 'model', None)
        return ImagePredictor(self.model(), self.settings, network)


def load(
    path: str | os.PathLike,
    checkpoint: str,
    gin_params: Sequence[str],
    plugin_specs: Sequence[str],
    engine: Engine | None,
) -> ImagePredictor:
    """Loads a model for prediction from Python; see `seg.load`."""
    from seg.engine import set_up
    from seg.export import model_file

    if not isinstance(path, str | os.PathLike):
        raise UserError(f'seg.load: path is {shown(path)}; expected the model_dir of a training, or an exported file.')
    path = os.path.expanduser(os.fspath(path))
    is_run = os.path.exists(RunFolder(path).config)
    if not is_run and not os.path.isfile(path):
        try:
            model_file.newest_version(path)
        except UserError:
            raise UserError(
                f'seg.load: no run was trained in {path!r} (it has no config.gin), and it is no exported file; '
                f'expected the model_dir of a training, or {model_file.EXPECTED}.'
            ) from None
    flags = {MODEL.name: None if is_run else path, CHECKPOINT.name: checkpoint}
    call = Call(
        model_dir=path if is_run else None,
        flags=flags,
        gin_params=gin_params,
        plugin_specs=plugin_specs,
        engine=lambda: engine or set_up(),
    )
    return _Loading(call).run()
