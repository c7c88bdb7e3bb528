"""Registries of plugins: one per kind, each part known to gin as `<kind>.<name>`.

A part registers itself. Gin files name it by an un-called reference, and the owner of the setting builds it:

    @backbones.register('resnet50')
    def resnet50(*, output_stride, norm, stem='conv7'):
      '''ResNet-50 (He et al., 2016).'''

    models.deeplab.backbone = @backbones.resnet50                     # in a gin file

    backbones.build(backbone, 'models.deeplab.backbone', output_stride=16, norm=norm)

Arguments that follow from the architecture are *supplied* in Python and refused in gin, so that one part can replace
another without unused bindings. A part takes the essential argument of its kind and any of the other supplied ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.util  # noqa: F401  gin 0.5.0 uses it without importing it.
import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gin

from seg.errors import UserError, failed, line_of, shown_path

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
        """Whether the part is of this package, not a plugin's."""
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
        raise refuse(f'target={target!r}: {", ".join(_WITH_TARGET)} have a target, {kind} have none.')
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
    if isinstance(value, Factory):
        return value.entry
    if inspect.isclass(value):
        home = (value.__module__, value.__qualname__)
        bases = (base for base in value.__mro__ if (base.__module__, base.__qualname__) == home)
        return next((_BY_BUILDER[base] for base in bases if base in _BY_BUILDER), None)
    return _BY_BUILDER.get(inspect.unwrap(value)) if inspect.isfunction(value) else None


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
          UserError: if a parameter without default is not bound, or a plugin's builder fails or returns None.
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
                        f'builds, as docs/plugins.md tells of {self.entry.kind}. Is a return missing?'
                    )
                return built
        key = self.entry.key
        bindings = '\n'.join(f'    {key}.{name} = ...' for name in missing)
        raise UserError(
            f'{self.slot}: {self.entry.reference} ({self.entry.place}) needs {", ".join(missing)}, and nothing binds '
            f'it. Write into the gin file\n{bindings}\nor give --gin_param="{key}.{missing[0]}=..."'
        )

    def make(self, kind: type | tuple[type, ...], **supplied: Any) -> Any:
        """Builds the part, as a call does, and checks that it is what its slot asks for.

        Args:
          kind: the base class, or several to choose from.
          supplied: see `__call__`.

        Raises:
          UserError: as a call does; and if the part is of another type, or lacks what its base class marks as abstract.
        """
        built = self(**supplied)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = ' or '.join(f'a {kind.__module__}.{kind.__name__}' for kind in kinds)
        if not isinstance(built, kinds):
            found = f'the class {built.__name__}' if inspect.isclass(built) else f'a {type(built).__name__}'
            raise self.wrong(found, expected)
        methods = inspect.getmembers(type(built), callable)
        if lacking := [name for name, method in methods if getattr(method, '__isabstractmethod__', False)]:
            raise self.wrong(f'a {type(built).__name__} without {", ".join(lacking)}', f'{expected} with all of these')
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

    def failed(self, error: Exception, call: str, remedy: str = '') -> UserError:
        """The message that a `call` of a plugin's part raised an exception; `remedy` tells what to do."""
        entry = self.entry
        return failed(error, f'{self.slot}: {entry.reference} ({entry.place}): {call}', entry.file, remedy)

    def wrong(self, found: str, expected: str, call: str = '') -> UserError:
        """The message that a part, or a `call` of it, returned something else than was expected."""
        entry = self.entry
        of = f' from {call}' if call else ''
        return UserError(
            f'{self.slot}: {entry.reference} ({entry.place}) returned {found}{of}; expected {expected}. '
            f'docs/plugins.md tells of {entry.kind}.'
        )


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


