"""A plan as text and as JSON."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any

from seg import files
from seg.errors import UserError
from seg.planner.estimate import Row
from seg.planner.tables import Prices

_NONE = '-'


def _number(form: str) -> Callable[[Any], str]:
    return lambda value: _NONE if value is None else format(value, form)


def _memory(row: Row) -> str:
    if row.memory_gib is None:
        return _NONE
    return f'{row.memory_gib:.3g}' + (f' of {row.memory_available_gib:.3g}' if row.memory_available_gib else '')


def _of(name: str, form: str) -> Callable[[Row], str]:
    return lambda row: _number(form)(getattr(row, name))


# Heading and cell of each column.
COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ('hardware', lambda row: row.hardware),
    ('devices', _of('devices', 'd')),
    ('batch', _of('batch', ',d')),
    ('per device', _of('per_device', ',d')),
    ('learning rate', _of('learning_rate', '.4g')),
    ('memory, GiB', _memory),
    ('images/s', _of('images_per_second', ',.4g')),
    ('s/step', _of('step_seconds', '.3g')),
    ('hours', _of('hours', ',.3g')),
    ('USD', _of('usd', ',.3g')),
    ('USD spot', _of('usd_spot', ',.3g')),
    ('limit', lambda row: row.limit or _NONE),
    ('known by', lambda row: row.known_by or _NONE),
    ('remark', lambda row: row.message),
)


def cells(plan: dict[str, Any]) -> list[tuple[str, ...]]:
    """The heading, and the cells of each row, from the content of plan.json."""
    rows = [Row(**row) for row in plan['rows']]
    return [tuple(name for name, _ in COLUMNS), *(tuple(cell(row) for _, cell in COLUMNS) for row in rows)]


def text(plan: dict[str, Any]) -> str:
    """The table for a terminal."""
    lines = cells(plan)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    body = ['  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return '\n'.join([*body, footer(plan)])


def footer(plan: dict[str, Any]) -> str:
    """What the numbers stand for."""
    return f'{plan["train_steps"]:,} steps, without evaluations. Prices in USD of {plan["prices"]["date"]}.'


def as_json(rows: Iterable[Row], prices: Prices, steps: int) -> dict[str, Any]:
    """The content of plan.json."""
    return {
        'train_steps': steps,
        'prices': {'date': prices.date, 'currency': 'USD'},
        'rows': [dataclasses.asdict(row) for row in rows],
    }


def read(path: str) -> dict[str, Any]:
    """Reads plan.json; empty if there is none.

    Raises:
      UserError: if it is damaged.
    """
    if not os.path.exists(path):
        return {}
    remedy = '--mode=plan writes it again.'
    plan = files.read_object(path, remedy)
    try:
        text(plan)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'{path!r} holds no plan: {error}. {remedy}') from error
    return plan
