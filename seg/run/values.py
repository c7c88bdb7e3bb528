"""Checks of values of JSON files, which may have been edited or damaged: any value may have any type."""

from __future__ import annotations

import math
from typing import Any

Values = dict[str, float]


def number(value: Any) -> float | None:
    """A finite number as a float, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # An int larger than any float.
        return None


def whole(value: Any) -> int | None:
    """A number without fraction, of 0 or more, as an int; None for anything else."""
    found = number(value)
    return int(found) if found is not None and found >= 0 and found == int(found) else None


def is_step(value: Any) -> bool:
    """Whether the value can be a step of a training."""
    return type(value) is int and 0 <= value < 2**63


def string(value: Any) -> str:
    """A string, empty for anything else."""
    return value if isinstance(value, str) else ''


def mapping(value: Any) -> dict[str, Any]:
    """A dict, empty for anything else."""
    return value if isinstance(value, dict) else {}


def finite(values: Any) -> Values:
    """The finite numbers of a dict."""
    return {name: found for name, value in mapping(values).items() if (found := number(value)) is not None}


def strings(values: Any) -> dict[str, str]:
    """The strings of a dict."""
    return {name: value for name, value in mapping(values).items() if isinstance(value, str)}
