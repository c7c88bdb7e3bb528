"""Names of classes and their values: in text files in UTF-8, and in settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from seg.datasets.label_maps.legend import IGNORE
from seg.errors import UserError, reason, shown
from seg.files import irregular
from seg.number_checks import check_whole


def read_lines(path: str) -> list[str]:
    """The lines of a text file without blanks around them.

    Raises:
      UserError: if it cannot be read, or is not UTF-8.
    """
    if kind := irregular(path):
        raise UserError(f'{path!r} is {kind}, expected a text file in UTF-8.')
    try:
        with tf.io.gfile.GFile(path, 'rb') as file:
            return [line.strip() for line in re.split('\r\n|\n|\r', file.read().decode('utf-8-sig'))]
    except tf.errors.OpError as error:
        raise UserError(f'{path!r} cannot be read: {reason(error)}.') from error
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path}: expected a text file in UTF-8; byte {error.start} is not. Save it as UTF-8.'
        ) from None


def read(path: str) -> tuple[str, ...]:
    """Names of classes, one per line, id 0 first.

    Raises:
      UserError: if the file is empty, names a class twice or has an empty line.
    """
    names = read_lines(path)
    while names and not names[-1]:
        names.pop()
    if fault := fault_of(names):
        raise UserError(f'{path} {fault}. Expected one class name per line, id 0 first.')
    return tuple(names)


def fault_of(names: list[str]) -> str:
    """The fault of names of classes, to complete "<place> …"; empty if there is none."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names:
        return 'is empty'
    if '' in names:
        return f'has an empty line {names.index("") + 1}, which would shift all later ids'
    if twice:
        return f'names {shown(twice[0])} twice'
    if len(names) > IGNORE:
        return f'has {len(names)} names; the id {IGNORE} means ignored, so there may be at most {IGNORE}'
    return ''


def check(part: str, names: Any, origin: str = '') -> tuple[str, ...]:
    """Returns names of classes that a setting gives.

    Args:
      part: the data set's gin key.
      names: the value of its setting `class_names`, or what its file holds.
      origin: where they come from, for messages; empty for the setting itself.

    Raises:
      UserError: if they are not names, or one occurs twice.
    """
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{part}.class_names = {shown(names)}: expected a tuple of names, such as ('road', 'car'), or the path "
            'of a text file with one name per line.'
        )
    if fault := fault_of(list(names)):
        raise UserError(f'{origin or f"{part}.class_names"} {fault}.')
    return tuple(names)


def check_values(
    part: str, values: Any, names: Sequence[str] | None, lowest: int = 0, highest: int = 2**16 - 1
) -> tuple[int, ...]:
    """Returns the setting `values`: the value that stands for each class in labels.

    Args:
      part: the data set's gin key.
      values: the value of the setting.
      names: the classes; None if they are named by their values.
      lowest: the lowest value that labels can hold.
      highest: likewise.

    Raises:
      UserError: if they are not whole numbers, or not a different one for each class.
    """
    slot = f'{part}.values'
    if not isinstance(values, tuple | list):
        raise UserError(f'{slot} = {shown(values)}: expected a tuple of label values, such as (0, 255).')
    stored = tuple(check_whole(f'{slot}[{i}]', value, lowest, highest) for i, value in enumerate(values))
    if names is not None and len(names) != len(stored):
        raise UserError(
            f'{slot} = {shown(stored)}: {len(stored)} values for {len(names)} classes, {shown(tuple(names))}. Expected '
            'one value for each.'
        )
    if not stored or len(set(stored)) < len(stored) or (names is None and len(stored) > IGNORE):
        raise UserError(f'{slot} = {shown(stored)}: expected different values, at most {IGNORE}.')
    return stored
