"""Gin files and flags: parsing, hints, unused bindings, snapshots. With `gin_*` and the registry, the only user of gin.

gin 0.5.0 does not record where a binding came from, follows includes only on its own search path, and its errors are
hard to read. So the statements of its parser are applied one by one: each binding is checked against the registry,
recorded with its place and passed to gin, which resolves and injects the values.
"""

from __future__ import annotations

import contextlib
import inspect
import pprint
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from seg import gin_spelling, gin_statements, plugins, registry, unused_bindings
from seg.errors import UserError
from seg.gin_files import Place, Source
from seg.gin_spelling import MACRO, literal, name_of_macro, references, spelled
from seg.gin_statements import Problem

import gin  # isort: skip  After the registry, which prepares it.
from gin import config_parser

# Scopes of the bindings of one data set: `train/datasets.voc_layout.split`.
TRAIN_SCOPE, EVAL_SCOPE = 'train', 'eval'

_INTERNAL = (MACRO, 'gin.constant', 'gin.singleton')

Binding = tuple[str, str, str]  # (scope, full selector, parameter)

_places: dict[Binding, Place] = {}
_IN_PYTHON = Place('bound in Python', command_line=False)


def clear() -> None:
    """Unlocks and empties the configuration and the record of plugins, which stay loaded."""
    gin.clear_config()
    _places.clear()
    plugins.recorded.clear()


def configurable(name: str, supplied: Iterable[str] = (), free: Iterable[str] = ()) -> Callable[[Any], Any]:
    """Decorator for the few configurables that are not plugins, such as `experiment`; returns its target unchanged.

    Args:
      name: plain name in gin files.
      supplied: parameters that come from Python and are refused in gin.
      free: parameters that may change when a run is resumed.
    """

    def decorate(builder):
        registry.enter('', name, builder, sys._getframe(1), essential=supplied, supplied=supplied, free=free)
        return builder

    return decorate


def injected(name: str) -> registry.Factory:
    """Returns the version of a plain configurable that reads its bindings, in the current scope."""
    entry = registry.ENTRIES[f'seg.{name}']
    return registry.Factory(entry, name, gin.get_configurable(entry.builder), tuple(gin.current_scope()))


def scope(name: str) -> contextlib.AbstractContextManager:
    """Enters a scope, in which bindings such as `eval/datasets.voc.split` apply."""
    return gin.config_scope(name)


# Parsing.


def parse(
    gin_files: Iterable[str] = (), gin_params: Iterable[str] = (), stand_ins: Mapping[str, Any] | None = None
) -> None:
    """Parses gin files, then single bindings, and locks the configuration. A later binding replaces an earlier one.

    Files are searched in the working directory, the package and the checkout; included files also in the folder of the
    file that includes them.

    Args:
      gin_files: paths, such as `gin/deeplab_voc.gin`.
      gin_params: bindings, such as `BATCH_SIZE=8`.
      stand_ins: values of macros that the files require (`NAME = %gin.REQUIRED`) and nothing sets.

    Raises:
      UserError: for the first mistake: place, value, near misses, next step.
    """
    if gin.config_is_locked():
        raise RuntimeError('The configuration is locked: call config.clear() before loading plugins and parsing again.')
    gin_statements.parse(gin_files, gin_params, _apply, _Delegate())
    for name, value in (stand_ins or {}).items():
        bound = gin.config._CONFIG.get((name, MACRO), {}).get('value')
        if 'gin.REQUIRED' in map(name_of_macro, references(bound)):
            gin.bind_parameter((name, MACRO, 'value'), value)
    _check_macros()
    try:
        gin.finalize()
    except Exception as error:  # Raised by a user's finalize hook.
        raise UserError(f'A gin finalize hook refused the configuration: {error}') from error


def _apply(statement: Any, source: Source, stack: tuple[str, ...]) -> None:
    place = source.place(statement.location.line_num)
    if isinstance(statement, config_parser.BindingStatement):
        scope_name, selector, parameter, value, _ = statement
        if parameter:
            part = _find(selector)
            _check_parameter(part, parameter)
            binding = (scope_name, part.selector, parameter)
        else:
            binding = (f'{scope_name}/{selector}' if scope_name else selector, MACRO, 'value')
        gin.bind_parameter(binding, value)
        _places[binding] = place
    elif isinstance(statement, config_parser.BlockDeclaration):
        _find(statement.selector)
    elif isinstance(statement, config_parser.ImportStatement):
        if statement.module.startswith('__gin__'):
            raise Problem('dynamic registration is not supported: register the part and import its module.')
        plugins.load_module(statement.module, place.text)
    elif statement.filename.endswith('.py'):  # A snapshot names plugin files in this way.
        plugins.load_file(statement.filename, place.text, stack[-1] if stack else None)
    else:
        gin_statements.parse_file(statement.filename, place.text, stack, _apply, _Delegate())


