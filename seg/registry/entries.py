"""The registered parts: one Entry for each, known to gin under its key."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util  # noqa: F401  gin 0.5.0 uses it without importing it.
import inspect
import os
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gin

from seg.errors import UserError, shown_path

# Default of a parameter that gin must bind, like a parameter without a default.
REQUIRED = gin.REQUIRED

LOAD_MORE = (
    'To load more parts: --plugins=pkg.mod or --plugins=path/file.py, a line `import pkg.mod` in the gin file, '
    'or an entry point of the group `seg.plugins`.'
)


def _keep_exception(exception: Exception, message: str) -> None:
    """Adds gin's text to an exception as a note.

    gin 0.5.0 would raise a copy of the exception, without its cause and with a memory address in its text.
    """
    if not isinstance(exception, UserError):
        exception.add_note(message.strip('\n'))
    raise exception


gin.utils.augment_exception_message_and_reraise = _keep_exception


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered part, or a plain configurable such as `experiment` (its kind is empty).

    Attributes:
      builder: the registered function or class.
      file, line: place of the registration.
      summary: first line of its docstring, the text of `--list`.
      supplied: its arguments that Python supplies and gin refuses.
      free: its parameters that may change when a run is resumed.
      target: the ground truth that it uses, such as 'label_map'; None for a part that fits every task.
    """

    kind: str
    name: str
    builder: Callable[..., Any]
    file: str
    line: int
    summary: str
    signature: inspect.Signature
    supplied: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    target: str | None = None

    @property
    def key(self) -> str:
        return f'{self.kind}.{self.name}' if self.kind else self.name

    @property
    def reference(self) -> str:
        return '@' + self.key

    @property
    def place(self) -> str:
        return f'{shown_path(self.file)}:{self.line}'

    @property
    def built_in(self) -> bool:
        """Whether the part belongs to this package, not to a plugin."""
        return self.builder.__module__.startswith('seg.')

    @property
    def settable(self) -> tuple[str, ...]:
        """The parameters that gin may bind."""
        return tuple(name for name in self.signature.parameters if name not in self.supplied)


# Kinds whose parts may have a target, that is, the ground truth that they use.
_WITH_TARGET = ('tasks', 'losses', 'metrics', 'datasets')

# Everything registered, by gin's full selector such as `seg.backbones.resnet50`.
ENTRIES: dict[str, Entry] = {}
_BY_BUILDER: dict[Callable[..., Any], Entry] = {}


