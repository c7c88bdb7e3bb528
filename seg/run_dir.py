"""The files of a `model_dir` that describe the run: settings, data, versions, and the lock on it."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from seg import config, files
from seg import engine as engines
from seg.engine.base import Engine
from seg.errors import UserError, shown
from seg.executor.run_config import RunConfig
from seg.files import write_json, write_text

# All that a run writes; --fresh removes these, their temporary files, and nothing else.
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
def locked(model_dir: str, keep: bool = True) -> Iterator[None]:
    """Holds the directory, so that no second process trains in it, and tries whether it can be written to.

    Args:
      model_dir: made where it is not there.
      keep: whether what this has made stays; not for a look that runs nothing.

    Raises:
      UserError: if another process holds it, or nothing can be written there.
    """
    path = os.path.join(model_dir, '.lock')
    made, held = ([] if keep else _missing(path)), False
    try:
        try:
            os.makedirs(model_dir, exist_ok=True)
            lock = open(path, 'ab+', buffering=0)  # Held open for as long as the lock.
        except OSError as error:
            raise _unwritable(model_dir, error) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                holder = lock.read(20).decode('ascii', 'replace').strip() or 'unknown'
                raise UserError(
                    f'--model_dir={model_dir}: process {holder} is training there. Wait for it, stop it, or choose '
                    'another --model_dir.'
                ) from None
            held = True
            try:
                lock.truncate(0)
                lock.write(str(os.getpid()).encode())
            except OSError as error:
                raise _unwritable(model_dir, error) from None
            yield
    finally:
        for new in made:
            with contextlib.suppress(OSError):
                if new != path:
                    os.rmdir(new)
                elif held:
                    os.remove(new)


def _missing(path: str) -> list[str]:
    """The file and those of its folders that do not exist yet, innermost first."""
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _unwritable(model_dir: str, error: OSError) -> UserError:
    reason = 'it is a file' if os.path.isfile(model_dir) else error.strerror
    return UserError(f'--model_dir={model_dir}: cannot write there: {reason}. Choose another directory, or free space.')


def clear(model_dir: str) -> None:
    """Removes what an earlier run wrote, and nothing else."""
    patterns = (*_FILES, *(f'{name}.tmp-*' for name in _FILES))
    removed = {path for pattern in patterns for path in glob.glob(os.path.join(glob.escape(model_dir), pattern))}
    for path in removed:
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
    if removed:
        logging.info('Removed the earlier run from %s.', model_dir)


def check_settings(model_dir: str) -> None:
    """Refuses to go on with a run under settings that would have trained it differently.

    To be called once everything is built.

    Raises:
      UserError: with the difference; or if `run.json` is damaged.
    """
    run = _read_settings(model_dir)
    if 'training' not in run or not has_checkpoint(model_dir):
        return
    training = {key: value for key, value in config.operative_values().items() if not _is_free(key)}
    if changes := config.diff(run['training'], training):
        raise UserError(
            f'{model_dir} holds a run with other settings, so it cannot go on with these:\n{changes}\n'
            'Use the settings of that run, another --model_dir, or --fresh to start over there.'
        )


def write_settings(
    model_dir: str, *, mode: str, engine: Engine, run: RunConfig, command: Sequence[str], parts: Mapping[str, Any]
) -> None:
    """Keeps the parsed settings in the directory.

    Args:
      model_dir: the run.
      mode: of the run.
      engine: where it runs.
      run: its length and batch size.
      command: the command line that this process runs; empty for none.
      parts: of the model, Keras layers by name.
    """
    values = config.operative_values()
    write_text(os.path.join(model_dir, 'config.gin'), config.snapshot())
    write_text(os.path.join(model_dir, 'operative_config.gin'), config.operative())
    write_json(
        _run_path(model_dir),
        {
            'mode': mode,
            **engine.describe(),
            'global_batch': run.batch_size,
            'train_steps': run.train_steps,
            'best_metric': run.best_metric,
            'command': list(command),
            'versions': engines.describe(),
            'training': {key: value for key, value in values.items() if not _is_free(key)},
            'free': {key: value for key, value in values.items() if _is_free(key)},
        },
    )
    write_text(os.path.join(model_dir, 'model_info.txt'), model_info(parts))


def changed_for_evaluation(model_dir: str) -> list[str]:
    """The parsed settings that make an evaluation another one than those of the run's training, as `key = value`.

    To be called once everything is built. Which data are evaluated, and in which batches, is no such setting.

    Raises:
      UserError: if `run.json` is damaged.
    """
    run = _read_settings(model_dir)
    before = {**run.get('training', {}), **run.get('free', {})}
    return [
        f'{key} = {value}'
        for key, value in sorted(config.operative_values().items())
        if before.get(key, value) != value and not re.match(r'(.*/)?(datasets|RunConfig|experiment)\.', key)
    ]


def has_checkpoint(model_dir: str) -> bool:
    """Whether a run has saved something there, even if it is damaged by now."""
    patterns = ('ckpt-*.safetensors', 'ckpt-*.safetensors.damaged')
    return any(glob.glob(os.path.join(glob.escape(model_dir), pattern)) for pattern in patterns)


def _read_settings(model_dir: str) -> dict[str, Any]:
    """`run.json`, whose `training` and `free` are texts by name; empty where there is none."""
    path = _run_path(model_dir)
    if not os.path.exists(path):
        return {}
    remedy = 'Remove the file; the same training command writes it again when it starts.'
    record = files.read_object(path, remedy)
    for key in ('training', 'free'):
        values = record.get(key, {})
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise UserError(f'{path!r}: {key} is {shown(values)}, expected an object of texts. {remedy}')
    return record


def _run_path(model_dir: str) -> str:
    return os.path.join(model_dir, 'run.json')


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