class _Delegate(gin.config.ParserDelegate):
    """Checks references while their line is parsed."""

    def configurable_reference(self, scoped_selector, evaluate):
        part = _find(scoped_selector.rpartition('/')[2], '@')
        entry = registry.ENTRIES.get(part.selector)
        if evaluate and entry and entry.kind:
            raise Problem(f'write @{scoped_selector}, without (): the part that receives the reference calls it.')
        return super().configurable_reference(scoped_selector, evaluate)


def _find(selector: str, sign: str = '') -> gin.config.Configurable:
    known = gin.config._REGISTRY
    matches = known.matching_selectors(selector)
    if len(matches) > 1:
        choices = ' or '.join(sign + gin_spelling.key(match) for match in sorted(matches))
        raise Problem(f'{sign}{selector} can mean several things: write {choices}.')
    if not matches:
        raise Problem(f'{sign}{selector}: {registry.unknown(selector)}')
    return known[matches[0]]


def _check_parameter(part: gin.config.Configurable, parameter: str) -> None:
    key, entry = gin_spelling.key(part.selector), registry.ENTRIES.get(part.selector)
    settable = entry.settable if entry else tuple(inspect.signature(part.wrapped).parameters)
    home = f' ({entry.place})' if entry else ''
    if parameter in (part.denylist or ()):
        raise Problem(
            f'{parameter!r} of {key}{home} is supplied by the framework and cannot be bound. Remove the binding; '
            f'what can be bound: {", ".join(settable) or "nothing"}.'
        )
    if not gin.config._might_have_parameter(part.wrapped, parameter):
        hints = ''.join(f' Did you mean {near}?' for near in registry.near_misses(parameter, settable)[:1])
        raise Problem(f'{key}{home} has no parameter {parameter!r}.{hints} It has: {", ".join(settable) or "none"}.')


def _check_macros() -> None:
    """Refuses macros that are undefined, circular, or required and not set."""
    config = gin.config._CONFIG
    macros = {name for name, selector in config if selector == MACRO}
    for (scope_name, selector), parameters in config.items():
        for parameter, value in parameters.items():
            key, place = gin_spelling.binding(scope_name, selector, parameter), _place(scope_name, selector, parameter)
            for name in filter(None, map(name_of_macro, references(value))):
                if name == 'gin.REQUIRED':
                    raise UserError(f'{place}: {key} has to be set, for example with --gin_param="{key}=..."')
                if name not in macros and not gin.config._CONSTANTS.matching_selectors(name):
                    hints = ''.join(f' Did you mean %{near}?' for near in registry.near_misses(name, macros)[:1])
                    raise UserError(
                        f'{place}: {key} = {literal(value)} uses the macro %{name}, which is defined nowhere.{hints} '
                        f'Define it in a gin file, or with --gin_param="{name}=..."'
                    )
    for name in macros:
        seen, todo = set(), [name]
        while todo:
            for other in filter(None, map(name_of_macro, references(config.get((todo.pop(), MACRO), {})))):
                if other == name:
                    raise UserError(f'{_place(name, MACRO, "value")}: the macro {name} is defined by itself.')
                if other not in seen:
                    seen.add(other)
                    todo.append(other)


def _place(scope_name: str, selector: str, parameter: str) -> str:
    return _places.get((scope_name, selector, parameter), _IN_PYTHON).text


def origin(message: str) -> str:
    """Where the setting is bound that a message begins with, as in 'RunConfig.batch_size = 0: …'; '' if nowhere."""
    match = re.match(r'([\w/]+(?:\.\w+)+) = ', message)
    for scope_name, selector, parameter in _bindings() if match else ():
        value = gin.config._CONFIG[scope_name, selector][parameter]
        same = match[1] in (
            gin_spelling.binding(scope_name, selector, parameter), f'{gin_spelling.key(selector)}.{parameter}'
        )  # fmt: skip
        if same and message[match.end() :].startswith(literal(value, resolve=True)):
            found = f'It is bound at {_place(scope_name, selector, parameter)}'
            macros_used = [name for name in map(name_of_macro, references(value)) if name]
            places = [f'%{name}, set at {_place(name, MACRO, "value")}' for name in macros_used]
            return f'{found}{" to " if places else ""}{"; ".join(places)}.'
    return ''


# Unused bindings.


