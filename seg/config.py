"""Gin files and flags: parsing, hints, unused bindings, snapshots. With `registry`, the only user of gin's internals.

gin 0.5.0 does not record where a binding came from, follows includes only on its own search path, and its errors are
hard to read. So the statements of its parser are applied here, one by one: each binding is checked against the
registry, recorded with its place and passed to gin, which resolves and injects the values.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import pprint
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from seg import plugins, registry, unused_bindings
from seg.errors import UserError, shown_path
from seg.gin_files import Place, Source, find_file, read_text, syntax_hint

import gin  # isort: skip  After the registry, which prepares it.
from gin import config_parser

# Scopes of the bindings of one data set: `train/datasets.voc_layout.split`.
TRAIN_SCOPE, EVAL_SCOPE = 'train', 'eval'

_MACRO = 'gin.macro'
_INTERNAL = (_MACRO, 'gin.constant', 'gin.singleton')

Binding = tuple[str, str, str]  # (scope, full selector, parameter)
_Apply = Callable[[Any, Source, tuple[str, ...]], None]  # Treats one statement of a text, within its including files.


class _Problem(Exception):
    """A mistake of the user's; the caller adds its place."""


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
    for name in gin_files:
        _parse_file(name, '--gin_file', ())
    for param in gin_params:
        _parse(Source(f'--gin_param="{param}"', param, command_line=True), ())
    for name, value in (stand_ins or {}).items():
        bound = gin.config._CONFIG.get((name, _MACRO), {}).get('value')
        if 'gin.REQUIRED' in map(_name_of_macro, _references(bound)):
            gin.bind_parameter((name, _MACRO, 'value'), value)
    _check_macros()
    try:
        gin.finalize()
    except Exception as error:  # Raised by a user's finalize hook.
        raise UserError(f'A gin finalize hook refused the configuration: {error}') from error


def check_syntax(gin_files: Iterable[str] = (), gin_params: Iterable[str] = ()) -> None:
    """Refuses missing files, and text that is not gin's, before any part is loaded. Binds nothing.

    Raises:
      UserError: for the first mistake.
    """
    for name in gin_files:
        _parse_file(name, '--gin_file', (), _follow)
    for param in gin_params:
        _parse(Source(f'--gin_param="{param}"', param, command_line=True), (), _follow)


def _parse_file(name: str, place: str, stack: tuple[str, ...], apply: _Apply | None = None) -> None:
    path = find_file(name, place, stack[-1] if stack else None)
    real = os.path.realpath(path)
    if real in stack:
        raise UserError(f'{place}: {name!r} includes itself: {" -> ".join([*stack, real])}')
    _parse(Source(shown_path(path), read_text(path, place), command_line=False), (*stack, real), apply)


def _parse(source: Source, stack: tuple[str, ...], apply: _Apply | None = None) -> None:
    """Parses a text and passes each statement to `apply`; by default it is checked and bound."""
    delegate = _AnyName() if apply else _Delegate()
    try:
        for statement in config_parser.ConfigParser(io.StringIO(source.text), delegate):
            try:
                (apply or _apply)(statement, source, stack)
            except _Problem as problem:
                raise source.error(statement.location.line_num, str(problem)) from None
    except _Problem as problem:  # Raised by the delegate within a value; gin adds the line as a note.
        line = int(re.search(r'line (\d+)', '\n'.join(problem.__notes__))[1])
        raise source.error(line, str(problem)) from None
    except SyntaxError as error:
        line = error.lineno or 1
        raise source.error(line, f'cannot be read: {syntax_hint(source, line, error.msg)}') from None
    except tokenize.TokenError as error:
        message, (line, _) = error.args
        raise source.error(min(line, len(source.text.splitlines())), f'a bracket or quote is open: {message}') from None


def _apply(statement: Any, source: Source, stack: tuple[str, ...]) -> None:
    place = source.place(statement.location.line_num)
    if isinstance(statement, config_parser.BindingStatement):
        scope_name, selector, parameter, value, _ = statement
        if parameter:
            part = _find(selector)
            _check_parameter(part, parameter)
            binding = (scope_name, part.selector, parameter)
        else:
            binding = (f'{scope_name}/{selector}' if scope_name else selector, _MACRO, 'value')
        gin.bind_parameter(binding, value)
        _places[binding] = place
    elif isinstance(statement, config_parser.BlockDeclaration):
        _find(statement.selector)
    elif isinstance(statement, config_parser.ImportStatement):
        if statement.module.startswith('__gin__'):
            raise _Problem('dynamic registration is not supported: register the part and import its module.')
        plugins.load_module(statement.module, place.text)
    elif statement.filename.endswith('.py'):  # A snapshot names plugin files in this way.
        plugins.load_file(statement.filename, place.text, stack[-1] if stack else None)
    else:
        _parse_file(statement.filename, place.text, stack)


