"""The scores of a run: `results.json`, the files of `--mode=eval`, and `best/metrics.json`.

All of them hold `step` and `metrics`. The first two also hold `examples`, `train_seconds`, `compile_seconds` (the part
of `train_seconds` in which no step ran), `train_images_per_second` (of the other part), `eval_images_per_second`,
`weights` ('ema' or 'raw'), `checkpoint`, `config`, `split` and `details`, the paths of the evaluation's further files
in the run's folder, by their kinds. `results.json` has `best` and `early_stop` (`patience` and `best_step` of a
training that ended by `RunConfig.patience`, otherwise null), and a file of `--mode=eval` has `settings`, which lists
those that differ from the training's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from seg import files
from seg.errors import UnsavedError, UserError, shown
from seg.run.values import is_step


def write(path: str, results: Mapping[str, Any]) -> None:
    """Writes the file.

    Raises:
      UnsavedError: with the results, if it cannot be written.
    """
    try:
        files.write_json(path, results)
    except UserError as error:
        raise UnsavedError(str(error), results) from error


def read(path: str, remedy: str) -> dict[str, Any] | None:
    """Reads the file; None if there is none.

    Args:
      path: the file.
      remedy: last sentence of the message about a damaged file.

    Raises:
      UserError: if it is damaged.
    """
    if not os.path.exists(path):
        return None
    results = files.read_object(path, remedy)
    if not are_scores(results):
        step, metrics = (shown(results.get(key)) for key in ('step', 'metrics'))
        raise UserError(
            f'{path!r}: step is {step} and metrics is {metrics}, expected a whole number and an object. {remedy}'
        )
    return results


def are_scores(values: Mapping[str, Any]) -> bool:
    """Whether the content of a file has the step and the metrics of an evaluation."""
    return is_step(values.get('step')) and isinstance(values.get('metrics'), dict)
