"""Text files in UTF-8: lines, and names of classes."""

from __future__ import annotations

import re

import tensorflow as tf

from seg.datasets.label_maps.legend import IGNORE
from seg.errors import UserError, reason, shown
from seg.files import irregular


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
    """What is wrong with names of classes, to complete "<place> …"; empty if nothing is."""
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
