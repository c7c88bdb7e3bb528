"""Freezes variables of a model by `OptimizerStep.frozen`."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from seg.errors import UserError, shown


def freeze(parts: Mapping[str, Any], patterns: Sequence[str]) -> None:
    """Makes the variables that a pattern matches untrainable, and every layer of which none is left.

    Such a layer keeps its statistics, as Keras' own and ours do. Has to come before anything is traced.

    Args:
      parts: the model's Keras layers by name.
      patterns: globs of `<part>/<variable path>`, or of what this begins with up to a slash.

    Raises:
      UserError: if a pattern matches nothing, or everything is frozen.
    """
    variables = {f'{part}/{v.path}': v for part, layer in parts.items() for v in layer.variables}
    for pattern in patterns:
        found = [name for name in variables if _matches(name, pattern)]
        if not found:
            near = difflib.get_close_matches(pattern, _beginnings(variables), 1)
            hint = f' Did you mean {near[0]!r}?' if near else ''
            raise UserError(
                f'OptimizerStep.frozen: no variable of the model matches {shown(pattern)}.{hint} Its parts are '
                f"{', '.join(parts)}; model_info.txt in a run's folder lists all variables, and a pattern is such as "
                f'{next(iter(variables))!r} or begins it.'
            )
        for name in found:
            variables[name].trainable = False
    if not any(layer.trainable_variables for layer in parts.values()):
        raise UserError(f'OptimizerStep.frozen = {shown(list(patterns))}: nothing is left to train.')
    for part in parts.values():
        for layer in part._flatten_layers():
            if layer.variables and not layer.trainable_variables:
                layer.trainable = False


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f'{pattern}/*')


def _beginnings(names: Mapping[str, Any]) -> list[str]:
    words = [name.split('/') for name in names]
    return list(dict.fromkeys('/'.join(each[:end]) for each in words for end in range(1, len(each) + 1)))