def enter(
    kind: str,
    name: str,
    builder: Callable[..., Any],
    caller: types.FrameType,
    essential: Iterable[str] = (),
    supplied: Iterable[str] = (),
    free: Iterable[str] = (),
    target: str | None = None,
) -> None:
    """Checks a builder, registers it with gin and stores its Entry.

    Names are unique. If the same function is registered again (a notebook cell run twice, a reloaded module, a plugin
    file imported under a second name), it replaces the earlier one. Functions are the same if their qualified names and
    their modules or files are equal.

    Args:
      kind: a kind, or '' for a plain configurable.
      name: name within the kind, an identifier.
      builder: function or class.
      caller: frame of the registration, for file and line.
      essential: arguments that the builder must take.
      supplied: arguments that gin may not bind.
      free: parameters that may change when a run is resumed.
      target: see `Entry`.

    Raises:
      UserError: if the builder breaks a rule above, or the name is in use.
    """
    file, line = caller.f_code.co_filename, caller.f_lineno
    key = f'{kind}.{name}' if kind else name

    def refuse(problem: str) -> UserError:
        return UserError(f'{shown_path(file)}:{line}: cannot register {key!r}: {problem}')

    if gin.config_is_locked():
        raise refuse(f'the gin files are parsed already (a notebook calls config.clear() first). {LOAD_MORE}')
    if not (isinstance(name, str) and name.isidentifier()):
        raise refuse('a name consists of letters, digits and underscores and does not start with a digit.')
    if not (inspect.isfunction(builder) or inspect.isclass(builder)):
        raise refuse(f'a builder is a function or a class, and this is of type {type(builder).__name__}.')
    if kind == 'tasks' and target is None:
        raise refuse("a task names what it learns from, as in register(name, target='label_map').")
    if target is not None and kind not in _WITH_TARGET:
        raise refuse(f'target={target!r}: {", ".join(_WITH_TARGET)} have a target, {kind} do not.')
    if target is not None and not (isinstance(target, str) and target.isidentifier()):
        raise refuse(f"target={target!r}: expected a word such as 'label_map', 'instances' or one of your own.")
    doc = inspect.cleandoc(builder.__doc__ or '')
    if not doc or (dataclasses.is_dataclass(builder) and doc.startswith(f'{builder.__name__}(')):
        raise refuse(f'{builder.__qualname__} has no docstring; its first line is the text of --list.')
    signature = inspect.signature(builder)
    parameters = signature.parameters
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise refuse(f'its argument `{parameter}` hides what can be set. Name each one, after a `*`.')
    if lacking := [argument for argument in essential if argument not in parameters]:
        raise refuse(f'it has to take {" and ".join(map(repr, lacking))}, which is supplied to all {kind}.')
    entry = Entry(
        kind, name, builder, file, line, doc.splitlines()[0], signature,
        supplied=tuple(argument for argument in supplied if argument in parameters),
        free=tuple(free), target=target,
    )  # fmt: skip
    if strange := [argument for argument in entry.free if argument not in entry.settable]:
        raise refuse(f'free={strange} names no parameter that can be set; there are {list(entry.settable)}.')
    selector = f'seg.{key}'
    former = ENTRIES.get(selector)
    if former and not _same_source(former, entry):
        raise refuse(f'the name is taken by {former.builder.__qualname__} at {former.place}. Choose another name.')
    other = _BY_BUILDER.get(builder)
    if other and other.key != key:
        raise refuse(f'{builder.__qualname__} is registered as {other.key!r} already. Wrap it in a function.')
    with gin.config.interactive_mode() if former else contextlib.nullcontext():
        gin.register(name, module=selector.rpartition('.')[0], denylist=list(entry.supplied))(builder)
    if former:
        _BY_BUILDER.pop(former.builder, None)
    ENTRIES[selector] = _BY_BUILDER[builder] = entry


def _same_source(former: Entry, entry: Entry) -> bool:
    old, new = former.builder, entry.builder
    same_home = old.__module__ == new.__module__ or os.path.realpath(former.file) == os.path.realpath(entry.file)
    return old.__qualname__ == new.__qualname__ and same_home


def entry_of(value: Any) -> Entry | None:
    """Finds the Entry of a value from gin: a wrapped function, or a subclass with another metaclass."""
    if inspect.isclass(value):
        home = (value.__module__, value.__qualname__)
        bases = (base for base in value.__mro__ if (base.__module__, base.__qualname__) == home)
        return next((_BY_BUILDER[base] for base in bases if base in _BY_BUILDER), None)
    return _BY_BUILDER.get(inspect.unwrap(value)) if inspect.isfunction(value) else None


@contextlib.contextmanager
def temporary() -> Iterator[None]:
    """Removes, on exit, every registration made inside the block: for tests."""
    entries, builders = dict(ENTRIES), dict(_BY_BUILDER)
    known, inverse = gin.config._REGISTRY, gin.config._INVERSE_REGISTRY
    parts, functions = dict(known.items()), dict(inverse)
    try:
        yield
    finally:
        for live, kept in ((ENTRIES, entries), (_BY_BUILDER, builders), (inverse, functions)):
            live.clear()
            live.update(kept)
        for selector in [selector for selector, _ in known.items() if selector not in parts]:
            known.pop(selector)
        for selector, part in parts.items():
            known[selector] = part
