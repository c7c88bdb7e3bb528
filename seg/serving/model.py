"""A model that predicts: the checkpoint of a run, or an exported file in its own runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from seg.drawing.palette import class_palette, instance_palette
from seg.engine import base
from seg.errors import UserError, as_user_error, shown
from seg.prediction.canvas import Size
from seg.prediction.class_maps import ClassMaps
from seg.prediction.instances import InstanceOutputs
from seg.prediction.outputs import Outputs
from seg.prediction.settings import PredictSettings
from seg.structures import DatasetInfo

if TYPE_CHECKING:
    from seg.executor.executor import Executor
    from seg.export.model_file import ModelFile

CHECKPOINT = 'checkpoint'  # The format of what is no exported file.


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that predicts, and what prediction needs to know of it.

    Attributes:
      path: the checkpoint or the exported file.
      format: `CHECKPOINT`, or the file's format and quantization.
      info: facts about the training data.
      canvas: (height, width) that images are placed on.
      batch: the only size of a batch; None for any.
      predictor: the model.
      make_writer: returns the writer of its predictions; arguments as for `writer`.
    """

    path: str
    format: str
    info: DatasetInfo
    canvas: Size
    batch: int | None
    predictor: base.Predictor
    make_writer: Callable[[str, PredictSettings, bool], Outputs]

    def writer(self, folder: str, settings: PredictSettings, probabilities: bool = False) -> Outputs:
        """Returns a writer of predictions; nothing is written before it is entered as a context.

        Args:
          folder: the output folder.
          settings: settings of `--mode=predict`.
          probabilities: whether to write the probability of every class.

        Raises:
          UserError: for a setting that does not fit the model.
        """
        return self.make_writer(folder, settings, probabilities)


def of_run(executor: Executor, task: Any, info: DatasetInfo, checkpoint: str) -> Model:
    """Sets the weights of a task from a checkpoint of its run.

    Args:
      executor: the run's executor.
      task: its task.
      info: facts about its training data.
      checkpoint: `latest`, `best` or a path.
    """
    predictor = executor.predictor(checkpoint)
    return Model(
        predictor.checkpoint,
        CHECKPOINT,
        info,
        task.canvas(info.max_size),
        None,
        predictor,
        lambda *arguments: task_writer(task, info, *arguments),
    )


def task_writer(task: Any, info: DatasetInfo, folder: str, settings: PredictSettings, probabilities: bool) -> Outputs:
    """Returns the writer that a task makes; other arguments as for `Model.writer`.

    Raises:
      UserError: if it makes none, or for a setting that does not fit the task.
    """
    call = f'experiment.task: {type(task).__name__}.writer'
    with as_user_error(call, task):
        writer = task.writer(folder, info, settings, probabilities)
    if not isinstance(writer, Outputs):
        raise UserError(f'{call} returned {shown(writer)}; expected a seg.prediction.outputs.Outputs.')
    return writer


def of_file(file: ModelFile) -> Model:
    """A model from an exported file."""
    about = file.description
    info = DatasetInfo(
        about.data,
        about.class_names,
        num_examples=None,
        max_size=about.canvas,
        ignore_label=about.ignore_label,
        original_ids=about.original_ids,
        colors=about.colors,
    )
    form = about.format if about.quantize == 'none' else f'{about.format}, {about.quantize}'
    make = _class_maps if about.task == 'semantic' else _instances
    return Model(
        file.path,
        form,
        info,
        about.canvas,
        about.batch,
        FilePredictor(file),
        lambda *arguments: make(file, info, *arguments),
    )


def _class_maps(
    file: ModelFile, info: DatasetInfo, folder: str, settings: PredictSettings, probabilities: bool
) -> ClassMaps:
    kept = 'probabilities' in file.description.outputs
    for asked, flag in (
        (probabilities, '--probabilities'),
        (settings.large_pictures == 'tile', "predict.large_pictures = 'tile'"),
    ):
        if asked and not kept:
            raise UserError(
                f'{flag} needs the probability of every class, and --model={file.path} has none: export it with '
                '--probabilities, or remove the setting.'
            )
    colors = info.colors or class_palette(info.class_names)
    return ClassMaps(folder, info, colors, settings, probabilities, classes_only=not kept)


def _instances(
    file: ModelFile, info: DatasetInfo, folder: str, settings: PredictSettings, probabilities: bool
) -> InstanceOutputs:
    for asked, flag in (
        (probabilities, '--probabilities'),
        (settings.large_pictures == 'tile', "predict.large_pictures = 'tile'"),
    ):
        if asked:
            raise UserError(f'{flag} is for class maps, and --model={file.path} detects instances. Remove it.')
    colors = info.colors or instance_palette(info.num_classes)
    return InstanceOutputs(folder, info, colors, settings, file.description.fills_canvas)


class FilePredictor(base.Predictor):
    """An exported file as an engine's predictor."""

    replicas = 1

    def __init__(self, file: ModelFile):
        self.checkpoint, self._file = file.path, file

    def __call__(self, batch: Mapping[str, np.ndarray]) -> base.Predictions:
        return _FilePredictions(self._file.run(batch['image'].astype(np.uint8), batch['size']))


class _FilePredictions(base.Predictions):
    def __init__(self, values: Mapping[str, np.ndarray]):
        self._values = values

    def get(self, key: str, index: int, size: Size | None = None) -> np.ndarray:
        found = self._values[key][index]
        return found if size is None else found[: size[0], : size[1]]
