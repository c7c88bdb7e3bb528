"""Which outputs a task's predictions get."""

from __future__ import annotations

from typing import Any

from seg.errors import UserError
from seg.prediction.class_maps import ClassMaps
from seg.prediction.objects import Objects
from seg.prediction.outputs import Outputs
from seg.prediction.settings import Predict
from seg.structures import DatasetInfo


def check(task: Any, settings: Predict, probabilities: bool) -> None:
    """Refuses what makes no sense for a task.

    Args:
      task: whose predictions are to be written.
      settings: of the mode.
      probabilities: whether class probabilities are asked for.

    Raises:
      UserError: for what is for class maps only, if the task finds objects.
    """
    if task.target != 'instances':
        return
    for asked, flag in (
        (probabilities, '--probabilities'),
        (settings.large_pictures == 'tile', "predict.large_pictures = 'tile'"),
    ):
        if asked:
            raise UserError(
                f'{flag} is for class maps, and this run finds objects: each has a score in detections.json, and a '
                'large picture is always scaled down, since windows would cut objects. Leave it out.'
            )


def outputs(task: Any, folder: str, info: DatasetInfo, settings: Predict, probabilities: bool) -> Outputs:
    """Makes the outputs that belong to a task.

    Args:
      task: with `target` ('label_map' or 'instances'), `colors` and, for instances, `fits_canvas`.
      folder: to write to.
      info: of the training data.
      settings: of the mode.
      probabilities: whether to write class probabilities.

    Raises:
      UserError: as `check` does, and for more classes than a class map can tell.
    """
    check(task, settings, probabilities)
    if task.target == 'instances':
        return Objects(folder, info, task.colors, settings, task.fits_canvas)
    return ClassMaps(folder, info, task.colors, settings, probabilities)
