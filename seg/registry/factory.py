"""A reference of a gin file, checked and bound to its scope: it builds the part."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import gin

from seg.errors import UserError, as_user_error, failed, line_of
from seg.registry.entries import Entry


@dataclasses.dataclass(frozen=True)
class Factory:
    """A checked reference, bound to the gin scope in which it was checked.

    A later call in another scope still reads the bindings of the original one.

    Attributes:
      entry: the part to build.
      slot: the setting that holds the reference, for messages.
      configured: gin's version of the builder, which reads the bindings.
      scope: names of the scope, outermost first.
      known: arguments that may be supplied; None for all.
    """

    entry: Entry
    slot: str
    configured: Callable[..., Any]
    scope: tuple[str, ...]
    known: tuple[str, ...] | None = None

    def __call__(self, **supplied: Any) -> Any:
        """Builds the part from its bindings and from the supplied values that it takes.

        Raises:
          TypeError: if the kind does not know a supplied value (a mistake of the caller).
          UserError: if a parameter without default is not bound, if a plugin's builder fails or returns None, or if the
            part lacks members that its base class marks as abstract.
        """
        if self.known is not None:
            if strange := sorted(set(supplied) - set(self.known)):
                raise TypeError(f'{self.slot}: {self.entry.kind} are supplied with {self.known}, not with {strange}.')
            supplied = {name: value for name, value in supplied.items() if name in self.entry.supplied}
        with gin.config_scope(list(self.scope)):
            try:
                built = self.configured(**supplied)
            except UserError:
                raise
            except Exception as error:
                missing = _missing_parameters(error, self.entry)
                if not missing:
                    if self.entry.built_in or line_of(error, self.entry.file) is None:
                        raise
                    raise self.failed(error, 'building it') from error
            else:
                if built is None:
                    raise UserError(
                        f'{self.slot}: {self.entry.reference} ({self.entry.place}) returned None, expected what it '
                        f'builds (see docs/plugins.md on {self.entry.kind}). Is a return missing?'
                    )
                if lacking := _abstract_members(built):
                    base = next(base for base in type(built).__mro__ if lacking[0] in vars(base))
                    expected = f'a {base.__module__}.{base.__name__} with all of these'
                    raise self.wrong(f'a {type(built).__name__} without {", ".join(lacking)}', expected)
                return built
        key = self.entry.key
        bindings = '\n'.join(f'    {key}.{name} = ...' for name in missing)
        raise UserError(
            f'{self.slot}: {self.entry.reference} ({self.entry.place}) needs {", ".join(missing)}, and nothing binds '
            f'it. Write into the gin file\n{bindings}\nor give --gin_param="{key}.{missing[0]}=..."'
        )

    def make(self, kind: type | tuple[type, ...], **supplied: Any) -> Any:
        """Builds the part, as a call does, and checks that it is what its slot requires.

        Args:
          kind: the base class, or several to choose from.
          supplied: see `__call__`.

        Raises:
          UserError: as a call does; and if the part is of another type.
        """
        built = self(**supplied)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = ' or '.join(f'a {_module(kind)}.{kind.__name__}' for kind in kinds)
        if not isinstance(built, kinds):
            found = f'the class {built.__name__}' if inspect.isclass(built) else f'a {type(built).__name__}'
            raise self.wrong(found, expected)
        return built

    def expect_target(self, target: str) -> None:
        """Refuses a part that is registered for another target than the task's.

        Raises:
          UserError: with both.
        """
        entry = self.entry
        if entry.target not in (None, target):
            raise UserError(
                f'{self.slot}: {entry.reference} ({entry.place}) is for the target {entry.target!r}, and this task '
                f'learns from {target!r}.'
            )

    def calling(self, call: str, remedy: str = '') -> contextlib.AbstractContextManager[None]:
        """Context around a call of the part: turns exceptions of a plugin's part into a `UserError`.

        Args:
          call: the call, for the message.
          remedy: what to do, a sentence; by default the page on this kind.

        Raises:
          UserError: see `failed`.
        """
        entry = self.entry
        return as_user_error(
            self._call(call), entry.builder, entry.file, remedy or f'See docs/plugins.md on {entry.kind}.'
        )

    def failed(self, error: Exception, call: str, remedy: str = '') -> UserError:
        """The message that a `call` of a plugin's part raised an exception; `remedy` is a sentence on what to do."""
        return failed(error, self._call(call), self.entry.file, remedy)

    def _call(self, call: str) -> str:
        return f'{self.slot}: {self.entry.reference} ({self.entry.place}): {call}'

    def wrong(self, found: str, expected: str, call: str = '') -> UserError:
        """The message that a part, or a `call` of it, returned something unexpected."""
        entry = self.entry
        of = f' from {call}' if call else ''
        return UserError(
            f'{self.slot}: {entry.reference} ({entry.place}) returned {found}{of}; expected {expected}. '
            f'See docs/plugins.md on {entry.kind}.'
        )


def _module(kind: type) -> str:
    """The module that a class is imported from; Keras exports its own under other names."""
    module = kind.__module__.removeprefix('keras.src.')
    return kind.__module__ if module == kind.__module__ else f'keras.{module.rpartition(".")[0]}'


def _abstract_members(built: Any) -> list[str]:
    """Names of the members that the part's base class marks as abstract and that its class does not define."""
    methods = inspect.getmembers(type(built), callable)
    return [name for name, method in methods if getattr(method, '__isabstractmethod__', False)]


def _missing_parameters(error: Exception, entry: Entry) -> list[str]:
    """Names the unbound parameters, if the error is about a call of this entry without them."""
    for pattern in (r'(\S+)\(\) missing \d+ required .*?: (.*)', r'Required bindings for `(.+)` not provided.*?: (.*)'):
        if match := re.match(pattern, str(error)):
            builder = entry.builder
            called = builder.__init__.__qualname__ if inspect.isclass(builder) else builder.__qualname__
            names = re.findall(r"'(\w+)'", match[2])
            mine = match[1] == called or f'.seg.{entry.key}'.endswith(f'.{match[1]}')
            return names if mine and set(names) <= set(entry.settable) else []
    return []
