"""Gin files: search, text, places of lines, and explanations of syntax errors."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import re
from typing import NamedTuple

from seg import files, registry
from seg.errors import UserError, shown_path

_SEG = pathlib.Path(__file__).resolve().parent
# The library has the name of our folder `gin/`: next to an installed `seg` is its package, not our files.
_GIN_LIBRARY = pathlib.Path(importlib.util.find_spec('gin').origin).resolve().parent


class Place(NamedTuple):
    """File and line, or flag, of a binding."""

    text: str
    command_line: bool


@dataclasses.dataclass(frozen=True)
class Source:
    """A gin file or the text of one --gin_param."""

    label: str
    text: str
    command_line: bool

    def place(self, line: int) -> Place:
        return Place(self.label if self.command_line else f'{self.label}:{line}', self.command_line)

    def error(self, line: int, problem: str) -> UserError:
        lines = self.text.splitlines()
        quoted = f'\n    {lines[line - 1].strip()}' if not self.command_line and 0 < line <= len(lines) else ''
        return UserError(f'{self.place(line).text}: {problem}{quoted}')


def find_file(name: str, place: str, beside: str | None = None) -> pathlib.Path:
    """Finds a gin file in the working directory, the package's data or the checkout; never in gin, the library.

    Args:
      name: path as written; '~' is the home directory.
      place: file and line, or flag, that names it, for messages.
      beside: file that includes it, whose folder is searched after the working directory.

    Raises:
      UserError: if there is none; it lists the searched paths and near misses.
    """
    roots = [pathlib.Path.cwd(), _SEG / '_files', _SEG.parent]
    near_by = [pathlib.Path(beside).parent] if beside else []
    paths = [root / os.path.expanduser(name) for root in [roots[0], *near_by, *roots[1:]]]
    paths = [path for path in paths if _GIN_LIBRARY not in path.resolve().parents]
    for path in paths:
        if path.is_file():
            return path
        if kind := files.irregular(str(path)):
            raise UserError(f'{place}: {str(path)!r} is {kind}, expected a gin file.')
    folders = [(root, root / 'gin') for root in roots[1:] if (root / 'gin').resolve() != _GIN_LIBRARY]
    known = {str(file.relative_to(root)) for root, folder in folders for file in folder.glob('**/*.gin')}
    near_by += [roots[0] / os.path.dirname(os.path.expanduser(name))]
    known |= {shown_path(file) for folder in near_by for file in folder.glob('*.gin')}
    by_name = {os.path.basename(file): file for file in sorted(known)}
    near = registry.near_misses(name, known)
    near += [by_name[other] for other in registry.near_misses(os.path.basename(name), by_name)]
    hints = ''.join(f'\n  Did you mean {file}?' for file in list(dict.fromkeys(near))[:3])
    looked = '\n  '.join(dict.fromkeys(str(path) for path in paths))
    raise UserError(f'{place}: no gin file {name!r}. Searched:\n  {looked}{hints}')


def read_text(path: str | os.PathLike, place: str) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
      UserError: if the file cannot be read or is not UTF-8.
    """
    content = files.read_bytes(str(path))
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise UserError(
            f'{place}: {str(path)!r} is not UTF-8: line {line} contains the byte {content[error.start]:#04x}. Save it '
            'as UTF-8.'
        ) from None
    if '\0' in text:
        raise UserError(f'{place}: {str(path)!r} contains a zero byte, so it is not a text file. Check the path.')
    return text


def syntax_hint(source: Source, line: int, message: str) -> str:
    """Explains a syntax error by the most frequent causes."""
    text = (source.text.splitlines() or [''])[min(line, len(source.text.splitlines()) or 1) - 1]
    match = re.match(r'\s*([\w./]+)\s*=\s*(.*?)\s*(#.*)?$', text)
    if not match:
        return f'{message} Expected NAME = value, part.parameter = value, a block `part:`, import or include.'
    name, value = match[1], match[2]
    constants = {'true': 'True', 'false': 'False', 'none': 'None', 'null': 'None'}
    quoted = f'--gin_param="{name}=\'{value}\'"' if source.command_line else f"{name} = '{value}'"
    parts = [entry for entry in registry.ENTRIES.values() if entry.kind]
    names = [entry for entry in parts if value in (entry.key, entry.name)]
    bare = [e for e in parts if re.search(rf'(?<![\w.@/\'"]){re.escape(e.key)}(?!\w)', value)]
    if value.lower() in constants:
        return f'write {constants[value.lower()]}, as in Python.'
    if names:
        return f'a reference starts with @: {name} = {names[0].reference} (and a string needs quotes: {quoted})'
    if bare:
        return f'a reference starts with @: write {bare[0].reference} in place of {bare[0].key}.'
    if not value:
        return f'{name} has no value.'
    if re.fullmatch(r'[-+*/\d\s.e_()]+', value):
        return f'{value!r} is not a single number; gin has no arithmetic, so write the result.'
    if value[0] not in '\'"([{@%-' and not value[0].isdigit():
        # Before any part is loaded, a word may be the name of one.
        reference = value if value.partition('.')[0] in registry.KINDS else f'backbones.{value}'
        other = '' if parts or not re.fullmatch(r'[\w.]+', value) else f'; a reference starts with @: @{reference}'
        return f'strings need quotes: {quoted}{other}'
    message = 'this is not a value.' if 'malformed node' in message else message
    return f'{message} Values are Python literals, @references and %MACROS.'
