"""`dataset_info.json` in a run's directory: facts about the training data for evaluation and prediction."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from seg.errors import UserError, shown
from seg.files import read_object, write_json
from seg.run.folder import RunFolder
from seg.structures import ClassHistogram, DatasetInfo

_REMEDY = 'Remove the file; the same training command writes it again when it starts.'
_MOST_PIXELS = 2**30  # Limit of `max_size`: a larger canvas fits in no memory.


def write(folder: RunFolder, info: DatasetInfo, histogram: ClassHistogram | None) -> None:
    """Writes the file; `histogram` is None unless a loss needs it."""
    counts = {} if histogram is None else {'class_histogram': [np.asarray(counts).tolist() for counts in histogram]}
    write_json(folder.dataset_info, dataclasses.asdict(info) | counts)


def read(folder: RunFolder) -> DatasetInfo:
    """Reads what `write` wrote.

    Raises:
      UserError: if there is none, or it is damaged: with the file, the key and its value.
    """
    if not os.path.exists(folder.dataset_info):
        raise UserError(f'{folder.path} holds no dataset_info.json: train there first, or check --model_dir.')
    return _checked(folder.dataset_info, read_object(folder.dataset_info, _REMEDY))


def read_class_histogram(folder: RunFolder, info: DatasetInfo) -> ClassHistogram | None:
    """Reads the pixels per class that the run counted at its start; None if it did not, or for other data.

    Raises:
      UserError: if the file is damaged.
    """
    path = folder.dataset_info
    if not os.path.exists(path):
        return None
    values = read_object(path, _REMEDY)
    same = (values.get('name'), values.get('class_names')) == (info.name, list(info.class_names))
    if not same or 'class_histogram' not in values:
        return None
    counts, k = values['class_histogram'], info.num_classes
    if not _are_counts(counts, k):
        raise _wrong(path, 'class_histogram', counts, f'two lists of {k} counts')
    return ClassHistogram(*(np.asarray(each, np.int64) for each in counts))


def read_known(folder: RunFolder) -> dict[str, Any]:
    """Reads the valid JSON values, and omits the others; empty if there is no file.

    Raises:
      UserError: if it holds no JSON object.
    """
    if not os.path.exists(folder.dataset_info):
        return {}
    values = read_object(folder.dataset_info, _REMEDY)
    known = {key: values[key] for key, (_, fits) in _tests(values).items() if key in values and fits}
    if _are_counts(counts := values.get('class_histogram'), len(known.get('class_names', ()))):
        known['class_histogram'] = counts
    return known


def _checked(path: str, values: dict[str, Any]) -> DatasetInfo:
    defaults = {f.name: f.default for f in dataclasses.fields(DatasetInfo) if f.default is not dataclasses.MISSING}
    values = defaults | values
    for key, (expected, fits) in _tests(values).items():
        if key not in values:
            raise UserError(f'{path!r} has no {key!r}, expected {expected}. {_REMEDY}')
        if not fits:
            raise _wrong(path, key, values[key], expected)
    ids = values['original_ids']
    return DatasetInfo(
        name=values['name'],
        class_names=tuple(values['class_names']),
        num_examples=values['num_examples'],
        max_size=tuple(values['max_size']),
        ignore_label=values['ignore_label'],
        original_ids=None if ids is None else tuple(ids),
        colors=tuple(map(tuple, values['colors'] or ())),
    )


def _tests(values: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """The valid values of each key: the expectation as text, and whether the value meets it."""
    name, names, number, size = (values.get(key) for key in ('name', 'class_names', 'num_examples', 'max_size'))
    ignored, ids, colors = (values.get(key) for key in ('ignore_label', 'original_ids', 'colors'))
    k = len(names) if isinstance(names, list) else 0
    return {
        'name': ('a string', isinstance(name, str)),
        'class_names': ('a list of strings', _is_list(names, k, str)),
        'num_examples': ('a whole number, or null', number is None or (type(number) is int and number >= 0)),
        'max_size': (
            f'[height, width] in pixels, at most {_MOST_PIXELS:,} per image',
            _is_list(size, 2, int) and min(size) > 0 and size[0] * size[1] <= _MOST_PIXELS,
        ),
        'ignore_label': ('a whole number', type(ignored) is int and abs(ignored) < 2**31),
        'original_ids': (f'{k} whole numbers, or null', ids is None or _is_list(ids, k, int)),
        'colors': (
            f'{k} lists of 3 numbers from 0 to 255, or none',
            not colors or (_is_list(colors, k) and all(map(_is_color, colors))),
        ),
    }


def _are_counts(value: Any, classes: int) -> bool:
    return _is_list(value, 2) and all(_is_list(each, classes, int) and min(each, default=0) >= 0 for each in value)


def _is_list(value: Any, length: int, kind: type = list) -> bool:
    """Whether a JSON value is a list of the given length and type; true and false are not numbers."""
    in_range = lambda item: kind is not int or abs(item) < 2**63  # noqa: E731
    return isinstance(value, list) and len(value) == length and all(type(v) is kind and in_range(v) for v in value)


def _is_color(value: Any) -> bool:
    return _is_list(value, 3, int) and all(0 <= level <= 255 for level in value)


def _wrong(path: str, key: str, value: Any, expected: str) -> UserError:
    return UserError(f'{path!r}: {key} is {shown(value)}, expected {expected}. {_REMEDY}')
