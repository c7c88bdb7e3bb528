"""`--runtime` of `--mode=predict`: a run's model in another runtime, exported at the first call and kept."""

from __future__ import annotations

import os

from absl import logging

from seg.errors import UserError
from seg.export import exporting
from seg.export.model_file import ModelFile, open_model

_IMAGES = 8  # Images of the evaluation data that the check runs.


def opened(experiment, runtime: str, checkpoint: str, folder: str) -> ModelFile:
    """The run's model as an exported file. One that is there is used if it has the weights of the checkpoint.

    Args:
      experiment: with evaluation data, for the check.
      runtime: name of the format.
      checkpoint: `latest`, `best` or a path.
      folder: where the file is kept.

    Raises:
      UserError: if the file cannot be made, or does not find what the checkpoint finds.
    """
    task = experiment.task
    request = exporting.Request(
        formats=(runtime,),
        output=folder,
        quantize='none',
        canvas=tuple(task.canvas(experiment.eval_data.info.max_size)),
        batch=None,
        probabilities=exporting.kind_of(task) == 'semantic',
        tolerance=None,
        force=False,
        images=_IMAGES,
        raw_heads=False,
    )
    exporting.check_request(request, task)
    path = os.path.join(folder, request.format(runtime).path)
    found, averages = experiment.executor.load_model(checkpoint)
    # Of a run that was started over, a checkpoint may have the same step.
    if os.path.exists(path) and os.path.getmtime(path) > os.path.getmtime(found.path):
        file = open_model(path)
        if (file.description.step, file.description.canvas) == (found.step, request.canvas):
            logging.info('Predicting with %s, an earlier export of this checkpoint.', path)
            return file
    results = exporting.export(experiment, request, found, averages)
    if not results['written']:
        raise UserError(f'--runtime={runtime}: {results["faults"][runtime]}. Leave out --runtime.')
    return open_model(path)
