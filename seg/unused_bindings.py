"""Finds unused gin bindings, and separates mistakes from bindings of parts that are not in use."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from seg import registry


@dataclasses.dataclass(frozen=True)
class Binding:
    """One binding of the configuration.

    Attributes:
      scope: scope such as `train`, or ''; for a macro, its name.
      part: `kind.name` of the part; '' for a macro.
      parameter: name of the parameter; '' for a macro.
      place: file and line, or flag.
      command_line: whether it comes from a flag.
      macros: names of the macros that its value refers to.
      scopes: scopes that its value refers to, as in `@train/datasets.voc`.
    """

    scope: str
    part: str
    parameter: str
    place: str
    command_line: bool
    macros: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        prefix = f'{self.scope}/' if self.scope else ''
        return f'{prefix}{self.part}.{self.parameter}' if self.part else self.scope


class Unused(NamedTuple):
    """An unused binding, the reason, and whether it is a mistake."""

    key: str
    place: str
    reason: str
    error: bool


def find(
    bindings: Iterable[Binding],
    calls: Mapping[tuple[str, str], Set[str]],
    macros_read: Set[str],
    idle: Iterable[str] = (),
) -> list[Unused]:
    """Lists the bindings that were not read.

    Args:
      bindings: the configuration.
      calls: parameters that were read, by (scope, part) of each call.
      macros_read: names of the macros that were read.
      idle: globs of keys that the mode does not read: noted on the command line, ignored in a file.
    """
    return list(_Judge(list(bindings), calls, macros_read, tuple(idle)).judge())


class _Judge:
    def __init__(self, bindings, calls, macros_read, idle):
        self.bindings, self.calls, self.macros_read, self.idle = bindings, calls, macros_read, idle
        self.by_key = {binding.key: binding for binding in bindings}
        self.entered = {prefix for scope, _ in calls for prefix in _prefixes(scope)}
        self.known_scopes = self.entered.union(*(_prefixes(s) for binding in bindings for s in binding.scopes))
        self.readers: dict[str, list[Binding]] = {}
        for binding in bindings:
            for name in binding.macros:
                self.readers.setdefault(name, []).append(binding)

    def judge(self):
        for binding in self.bindings:
            problem = self.macro_problem(binding) if not binding.part else self.problem(binding)
            if problem:
                reason, error = problem
                if not self.is_idle(binding):
                    yield Unused(binding.key, binding.place, reason, error or binding.command_line)
                elif binding.command_line:
                    yield Unused(binding.key, binding.place, reason, False)

    def is_idle(self, binding: Binding) -> bool:
        """Whether the mode does not read it; a macro is idle if everything that refers to it is."""
        if not binding.part:
            return binding.scope in self.readers and all(map(self.is_idle, self.readers[binding.scope]))
        return any(fnmatch.fnmatchcase(binding.key, pattern) for pattern in self.idle)

    def macro_problem(self, macro: Binding) -> tuple[str, bool] | None:
        if macro.scope in self.macros_read:
            return None
        if readers := self.readers.get(macro.scope):
            return f'only {", ".join(reader.key for reader in readers)} would read it', False
        return 'nothing refers to this macro' + _did_you_mean(macro.scope, self.readers), True

    def problem(self, binding: Binding) -> tuple[str, bool] | None:
        scope, part, parameter = binding.scope, binding.part, binding.parameter
        inside = [at for at, called in self.calls if called == part and scope in _prefixes(at)]
        read_in = [at for at in inside if parameter in self.calls[at, part]]
        if read_in:
            # A command-line binding that others override everywhere has no effect, which is a mistake.
            nearest = [self.nearest(at, binding) for at in read_in]
            if binding in nearest or not binding.command_line:
                return None
            return f'{nearest[0].key} ({nearest[0].place}) takes precedence', True
        if inside:
            return f'{part} was built, but its caller decides {parameter!r}', True
        if scope not in self.known_scopes | {''}:
            return f'no scope {scope!r} exists' + _did_you_mean(scope, self.known_scopes - {''}), True
        if scope in self.entered and any(called == part for _, called in self.calls):
            return f'{part} was built, but not in the scope {scope!r}', True
        return f'{part} was not built' + (f' in the scope {scope!r}' if scope else ''), False

    def nearest(self, scope: str, binding: Binding) -> Binding:
        """Returns the binding of the same parameter that applies in a scope: the one with the longest prefix."""
        keys = [dataclasses.replace(binding, scope=prefix).key for prefix in _prefixes(scope)]
        return [self.by_key[key] for key in keys if key in self.by_key][-1]


def _prefixes(scope: str) -> list[str]:
    """'a/b' -> ['', 'a', 'a/b']: bindings in these scopes apply in it, those of the last one first."""
    names = scope.split('/') if scope else []
    return ['/'.join(names[:count]) for count in range(len(names) + 1)]


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    return ''.join(f'; did you mean {near}?' for near in registry.near_misses(name, known)[:1])
