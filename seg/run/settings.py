"""The settings of a run: kept in its folder, and compared where the run goes on or is evaluated."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from seg import config, files
from seg.errors import UserError, shown
from seg.files import write_json, write_text
from seg.run.folder import RunFolder

# Settings that may differ when a run goes on; parts name theirs when they register.
_FREE = (
    'RunConfig.eval_batch_size',
    'RunConfig.iterations_per_loop',
    'RunConfig.save_checkpoints_steps',
    'RunConfig.keep_checkpoint_max',
    'RunConfig.eval_every',
    'RunConfig.best_metric',
    'RunConfig.num_pictures',
    'experiment.eval_data',
    'init.',
    'overfit.',
    'metrics.',
)


def check(folder: RunFolder) -> None:
    """Refuses to go on with a run under settings that would have trained it differently.

    Call it once everything is built: only then is it known which settings are used.

    Raises:
      UserError: with the difference; or if `run.json` is damaged.
    """
    run = _read(folder)
    if 'training' not in run or not folder.has_checkpoint():
        return
    training = {key: value for key, value in config.operative_values().items() if not _is_free(key)}
    if changes := config.diff(run['training'], training):
        raise UserError(
            f'{folder.path} holds a run with other settings, so it cannot go on with these:\n{changes}\n'
            'Use the settings of that run, another --model_dir, or --fresh to start over there.'
        )


def write(
    folder: RunFolder,
    *,
    mode: str,
    hardware: Mapping[str, Any],
    batch_size: int,
    train_steps: int,
    best_metric: str,
    command: Sequence[str],
    versions: Mapping[str, Any],
    parts: Mapping[str, Any],
) -> None:
    """Writes the parsed settings, `run.json` and `model_info.txt`.

    Args:
      folder: of the run.
      mode: of the run.
      hardware: as the engine describes itself.
      batch_size: global.
      train_steps: of the whole training.
      best_metric: that picks the best checkpoint.
      command: the command line that this process runs; empty for none.
      versions: of libraries and the machine.
      parts: of the model, Keras layers by name.
    """
    values = config.operative_values()
    write_text(folder.config, config.snapshot())
    write_text(folder.operative_config, config.operative())
    write_json(
        folder.run,
        {
            'mode': mode,
            **hardware,
            'global_batch': batch_size,
            'train_steps': train_steps,
            'best_metric': best_metric,
            'command': list(command),
            'versions': dict(versions),
            'training': {key: value for key, value in values.items() if not _is_free(key)},
            'free': {key: value for key, value in values.items() if _is_free(key)},
        },
    )
    write_text(folder.model_info, model_info(parts))


def changed_for_evaluation(folder: RunFolder) -> list[str]:
    """The parsed settings that make an evaluation another one than those of the run's training, as `key = value`.

    Call it once everything is built. Which data are evaluated, and in which batches, is no such setting.

    Raises:
      UserError: if `run.json` is damaged.
    """
    run = _read(folder)
    before = {**run.get('training', {}), **run.get('free', {})}
    return [
        f'{key} = {value}'
        for key, value in sorted(config.operative_values().items())
        if before.get(key, value) != value and not re.match(r'(.*/)?(datasets|RunConfig|experiment)\.', key)
    ]


def _read(folder: RunFolder) -> dict[str, Any]:
    """`run.json`, whose `training` and `free` are texts by name; empty where there is none."""
    if not os.path.exists(folder.run):
        return {}
    remedy = 'Remove the file; the same training command writes it again when it starts.'
    record = files.read_object(folder.run, remedy)
    for key in ('training', 'free'):
        values = record.get(key, {})
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise UserError(f'{folder.run!r}: {key} is {shown(values)}, expected an object of texts. {remedy}')
    return record


def _is_free(key: str) -> bool:
    return config.declared_free(key) or key.startswith(('eval/', *_FREE))


def model_info(parts: Mapping[str, Any]) -> str:
    """Variables of each part with shapes, and the number of weights."""
    lines, total = [], 0
    for name, part in parts.items():
        count = sum(math.prod(v.shape) for v in part.trainable_variables)
        total += count
        lines.append(f'{name}: {count:,} trainable weights')
        lines += [f'  {v.path} {tuple(v.shape)}{"" if v.trainable else " (not trained)"}' for v in part.variables]
    return '\n'.join([f'{total:,} trainable weights', *lines]) + '\n'
