"""Names of models, chosen by users."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection

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