class Registry:
    """The parts of one kind.

    Attributes:
      kind: plural name: folder below `seg/` and gin module.
      noun: singular name, for messages.
      essential: supplied arguments that every builder takes.
      supplied: all arguments that the framework may supply.
    """

    def __init__(self, kind: str, essential: Iterable[str] = (), others: Iterable[str] = ()):
        self.kind = kind
        self.noun = 'loss' if kind == 'losses' else kind.removesuffix('s')
        self.essential = tuple(essential)
        self.supplied = self.essential + tuple(others)

    def register(self, name: str, target: str | None = None, free: Iterable[str] = ()) -> Callable[[Any], Any]:
        """Decorator that registers a function or class and returns it unchanged.

        Only references in gin files get bindings; a direct call in Python does not.

        Args:
          name: its name in gin files, after the kind.
          target: for tasks, losses, metrics and data sets: the ground truth that the part uses, 'label_map',
            'instances' or a word of your own. A task must have one; without a target the others fit every task.
          free: parameters that may change when a run is resumed, such as `data_dir`.

        Raises:
          UserError: see `enter`.
        """

        def decorate(builder):
            enter(self.kind, name, builder, sys._getframe(1), self.essential, self.supplied, free, target)
            return builder

        return decorate

    def entries(self) -> list[Entry]:
        return sorted((e for e in ENTRIES.values() if e.kind == self.kind), key=lambda entry: entry.name)

    def names(self) -> list[str]:
        return [entry.name for entry in self.entries()]

    def get(self, name: str) -> Entry:
        """Returns an Entry by name.

        Raises:
          UserError: if there is none; the message lists similar names, known names and how to load more.
        """
        if entry := ENTRIES.get(f'seg.{self.kind}.{name}'):
            return entry
        raise UserError(unknown(f'{self.kind}.{name}'))

    def check(self, value: Any, slot: str) -> Factory:
        """Checks that a setting holds a reference to a part of this kind, and binds it to the current gin scope.

        Args:
          value: gin's value for `@kind.name`.
          slot: the setting, such as `models.deeplab.backbone`.

        Raises:
          UserError: if it is a string, an object, a part of another kind or an unregistered function.
        """
        entry = entry_of(value)
        if entry is None or entry.kind != self.kind:
            mistake = self._mistake(value, entry)
            raise UserError(f'{slot}: expected a {self.noun}, written @{self.kind}.<name>. {mistake}')
        if isinstance(value, Factory):
            return dataclasses.replace(value, slot=slot)
        return Factory(entry, slot, value, tuple(gin.current_scope()), self.supplied)

    def check_each(self, values: Any, slot: str) -> list[Factory]:
        """Checks a setting that holds a list of references, each with `check`.

        Raises:
          UserError: as `check`, and if it is not a list.
        """
        if not isinstance(values, list | tuple):
            entry = entry_of(values)
            received = f'{entry.reference} without brackets' if entry else repr(values)
            raise UserError(f'{slot}: expected a list of {self.kind}, [@{self.kind}.<name>, …], received {received}.')
        return [self.check(value, f'{slot}[{i}]') for i, value in enumerate(values)]

    def build(self, value: Any, slot: str, **supplied: Any) -> Any:
        """Checks a reference and calls it with the supplied values that its signature takes.

        Raises:
          TypeError: if this kind does not know a supplied value.
          UserError: if the reference is wrong, or a parameter without default is not bound.
        """
        return self.check(value, slot)(**supplied)

    def _mistake(self, value: Any, entry: Entry | None) -> str:
        known = f'Known {self.kind}: {", ".join(self.names()) or "none"}.'
        if entry:
            return f'Received {entry.reference}, which belongs to {entry.kind or "no kind"} ({entry.place}). {known}'
        if isinstance(value, str):
            name = value.lstrip('@%').removesuffix('()').rpartition('.')[2]
            if name in self.names():
                return f'Received the string {value!r}: write @{self.kind}.{name}, without quotes.'
            hint = ''.join(f' Did you mean @{self.kind}.{near}?' for near in near_misses(name, self.names())[:1])
            return f'Received the string {value!r}; a reference has no quotes.{hint} {known}'
        if inspect.isfunction(value) or inspect.isclass(value):
            home = f'{value.__module__}.{value.__qualname__}'
            return f'Received {home}, which is not registered: put @{self.kind}.register(...) on it. {known}'
        if value is None or isinstance(value, (bool, int, float, list, tuple, dict)):
            return f'Received {value!r}. {known}'
        built = entry_of(type(value))
        spelling = built.reference if built else f'@{self.kind}.<name>'
        return f'Received an object ({type(value).__name__}) that was built already: write {spelling}, without ().'


backbones = Registry('backbones', ['output_stride'], ['norm', 'multi_grid'])
decoders = Registry('decoders', ['backbone'], ['output_stride', 'norm'])
heads = Registry('heads', [], ['num_classes', 'norm'])
losses = Registry('losses', [], ['num_classes', 'ignore_label', 'class_histogram'])
datasets = Registry('datasets', [], ['seed', 'target'])
# `other` comes from tasks of instances: called with a seed, int32 [2], it loads the example of the training data that
# the seed draws, as `seg.augments.instances.begin` makes it.
augments = Registry('augments', [], ['ignore_label', 'other'])
metrics = Registry('metrics', [], ['num_classes', 'class_names', 'ignore_label'])
optimizers = Registry('optimizers', ['total_steps'], ['batch_size'])
schedules = Registry('schedules', ['total_steps'], ['batch_size'])
models = Registry('models', [], ['num_classes'])
tasks = Registry('tasks', ['dataset_info'], ['seed', 'class_histogram'])

KINDS: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        backbones, decoders, heads, losses, datasets, augments, metrics, optimizers, schedules, models, tasks,
    )
}  # fmt: skip


def near_misses(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Returns the known names most similar to `name`, best first; case does not matter."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[near] for near in difflib.get_close_matches(name.lower(), by_lower, limit, cutoff=0.6)]


def unknown(key: str) -> str:
    """Explains that nothing is registered as `kind.name`: kind, similar names with file and line, known names."""
    kind, _, name = key.removeprefix('seg.').rpartition('.')
    by_key = {entry.key: entry for entry in ENTRIES.values()}
    similar = near_misses(name, {entry.name for entry in by_key.values()})
    near = [known for known, entry in by_key.items() if entry.name == name]
    near += [f'{kind}.{other}' for other in similar if f'{kind}.{other}' in by_key]
    if kind not in KINDS:
        near += near_misses(key, by_key) if kind else []  # The kind may be misspelled.
        near += [known for known, entry in by_key.items() if entry.name in similar]
    registry = KINDS.get(kind)
    what = f'no {registry.noun} named {name!r}' if registry else f'nothing named {key!r}'
    lines = [f'{what} is registered.']
    lines += [f'  Did you mean {other}? ({by_key[other].place})' for other in list(dict.fromkeys(near))[:3]]
    if registry:
        lines.append(f'  Known {kind}: {", ".join(registry.names()) or "none"}.')
    else:
        lines.append(f'  A part has the name <kind>.<name>; --list shows all. Kinds: {", ".join(KINDS)}.')
    return '\n'.join([*lines, f'  {LOAD_MORE}'])


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
