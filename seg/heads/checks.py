"""Checks of heads' settings."""

from __future__ import annotations

from collections.abc import Sequence

from seg.errors import UserError


def counts(slot: str, **values: int) -> None:
    """Raises UserError for a setting that is not a whole number of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f'{slot}.{name} = {value!r}: expected a whole number of at least 1.')


def shares(slot: str, **values: float) -> None:
    """Raises UserError for a setting that is not a number from 0 to 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f'{slot}.{name} = {value!r}: expected a number from 0 to 1.')


def widths(slot: str, **values: Sequence[int]) -> None:
    """Raises UserError for a setting that is not a sequence of whole numbers of at least 1."""
    for name, value in values.items():
        if not isinstance(value, tuple | list):
            raise UserError(f'{slot}.{name} = {value!r}: expected a tuple of channels, such as (256, 256).')
        counts(slot, **{f'{name}[{i}]': width for i, width in enumerate(value)})
