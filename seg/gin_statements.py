"""The statements of gin files and bindings, one by one, with the places of mistakes.

Without the registered parts they can be checked for their syntax, and read for their macros.
"""

from __future__ import annotations

import io
import os
import re
import tokenize
from collections.abc import Callable, Iterable
from typing import Any

from seg.errors import UserError, shown_path
from seg.gin_files import Source, find_file, read_text, syntax_hint
from seg.gin_spelling import Verbatim, literal

from gin import config_parser  # isort: skip  After the registry, which prepares gin.

Apply = Callable[[Any, Source, tuple[str, ...]], None]  # Treats one statement of a text, within its including files.


class Problem(Exception):
    """A mistake of the user's in a statement; `parse` adds the place."""


def parse(
    gin_files: Iterable[str], gin_params: Iterable[str], apply: Apply, delegate: config_parser.ParserDelegate
) -> None:
    """Passes each statement of gin files, then of bindings, to `apply`.

    Args:
      gin_files: paths as written.
      gin_params: bindings, such as `BATCH_SIZE=8`.
      apply: may raise `Problem`. Of an `include` it has to call `parse_file`.
      delegate: makes the values of references and macros; may raise `Problem`.

    Raises:
      UserError: for the first mistake.
    """
    for name in gin_files:
        parse_file(name, '--gin_file', (), apply, delegate)
    for param in gin_params:
        _parse(Source(f'--gin_param="{param}"', param, command_line=True), (), apply, delegate)


def parse_file(
    name: str, place: str, stack: tuple[str, ...], apply: Apply, delegate: config_parser.ParserDelegate
) -> None:
    """Does the same for one file.

    Args:
      name: path as written.
      place: the file and line, or the flag, that names it.
      stack: real paths of the files that include it, the outermost first.
      apply: as for `parse`.
      delegate: as for `parse`.
    """
    path = find_file(name, place, stack[-1] if stack else None)
    real = os.path.realpath(path)
    if real in stack:
        raise UserError(f'{place}: {name!r} includes itself: {" -> ".join([*stack, real])}')
    source = Source(shown_path(path), read_text(path, place), command_line=False)
    _parse(source, (*stack, real), apply, delegate)


def _parse(source: Source, stack: tuple[str, ...], apply: Apply, delegate: config_parser.ParserDelegate) -> None:
    try:
        for statement in config_parser.ConfigParser(io.StringIO(source.text), delegate):
            try:
                apply(statement, source, stack)
            except Problem as problem:
                raise source.error(statement.location.line_num, str(problem)) from None
    except Problem as problem:  # Raised by the delegate within a value; gin adds the line as a note.
        line = int(re.search(r'line (\d+)', '\n'.join(problem.__notes__))[1])
        raise source.error(line, str(problem)) from None
    except SyntaxError as error:
        line = error.lineno or 1
        raise source.error(line, f'cannot be read: {syntax_hint(source, line, error.msg)}') from None
    except tokenize.TokenError as error:
        message, (line, _) = error.args
        raise source.error(min(line, len(source.text.splitlines())), f'a bracket or quote is open: {message}') from None


# Without the registered parts.


def check_syntax(gin_files: Iterable[str] = (), gin_params: Iterable[str] = ()) -> None:
    """Refuses missing files, and text that is not gin's, before any part is loaded. Binds nothing.

    Raises:
      UserError: for the first mistake.
    """
    macros_of(gin_files, gin_params)


def macros_of(gin_files: Iterable[str], gin_params: Iterable[str] = ()) -> dict[str, tuple[str, str]]:
    """Returns (literal, place) of each macro of gin files and bindings by its name, those of the first file first.

    Raises:
      UserError: as `check_syntax`.
    """
    found: dict[str, tuple[str, str]] = {}
    delegate = _AnyName()

    def add(statement: Any, source: Source, stack: tuple[str, ...]) -> None:
        place = source.place(statement.location.line_num).text
        if isinstance(statement, config_parser.BindingStatement) and not statement.arg_name:
            name = f'{statement.scope}/{statement.selector}' if statement.scope else statement.selector
            found[name] = literal(statement.value), place
        if isinstance(statement, config_parser.IncludeStatement) and not statement.filename.endswith('.py'):
            parse_file(statement.filename, place, stack, add, delegate)

    parse(gin_files, gin_params, add, delegate)
    return found


class _AnyName(config_parser.ParserDelegate):
    """Accepts every reference and macro; their values are their spellings."""

    def configurable_reference(self, scoped_selector, evaluate):
        return Verbatim(f'@{scoped_selector}{"()" if evaluate else ""}')

    def macro(self, macro_name):
        return Verbatim(f'%{macro_name}')
