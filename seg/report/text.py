"""Text of numbers, times and lists."""

from __future__ import annotations

import collections
import datetime
from typing import Any


def share(value: float) -> str:
    return f'{value:.4f}' if abs(value) < 1000 else f'{value:,.4g}'


def grouped(value: float) -> str:
    return f'{value:,.0f}'


def rate(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.1f}' if value >= 1 else f'{value:.2g}'


def count(number: int, one: str, several: str = '') -> str:
    return f'{number:,} {one if number == 1 else several or one + "s"}'


def duration(seconds: float) -> str:
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes:02} min' if hours else f'{minutes} min {rest:02} s'


def moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime('%Y-%m-%d %H:%M')


def yes_or_no(value: Any) -> str:
    return 'yes' if value is True else 'no' if value is False else ''


def listed(value: Any) -> str:
    """A value as text; of a list, each different value with its count."""
    if not isinstance(value, list):
        return str(value)
    counts = collections.Counter(map(str, value))
    return ', '.join(
        name if count == 1 else f'{count} \N{MULTIPLICATION SIGN} {name}' for name, count in counts.items()
    )
