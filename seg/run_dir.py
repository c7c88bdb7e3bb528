"""The files of a `model_dir` that describe the run: settings, data, versions, and the lock on it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from seg.errors import UserError
from seg.executor.records import write_json
from seg.structures import ClassHistogram, DatasetInfo

# All that a run writes; --fresh removes these and nothing else.
_FILES = ('ckpt-*', 'best', 'train', 'eval', 'predictions', 'metrics.jsonl', 'results.json', 'config.gin',
          'operative_config.gin', 'run.json', 'dataset_info.json', 'model_info.txt', 'error.log')


@contextlib.contextmanager
def locked(model_dir: str) -> Iterator[None]:
    """Holds the directory, so that no second process trains in it.

    Raises:
      UserError: if another process holds it, or it cannot be made.
    """
    try:
        os.makedirs(model_dir, exist_ok=True)
        lock = open(os.path.join(model_dir, '.lock'), 'a+')  # noqa: SIM115: held open for as long as the lock
    except OSError as error:
        raise UserError(f'--model_dir={model_dir}: cannot write there: {error.strerror}. Choose another directory.') from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise UserError(
                f'--model_dir={model_dir}: process {lock.read().strip() or "unknown"} is training there. Wait for it, stop '
                'it, or choose another --model_dir.'
            ) from None
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
        logging.info('--fresh: removed the earlier run from %s.', model_dir)


def write_dataset_info(model_dir: str, info: DatasetInfo) -> None:
    """Keeps what predict and eval have to know of the training data."""
    path = _dataset_info_path(model_dir)
    kept = {key: value for key, value in _read(path).items() if key == 'class_histogram'}
    write_json(path, dataclasses.asdict(info) | kept)


def read_dataset_info(model_dir: str) -> DatasetInfo:
    """Reads what `write_dataset_info` wrote.

    Raises:
      UserError: if there is none.
    """
    values = _read(_dataset_info_path(model_dir))
    if not values:
        raise UserError(f'{model_dir} holds no dataset_info.json: train there first, or check --model_dir.')
    fields = {field.name: values[field.name] for field in dataclasses.fields(DatasetInfo)}
    for name in ('class_names', 'max_size', 'original_ids'):
        fields[name] = None if fields[name] is None else tuple(fields[name])
    return DatasetInfo(**fields | {'colors': tuple(map(tuple, fields['colors']))})


def class_histogram(model_dir: str, make_dataset: Callable[[], Any]) -> ClassHistogram:
    """Pixels per class of the training data; counted once per run, then read from the directory."""
    path = _dataset_info_path(model_dir)
    values = _read(path)
    if 'class_histogram' in values:
        return ClassHistogram(*(np.asarray(counts, np.int64) for counts in values['class_histogram']))
    histogram = make_dataset().class_histogram()
    os.makedirs(model_dir, exist_ok=True)
    write_json(path, values | {'class_histogram': [np.asarray(counts).tolist() for counts in histogram]})
    return histogram


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
    if before is None or not glob.glob(os.path.join(glob.escape(model_dir), 'ckpt-*.safetensors')):
        return
    changes = difference(before, dict(values))
    if changes:
        raise UserError(
            f'{model_dir} holds a run with other settings, so it cannot go on with these:\n{changes}\n'
            'Use the settings of that run, another --model_dir, or --fresh to start over there.'
        )


def _dataset_info_path(model_dir: str) -> str:
    return os.path.join(model_dir, 'dataset_info.json')


def _read(path: str) -> dict[str, Any]:
    if not os.path.exists(path):
        return {}
    with open(path, encoding='utf-8') as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            raise UserError(f'{path} is damaged: {error}. Remove it; a run writes it again when it starts.') from None
