"""Lists of references in a task's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seg.errors import UserError


def named(references: Sequence[Any], registry, slot: str) -> dict[str, Any]:
    """References by their registered names; a second one of the same name gets a number."""
    found: dict[str, Any] = {}
    for i, reference in enumerate(references):
        name = registry.check(reference, f'{slot}[{i}]').entry.name
        found[name if name not in found else f'{name}_{i}'] = reference
    if not found:
        raise UserError(f'{slot} is empty: give at least one reference, such as [@losses.softmax_cross_entropy].')
    return found
