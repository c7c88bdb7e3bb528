"""The spelling of gin's values and keys: as a user writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seg import registry

import gin  # isort: skip  After the registry, which prepares it.

MACRO = 'gin.macro'  # The selector of all macros.


class Verbatim(str):
    """Text that `repr` writes without quotes."""

    __repr__ = str.__str__


def references(value: Any) -> list[gin.config.ConfigurableReference]:
    """All references within a value, macros included."""
    return list(gin.config.iterate_references(value))


def name_of_macro(reference: gin.config.ConfigurableReference) -> str | None:
    """Returns NAME of %NAME, or None for a reference to something else."""
    return '/'.join(reference.scopes) if reference.configurable.selector in (MACRO, 'gin.constant') else None


def spelled(value: Any, resolve: bool = False) -> Any:
    """Replaces references by `Verbatim` text; with `resolve`, macros by their values."""
    if isinstance(value, gin.config.ConfigurableReference):
        name = name_of_macro(value)
        if name is None:
            called = '()' if value.evaluate else ''
            return Verbatim('@' + '/'.join([*value.scopes, key(value.configurable.selector)]) + called)
        if resolve and (name, MACRO) in gin.config._CONFIG:
            return spelled(gin.config._CONFIG[name, MACRO]['value'], resolve)
        return Verbatim(f'%{name}')
    if isinstance(value, Mapping):
        return {spelled(item_key, resolve): spelled(item, resolve) for item_key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(spelled(item, resolve) for item in value)
    return value


def literal(value: Any, resolve: bool = False) -> str:
    """The text of a value; with `resolve`, macros are replaced by their values."""
    return repr(spelled(value, resolve))


def key(selector: str) -> str:
    """The name of a part: `kind.name` for `seg.kind.name`."""
    entry = registry.ENTRIES.get(selector)
    return entry.key if entry else selector


def binding(scope_name: str, selector: str, parameter: str) -> str:
    """The left side of a binding: `scope/kind.name.parameter`, or the name of a macro."""
    if selector == MACRO:
        return scope_name
    return f'{scope_name}{"/" if scope_name else ""}{key(selector)}.{parameter}'
