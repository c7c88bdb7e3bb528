"""Checks of numbers that users set: each takes the setting's full gin key, its value and its range.

gin knows the names of settings, but not their valid values: parts check these in the constructor.
"""

from __future__ import annotations

import math
from typing import Any

from seg.errors import UserError, shown


def check_number(
    slot: str, value: Any, low: float = 0, high: float = math.inf, *, above: bool = False, below: bool = False
) -> float:
    """Returns a finite number within a range as a float.

    Args:
      slot: the setting, such as `losses.dice.weight`.
      value: its value.
      low: lowest number allowed.
      high: highest number allowed.
      above: whether `low` itself is excluded.
      below: whether `high` itself is excluded.

    Raises:
      UserError: naming the setting, the value and the range.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (above and value == low) or (below and value == high):
        if high == math.inf:
            expected = f'above {low:g}' if above else f'of at least {low:g}'
        elif not above and not below:
            expected = f'from {low:g} to {high:g}'
        else:
            expected = f'{"above" if above else "of at least"} {low:g} and {"below" if below else "at most"} {high:g}'
        raise UserError(f'{slot} = {shown(value)}: expected a number {expected}.')
    return float(value)


def check_whole(slot: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """Returns a whole number of at least `low` and at most `high`.

    Raises:
      UserError: naming the setting, the value and the range.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        expected = f'of at least {low}' if high is None else f'from {low} to {high}'
        raise UserError(f'{slot} = {shown(value)}: expected a whole number {expected}.')
    return value


def check_counts(part: str, **values: int) -> None:
    """Raises UserError if a setting of the part, such as `heads.rpn`, is not a whole number of at least 1."""
    for name, value in values.items():
        check_whole(f'{part}.{name}', value)


def check_fractions(part: str, **values: float) -> None:
    """Raises UserError if a setting of the part, such as `heads.rpn`, is not a number from 0 to 1."""
    for name, value in values.items():
        check_number(f'{part}.{name}', value, 0, 1)


def check_widths(part: str, **values: Any) -> None:
    """Raises UserError if a setting of the part is not a tuple or list of whole numbers of at least 1."""
    for name, value in values.items():
        if not isinstance(value, tuple | list):
            raise UserError(f'{part}.{name} = {shown(value)}: expected a tuple of whole numbers, such as (256, 256).')
        check_counts(part, **{f'{name}[{i}]': width for i, width in enumerate(value)})
