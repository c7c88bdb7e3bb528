"""The files of a `model_dir` that describe the run: settings, data, versions, and the lock on it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import glob
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from seg import config
from seg.errors import UserError
from seg.executor import hardware as hardware_module
from seg.executor.run_config import RunConfig
from seg.files import write_json, write_text, writing
from seg.structures import ClassHistogram, DatasetInfo, Hardware

# All that a run writes; --fresh removes these and nothing else.
_FILES = (
    'ckpt-*',
    'best',
    'train',
    'eval',
    'predictions',
    'metrics.jsonl',
    'results.json',
    'config.gin',
    'operative_config.gin',
    'run.json',
    'dataset_info.json',
    'model_info.txt',
    'error.log',
    'report.html',
)

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


@contextlib.contextmanager
def locked(model_dir: str) -> Iterator[None]:
    """Holds the directory, so that no second process trains in it.

    Raises:
      UserError: if another process holds it, or it cannot be made.
    """
    try:
        os.makedirs(model_dir, exist_ok=True)
        lock = open(os.path.join(model_dir, '.lock'), 'a+')  # Held open for as long as the lock.
    except OSError as error:
        reason = 'it is a file' if os.path.isfile(model_dir) else error.strerror
        raise UserError(f'--model_dir={model_dir}: cannot write there: {reason}. Choose another directory.') from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise UserError(
                f'--model_dir={model_dir}: process {lock.read().strip() or "unknown"} is training there. Wait for it, '
                'stop it, or choose another --model_dir.'
            ) from None
        with writing(lock.name):
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        yield


def clear(model_dir: str) -> None:
    """Removes what an earlier run wrote, and nothing else."""
    removed = [path for pattern in _FILES for path in glob.glob(os.path.join(glob.escape(model_dir), pattern))]
    for path in removed:
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    if removed:
        logging.info('Removed the earlier run from %s.', model_dir)


def write_settings(
    model_dir: str, *, mode: str, hardware: Hardware, run: RunConfig, command: Sequence[str], parts: Mapping[str, Any]
) -> None:
    """Checks that an earlier run in the directory may go on with the parsed settings, then keeps them there.

    Args:
      model_dir: the run.
      mode: of the run.
      hardware: where it runs.
      run: its length and batch size.
      command: the command line that this process runs; empty for none.
      parts: of the model, Keras layers by name.

    Raises:
      UserError: if the directory holds a run with other training settings.
    """
    values = config.operative_values()
    training = {key: value for key, value in values.items() if not _is_free(key)}
    check_resumable(model_dir, training, config.diff)
    write_text(os.path.join(model_dir, 'config.gin'), config.snapshot())
    write_text(os.path.join(model_dir, 'operative_config.gin'), config.operative())
    write_json(
        os.path.join(model_dir, 'run.json'),
        {
            'mode': mode,
            'precision': hardware.precision,
            'strategy': type(hardware.strategy).__name__,
            'replicas': hardware.num_replicas,
            'global_batch': run.batch_size,
            'train_steps': run.train_steps,
            'best_metric': run.best_metric,
            'jit_compile': hardware.jit_compile,
            'deterministic': hardware.deterministic,
            'command': list(command),
            'versions': hardware_module.describe(),
            'training': training,
            'free': {key: value for key, value in values.items() if key not in training},
        },
    )
    write_text(os.path.join(model_dir, 'model_info.txt'), model_info(parts))


def changed_for_evaluation(model_dir: str) -> list[str]:
    """The parsed settings that make an evaluation another one than those of the run's training, as `key = value`.

    To be called once everything is built. Which data are evaluated, and in which batches, is no such setting.
    """
    run = _read(os.path.join(model_dir, 'run.json'))
    before = {**run.get('training', {}), **run.get('free', {})}
    return [
        f'{key} = {value}'
        for key, value in sorted(config.operative_values().items())
        if before.get(key, value) != value and not re.match(r'(.*/)?(datasets|RunConfig|experiment)\.', key)
    ]


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


def write_dataset_info(model_dir: str, info: DatasetInfo, histogram: ClassHistogram | None) -> None:
    """Keeps what predict and eval have to know of the training data; the histogram only where a loss asked for it."""
    counts = {} if histogram is None else {'class_histogram': [np.asarray(counts).tolist() for counts in histogram]}
    write_json(_dataset_info_path(model_dir), dataclasses.asdict(info) | counts)


def read_dataset_info(model_dir: str) -> DatasetInfo:
    """Reads what `write_dataset_info` wrote.

    Raises:
      UserError: if there is none, or it is damaged.
    """
    path = _dataset_info_path(model_dir)
    values = _read(path)
    if not values:
        raise UserError(f'{model_dir} holds no dataset_info.json: train there first, or check --model_dir.')
    try:
        fields = {field.name: values[field.name] for field in dataclasses.fields(DatasetInfo)}
        for name in ('class_names', 'max_size', 'original_ids'):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        return DatasetInfo(**fields | {'colors': tuple(map(tuple, fields['colors']))})
    except (KeyError, TypeError) as error:
        raise _damaged(path, f'{type(error).__name__}: {error}') from None


def read_class_histogram(model_dir: str, info: DatasetInfo) -> ClassHistogram | None:
    """Pixels per class that the run has counted at its start; None if it has not, or there is no run to go on with."""
    values = _read(_dataset_info_path(model_dir))
    same = (values.get('name'), values.get('class_names')) == (info.name, list(info.class_names))
    if not (same and 'class_histogram' in values and _has_checkpoint(model_dir)):
        return None
    return ClassHistogram(*(np.asarray(counts, np.int64) for counts in values['class_histogram']))


def check_resumable(model_dir: str, values: Mapping[str, str], difference: Callable[[dict, dict], str]) -> None:
    """Refuses to go on with a run under settings that would have trained it differently.

    Args:
      model_dir: the run.
      values: settings that shape the training, by name.
      difference: describes how two such sets differ; empty if they do not.

    Raises:
      UserError: with the difference.
    """
    before = _read(os.path.join(model_dir, 'run.json')).get('training')
    if before is None or not _has_checkpoint(model_dir):
        return
    changes = difference(before, dict(values))
    if changes:
        raise UserError(
            f'{model_dir} holds a run with other settings, so it cannot go on with these:\n{changes}\n'
            'Use the settings of that run, another --model_dir, or --fresh to start over there.'
        )


def _has_checkpoint(model_dir: str) -> bool:
    """Whether there was a run, be its checkpoints set aside as damaged."""
    found = (glob.glob(os.path.join(glob.escape(model_dir), f'ckpt-*.safetensors{end}')) for end in ('', '.damaged'))
    return any(found)


def _dataset_info_path(model_dir: str) -> str:
    return os.path.join(model_dir, 'dataset_info.json')


def _read(path: str) -> dict[str, Any]:
    if not os.path.exists(path):
        return {}
    with open(path, encoding='utf-8') as file:
        try:
            values = json.load(file)
        except ValueError as error:  # No JSON, or no UTF-8.
            raise _damaged(path, str(error)) from None
    if not isinstance(values, dict):
        raise _damaged(path, f'it holds a {type(values).__name__}')
    return values


def _damaged(path: str, reason: str) -> UserError:
    return UserError(f'{path} is damaged: {reason}. Remove it; training writes it again when it starts.')