def macros_of(gin_files: Iterable[str], gin_params: Iterable[str] = ()) -> dict[str, tuple[str, str]]:
    """Returns (literal, place) of each macro of gin files and bindings by its name, those of the first file first.

    Raises:
      UserError: as `check_syntax`, whose conditions hold.
    """
    found: dict[str, tuple[str, str]] = {}

    def add(statement: Any, source: Source, stack: tuple[str, ...]) -> None:
        if isinstance(statement, config_parser.BindingStatement) and not statement.arg_name:
            name = f'{statement.scope}/{statement.selector}' if statement.scope else statement.selector
            found[name] = _literal(statement.value), source.place(statement.location.line_num).text
        _follow(statement, source, stack, add)

    for name in gin_files:
        _parse_file(name, '--gin_file', (), add)
    for param in gin_params:
        _parse(Source(f'--gin_param="{param}"', param, command_line=True), (), add)
    return found


def _follow(statement: Any, source: Source, stack: tuple[str, ...], apply: _Apply | None = None) -> None:
    """Parses the gin file that an `include` names, with `apply` or itself, and ignores all other statements."""
    if isinstance(statement, config_parser.IncludeStatement) and not statement.filename.endswith('.py'):
        place = source.place(statement.location.line_num)
        _parse_file(statement.filename, place.text, stack, apply or _follow)


class _AnyName(config_parser.ParserDelegate):
    """Accepts every reference and macro; their values are their spellings."""

    def configurable_reference(self, scoped_selector, evaluate):
        return _Verbatim(f'@{scoped_selector}{"()" if evaluate else ""}')

    def macro(self, macro_name):
        return _Verbatim(f'%{macro_name}')


class _Delegate(gin.config.ParserDelegate):
    """Checks references while their line is parsed."""

    def configurable_reference(self, scoped_selector, evaluate):
        part = _find(scoped_selector.rpartition('/')[2], '@')
        entry = registry.ENTRIES.get(part.selector)
        if evaluate and entry and entry.kind:
            raise _Problem(f'write @{scoped_selector}, without (): the part that receives the reference calls it.')
        return super().configurable_reference(scoped_selector, evaluate)


def _find(selector: str, sign: str = '') -> gin.config.Configurable:
    known = gin.config._REGISTRY
    matches = known.matching_selectors(selector)
    if len(matches) > 1:
        choices = ' or '.join(sign + _key(match) for match in sorted(matches))
        raise _Problem(f'{sign}{selector} can mean several things: write {choices}.')
    if not matches:
        raise _Problem(f'{sign}{selector}: {registry.unknown(selector)}')
    return known[matches[0]]


def _check_parameter(part: gin.config.Configurable, parameter: str) -> None:
    key, entry = _key(part.selector), registry.ENTRIES.get(part.selector)
    settable = entry.settable if entry else tuple(inspect.signature(part.wrapped).parameters)
    home = f' ({entry.place})' if entry else ''
    if parameter in (part.denylist or ()):
        raise _Problem(
            f'{parameter!r} of {key}{home} is supplied by the framework and cannot be bound. Remove the binding; '
            f'what can be bound: {", ".join(settable) or "nothing"}.'
        )
    if not gin.config._might_have_parameter(part.wrapped, parameter):
        hints = ''.join(f' Did you mean {near}?' for near in registry.near_misses(parameter, settable)[:1])
        raise _Problem(f'{key}{home} has no parameter {parameter!r}.{hints} It has: {", ".join(settable) or "none"}.')


# References, macros and their spelling.


def _references(value: Any) -> list[gin.config.ConfigurableReference]:
    return list(gin.config.iterate_references(value))


def _name_of_macro(reference: gin.config.ConfigurableReference) -> str | None:
    """Returns NAME of %NAME, or None for a reference to something else."""
    return '/'.join(reference.scopes) if reference.configurable.selector in (_MACRO, 'gin.constant') else None


def _check_macros() -> None:
    """Refuses macros that are undefined, circular, or required and not set."""
    config = gin.config._CONFIG
    macros = {name for name, selector in config if selector == _MACRO}
    for (scope_name, selector), parameters in config.items():
        for parameter, value in parameters.items():
            key, place = _spell_key(scope_name, selector, parameter), _place(scope_name, selector, parameter)
            for name in filter(None, map(_name_of_macro, _references(value))):
                if name == 'gin.REQUIRED':
                    raise UserError(f'{place}: {key} has to be set, for example with --gin_param="{key}=..."')
                if name not in macros and not gin.config._CONSTANTS.matching_selectors(name):
                    hints = ''.join(f' Did you mean %{near}?' for near in registry.near_misses(name, macros)[:1])
                    raise UserError(
                        f'{place}: {key} = {_literal(value)} uses the macro %{name}, which is defined nowhere.{hints} '
                        f'Define it in a gin file, or with --gin_param="{name}=..."'
                    )
    for name in macros:
        seen, todo = set(), [name]
        while todo:
            for other in filter(None, map(_name_of_macro, _references(config.get((todo.pop(), _MACRO), {})))):
                if other == name:
                    raise UserError(f'{_place(name, _MACRO, "value")}: the macro {name} is defined by itself.')
                if other not in seen:
                    seen.add(other)
                    todo.append(other)


