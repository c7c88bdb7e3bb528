"""The settings of a run: stored in its folder, and compared when the run is resumed or evaluated."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from seg import config
from seg.errors import UserError
from seg.files import write_text
from seg.run import run_json
from seg.run.folder import RunFolder

# Settings that may differ when a run is resumed; parts name theirs at registration.
_FREE = (
    'RunConfig.eval_batch_size',
    'RunConfig.iterations_per_loop',
    'RunConfig.save_checkpoints_steps',
    'RunConfig.keep_checkpoint_max',
    'RunConfig.eval_every',
    'RunConfig.best_metric',
    'RunConfig.patience',
    'RunConfig.num_pictures',
    'experiment.eval_data',
    'experiment.class_colors',
    'init.',
    'overfit.',
    'metrics.',
)
_LENGTH = 'RunConfig.train_steps'  # May differ as well; `seg.run.length` tells and records what that changes.


def check_task(folder: RunFolder) -> None:
    """Refuses to resume a run of another task.

    Raises:
      UserError: with both tasks; or if `run.json` is damaged.
    """
    before = run_json.read(folder).get('training', {}).get('experiment.task')
    now = config.bound_values().get('experiment.task')
    if before and now and before != now and folder.has_checkpoint():
        raise UserError(
            f'{folder.path} holds a run of {before}, so it cannot continue with {now}. Give another --model_dir, or '
            '--fresh to start over there.'
        )


def check(folder: RunFolder) -> None:
    """Refuses to resume a run with other training settings.

    Call it once everything is built: only then is it known which settings are used.

    Raises:
      UserError: with the difference; or if `run.json` is damaged.
    """
    run = run_json.read(folder)
    if 'training' not in run or not folder.has_checkpoint():
        return
    training = {key: value for key, value in config.operative_values().items() if not _is_free(key)}
    if changes := diff(run['training'], training, lambda key: key == _LENGTH or config.declared_free(key)):
        raise UserError(
            f'{folder.path} holds a run with other settings, so it cannot continue with these:\n{changes}\n'
            'Use the settings of that run, another --model_dir, or --fresh to start over there.'
        )


def diff(old: Mapping[str, str], new: Mapping[str, str], free: Callable[[str], bool] = config.declared_free) -> str:
    """Compares two results of `config.operative_values`; returns a line per difference that is not free, or ''.

    A part that only one side has gives one line. If both have a part, and only one has one of its parameters, with the
    value None, that is not a difference: the parameter belongs to another version of the part, and is not set.
    """
    lines = {}
    parts = [{key.rpartition('.')[0] for key in side} for side in (old, new)]
    for key in sorted(old.keys() | new.keys()):
        part = key.rpartition('.')[0]
        if free(key) or old.get(key) == new.get(key):
            continue
        if part not in parts[1]:
            lines[part] = f'  {part}: no longer used'
        elif part not in parts[0]:
            lines[part] = f'  {part}: newly used'
        elif old.get(key, 'None') != new.get(key, 'None'):
            lines[key] = f'  {key}: {old.get(key, "(absent)")} -> {new.get(key, "(absent)")}'
    return '\n'.join(lines.values())


def write(folder: RunFolder, parts: Mapping[str, Any], **about: Any) -> None:
    """Writes the parsed settings, `run.json` and `model_info.txt`.

    Args:
      folder: folder of the run.
      parts: Keras layers of the model by name.
      **about: the other arguments of `run_json.write`.
    """
    values = config.operative_values()
    write_text(folder.config, config.snapshot())
    write_text(folder.operative_config, config.operative())
    run_json.write(
        folder,
        training={key: value for key, value in values.items() if not _is_free(key)},
        free={key: value for key, value in values.items() if _is_free(key)},
        **about,
    )
    write_text(folder.model_info, model_info(parts))


def changed_for_evaluation(folder: RunFolder) -> list[str]:
    """The parsed settings that make an evaluation differ from those of the training, as `key = value`.

    Call it once everything is built. Settings of the data and of batch sizes do not count.

    Raises:
      UserError: if `run.json` is damaged.
    """
    run = run_json.read(folder)
    before = {**run.get('training', {}), **run.get('free', {})}
    return [
        f'{key} = {value}'
        for key, value in sorted(config.operative_values().items())
        if before.get(key, value) != value and not re.match(r'(.*/)?(datasets|RunConfig|experiment)\.', key)
    ]


def _is_free(key: str) -> bool:
    return config.declared_free(key) or key.startswith((f'{config.EVAL_SCOPE}/', *_FREE))


def model_info(parts: Mapping[str, Any]) -> str:
    """Variables of each part with shapes, and the number of weights."""
    lines = [trainable(parts.values())]
    for name, part in parts.items():
        lines.append(f'{name}: {trainable([part])}')
        lines += [f'  {v.path} {tuple(v.shape)}{"" if v.trainable else " (not trained)"}' for v in part.variables]
    return '\n'.join(lines) + '\n'


def trainable(parts: Iterable[Any]) -> str:
    """What is trained: '7,512 trainable weights of 8,012, in 40 of 60 variables'. Others are frozen, or statistics."""
    parts = list(parts)
    every = [variable for part in parts for variable in part.variables]
    trained = [variable for part in parts for variable in part.trainable_variables]
    some, total = (sum(math.prod(variable.shape) for variable in each) for each in (trained, every))
    return f'{some:,} trainable weights of {total:,}, in {len(trained)} of {len(every)} variables'