def unused(idle: Iterable[str] = ()) -> list[unused_bindings.Unused]:
    """Lists the bindings that were not read. To be called when everything is built.

    Mistakes are: a binding of the command line; a macro that nothing refers to; a scope that is neither entered nor
    referred to; a parameter of a part that was built, in its scope, but not from this binding. Only noted are bindings
    of parts that were not built, because another part is used or the mode does not need them.

    Args:
      idle: globs of bindings that this mode does not read, such as `optimizers.*` or `eval/*` (a glob is matched
        against `scope/kind.name.parameter`). They are noted on the command line, and ignored in a file.
    """
    bindings = []
    for scope_name, selector, parameter in _bindings():
        found = references(gin.config._CONFIG[scope_name, selector][parameter])
        place = _places.get((scope_name, selector, parameter), _IN_PYTHON)
        macro = selector == MACRO
        bindings.append(
            unused_bindings.Binding(
                scope=scope_name,
                part='' if macro else gin_spelling.key(selector),
                parameter='' if macro else parameter,
                place=place.text,
                command_line=place.command_line,
                macros=tuple(filter(None, map(name_of_macro, found))),
                scopes=tuple('/'.join(r.scopes) for r in found if name_of_macro(r) is None),
            )
        )
    operative = gin.config._OPERATIVE_CONFIG
    calls = {
        (name, gin_spelling.key(selector)): set(read)
        for (name, selector), read in operative.items()
        if selector not in _INTERNAL
    }
    macros_read = {name for name, selector in operative if selector == MACRO}
    return unused_bindings.find(bindings, calls, macros_read, idle)


def report_unused(idle: Iterable[str] = ()) -> str:
    """Refuses unused bindings that are mistakes; returns a note about the others, or ''.

    Raises:
      UserError: listing each mistake that `unused` found.
    """
    found = unused(idle)
    mistakes = [f'  {item.place}: {item.key}: {item.reason}.' for item in found if item.error]
    if mistakes:
        raise UserError('Unused bindings (correct or remove them):\n' + '\n'.join(mistakes))
    by_reason: dict[str, list[str]] = {}
    for item in found:
        by_reason.setdefault(item.reason, []).append(f'{item.key} ({item.place})')
    notes = [f'  {", ".join(items)}: {why}.' for why, items in by_reason.items()]
    return '\n'.join(['Bindings without effect in this run:', *notes]) if notes else ''


def _bindings() -> list[Binding]:
    return [(*key, parameter) for key, parameters in gin.config._CONFIG.items() for parameter in parameters]


# Snapshots.


def snapshot() -> str:
    """Text of `config.gin`: plugins and all bindings; parsing it gives the same configuration."""
    return _text(gin.config._CONFIG)


def operative() -> str:
    """Text of `operative_config.gin`: the values in use, with defaults, of all parts built so far."""
    return _text(gin.config._OPERATIVE_CONFIG)


def _text(config: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    bindings = [(*key, *item) for key, parameters in config.items() for item in parameters.items()]
    macros = sorted((name, value) for name, selector, _, value in bindings if selector == MACRO)
    groups: dict[tuple[str, str], list[str]] = {}
    for scope_name, selector, parameter, value in bindings:
        if selector not in _INTERNAL:
            line = _line(gin_spelling.binding(scope_name, selector, parameter), value)
            groups.setdefault((gin_spelling.key(selector), scope_name), []).append(line)
    sections = [[*plugins.recorded]] if plugins.recorded else []
    if macros:
        sections.append(['# Macros', *(_line(name, value) for name, value in macros)])
    for (key, scope_name), lines in sorted(groups.items()):
        sections.append([f'# {scope_name}{"/" if scope_name else ""}{key}', *sorted(lines)])
    return '\n\n'.join('\n'.join(section) for section in sections) + '\n'


def _line(key: str, value: Any) -> str:
    return f'{key} = ' + pprint.pformat(spelled(value), width=max(40, 120 - len(key)), compact=True, sort_dicts=False)


def operative_values() -> dict[str, str]:
    """Returns `scope/kind.name.parameter` -> literal of every value in use, macros replaced by their values."""
    return _values(gin.config._OPERATIVE_CONFIG)


def bound_values() -> dict[str, str]:
    """Returns the same for every bound value, used or not."""
    return _values(gin.config._CONFIG)


def _values(config: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, str]:
    return {
        gin_spelling.binding(*key, parameter): literal(value, resolve=True)
        for key, parameters in config.items()
        if key[1] not in _INTERNAL
        for parameter, value in parameters.items()
    }


def macros() -> dict[str, Any]:
    """Returns the values of all macros by name; a reference is its spelling."""
    return {
        name: spelled(values['value'], resolve=True)
        for (name, selector), values in gin.config._CONFIG.items()
        if selector == MACRO
    }


def declared_free(key: str) -> bool:
    """Returns whether `scope/kind.name.parameter` was registered as free to change when a run is resumed."""
    part, _, parameter = key.rpartition('/')[2].rpartition('.')
    entry = registry.ENTRIES.get(f'seg.{part}')
    return entry is not None and parameter in entry.free


def markdown(text: str) -> str:
    """Formats a snapshot as a block of code, for TensorBoard, which renders Markdown."""
    return '\n'.join(f'    {line}' for line in text.splitlines())