class _Verbatim(str):
    __repr__ = str.__str__


def _spelled(value: Any, resolve: bool = False) -> Any:
    """Replaces references by text that `repr` writes without quotes; with `resolve`, macros by their values."""
    if isinstance(value, gin.config.ConfigurableReference):
        name = _name_of_macro(value)
        if name is None:
            called = '()' if value.evaluate else ''
            return _Verbatim('@' + '/'.join([*value.scopes, _key(value.configurable.selector)]) + called)
        if resolve and (name, _MACRO) in gin.config._CONFIG:
            return _spelled(gin.config._CONFIG[name, _MACRO]['value'], resolve)
        return _Verbatim(f'%{name}')
    if isinstance(value, Mapping):
        return {_spelled(key, resolve): _spelled(item, resolve) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_spelled(item, resolve) for item in value)
    return value


def _literal(value: Any, resolve: bool = False) -> str:
    return repr(_spelled(value, resolve))


def _key(selector: str) -> str:
    entry = registry.ENTRIES.get(selector)
    return entry.key if entry else selector


def _spell_key(scope_name: str, selector: str, parameter: str) -> str:
    if selector == _MACRO:
        return scope_name
    return f'{scope_name}{"/" if scope_name else ""}{_key(selector)}.{parameter}'


def _place(scope_name: str, selector: str, parameter: str) -> str:
    return _places.get((scope_name, selector, parameter), _IN_PYTHON).text


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
        references = _references(gin.config._CONFIG[scope_name, selector][parameter])
        place = _places.get((scope_name, selector, parameter), _IN_PYTHON)
        macro = selector == _MACRO
        bindings.append(
            unused_bindings.Binding(
                scope=scope_name,
                part='' if macro else _key(selector),
                parameter='' if macro else parameter,
                place=place.text,
                command_line=place.command_line,
                macros=tuple(filter(None, map(_name_of_macro, references))),
                scopes=tuple('/'.join(r.scopes) for r in references if _name_of_macro(r) is None),
            )
        )
    operative = gin.config._OPERATIVE_CONFIG
    calls = {
        (name, _key(selector)): set(read) for (name, selector), read in operative.items() if selector not in _INTERNAL
    }
    macros_read = {name for name, selector in operative if selector == _MACRO}
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
    by_reason: dict[str, list[unused_bindings.Unused]] = {}
    for item in found:
        by_reason.setdefault(item.reason, []).append(item)
    notes = [f'  {items[0].place}: {", ".join(i.key for i in items)}: {why}.' for why, items in by_reason.items()]
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
    macros = sorted((name, value) for name, selector, _, value in bindings if selector == _MACRO)
    groups: dict[tuple[str, str], list[str]] = {}
    for scope_name, selector, parameter, value in bindings:
        if selector not in _INTERNAL:
            line = _line(_spell_key(scope_name, selector, parameter), value)
            groups.setdefault((_key(selector), scope_name), []).append(line)
    sections = [[*plugins.recorded]] if plugins.recorded else []
    if macros:
        sections.append(['# Macros', *(_line(name, value) for name, value in macros)])
    for (key, scope_name), lines in sorted(groups.items()):
        sections.append([f'# {scope_name}{"/" if scope_name else ""}{key}', *sorted(lines)])
    return '\n\n'.join('\n'.join(section) for section in sections) + '\n'


def _line(key: str, value: Any) -> str:
    return f'{key} = ' + pprint.pformat(_spelled(value), width=max(40, 120 - len(key)), compact=True, sort_dicts=False)


def operative_values() -> dict[str, str]:
    """Returns `scope/kind.name.parameter` -> literal of every value in use, macros replaced by their values."""
    return _values(gin.config._OPERATIVE_CONFIG)


def bound_values() -> dict[str, str]:
    """Returns the same for every bound value, used or not."""
    return _values(gin.config._CONFIG)


def _values(config: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, str]:
    return {
        _spell_key(*key, parameter): _literal(value, resolve=True)
        for key, parameters in config.items()
        if key[1] not in _INTERNAL
        for parameter, value in parameters.items()
    }


def macros() -> dict[str, Any]:
    """Returns the values of all macros by name; a reference is its spelling."""
    return {
        name: _spelled(values['value'], resolve=True)
        for (name, selector), values in gin.config._CONFIG.items()
        if selector == _MACRO
    }


def declared_free(key: str) -> bool:
    """Returns whether `scope/kind.name.parameter` was registered as free to change when a run is resumed."""
    part, _, parameter = key.rpartition('/')[2].rpartition('.')
    entry = registry.ENTRIES.get(f'seg.{part}')
    return entry is not None and parameter in entry.free


def markdown(text: str) -> str:
    """Formats a snapshot as a block of code, for TensorBoard, which renders Markdown."""
    return '\n'.join(f'    {line}' for line in text.splitlines())
