"""Names of models: chosen by users, and listed with what `tools/backbones.py` has measured."""

from __future__ import annotations

import importlib.util
import json
import pathlib
from collections.abc import Collection
from typing import Any

from seg.errors import UserError, shown
from seg.registry import near_misses


def choose(name: str, known: Collection[str], slot: str) -> str:
    """Returns the name if it is known.

    Args:
      name: as set.
      known: all names.
      slot: the setting, for the message.

    Raises:
      UserError: otherwise; the message has similar names.
    """
    if name in known:
        return name
    near = near_misses(name, known) if isinstance(name, str) else []
    hint = f'Did you mean {" or ".join(map(repr, near))}? ' if near else ''
    raise UserError(
        f'{slot} = {shown(name)}: there is no such model. {hint}`seg_main --list backbones` shows all names.'
    )


def installed(package: str, slot: str) -> None:
    """Checks that a library is there, without importing it.

    Raises:
      UserError: if not.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{slot}: needs the package {package}, which is not installed: pip install -e '.[zoo]'")


def measured(library: str) -> list[dict[str, Any]]:
    """The models of a library: a dict with `family`, `name`, `parameters`, `strides` and `one_size` for each."""
    rows = json.loads(pathlib.Path(__file__).with_name('models.json').read_text(encoding='utf-8'))
    return [row for row in rows if row['library'] == library]


def catalogue(library: str, names: Collection[str]) -> str:
    """The models of a library as a table, for `--list`; those that were not measured have their names alone."""
    rows = {row['name']: row for row in measured(library)}
    width = max(map(len, names))
    lines = [f'backbones.{library}.name: parameters in millions, output strides, family']
    for name in names:
        line = f'  {name:<{width}}'
        if row := rows.get(name):
            strides = ' '.join(map(str, row['strides'])) + (' (images of one size)' if row['one_size'] else '')
            line += f' {row["parameters"] / 1e6:7.1f}  {strides:<26} {row["family"]}'
        lines.append(line.rstrip())
    return '\n'.join(lines)
