"""Tables of the colours that stand for classes in label maps."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from seg.drawing.labels import color_of
from seg.errors import UserError, shown
from seg.files import read_bytes

_HEX = re.compile(r'#([0-9a-fA-F]{6})\b')
_EXPECTED = "'name = #rrggbb', or a CSV row 'name,r,g,b' with numbers from 0 to 255"
_COLUMNS = {
    'name': ('name', 'class', 'class_name', 'classname', 'label', 'category'),
    'r': ('r', 'red'),
    'g': ('g', 'green'),
    'b': ('b', 'blue'),
}


class ColorTable(NamedTuple):
    """Names of classes, and the colour of each, (r, g, b)."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]


def make(slot: str, value: Any, path: str | None) -> ColorTable:
    """Makes the table of the setting `slot`.

    Args:
      slot: the setting, such as 'datasets.folders.colors'.
      value: a dict from names to '#rrggbb' or (r, g, b); or the path of a file, for messages.
      path: the file: lines `name = #rrggbb`, or CSV (comma, semicolon, tab or colon) with a header, or rows
        name, r, g, b. Empty lines and lines that begin with '#', other than a colour, are comments.

    Raises:
      UserError: if a line or an entry is wrong, or a name or a colour occurs twice.
    """
    if isinstance(value, Mapping):
        rows = [
            (f'{slot}[{shown(name)}]', str(name), color_of(f'{slot}[{shown(name)}]', v)) for name, v in value.items()
        ]
    elif path is not None:
        rows = _rows(path)
    else:
        raise UserError(
            f"{slot} = {shown(value)}: expected a dict, such as {{'road': '#804080'}}, or the path of a table."
        )
    if len(rows) < 2:
        raise UserError(f'{slot} = {shown(value)}: it has {len(rows)} colours, expected at least two.')
    for kind, place in (('name', 1), ('colour', 2)):
        seen: dict[Any, str] = {}
        for row in rows:
            if row[place] in seen:
                text = shown(row[1]) if kind == 'name' else '#{:02x}{:02x}{:02x}'.format(*row[2])
                more = ' To join classes, give them different names, and use merge.' if kind == 'name' else ''
                raise UserError(f'{row[0]}: the {kind} {text} is also in {seen[row[place]]}. Expected it once.{more}')
            seen[row[place]] = row[0]
    return ColorTable(tuple(row[1] for row in rows), tuple(row[2] for row in rows))


def _rows(path: str) -> list[tuple[str, str, tuple[int, int, int]]]:
    """Place, name and colour of each line of a file."""
    try:
        text = read_bytes(path).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(f'{path}: expected a table in UTF-8; byte {error.start} is not. Save it as UTF-8.') from None
    lines = [(number, line.strip()) for number, line in enumerate(re.split('\r\n|\r|\n', text), start=1)]
    lines = [(number, line) for number, line in lines if line and (line[0] != '#' or _HEX.match(line))]
    rows, columns = [], None
    for number, line in lines:
        place = f'{path}, line {number}'
        if match := _HEX.search(line):
            name = f'{line[: match.start()]} {line[match.end() :]}'.strip().strip('=:,;\t "\'').strip()
            rows.append((place, name, tuple(bytes.fromhex(match[1]))))
        else:
            cells = _cells(line)
            if not rows and columns is None and (columns := _header(cells)):
                continue
            rows.append((place, *_row(place, line, cells, columns)))
        if not rows[-1][1]:
            raise UserError(f'{place}: {shown(line)} has no name. Expected {_EXPECTED}.')
    return rows


def _cells(line: str) -> list[str]:
    """The cells of a row; a colon stands between name and colour in CVAT's labelmap.txt, 'road:128,64,128::'."""
    delimiter = next((mark for mark in ';\t,' if mark in line), None)
    if ':' in line:
        line, delimiter = line.replace(':', ','), ','
    cells = line.split() if delimiter is None else next(csv.reader([line], delimiter=delimiter))
    return [cell.strip() for cell in cells]


def _header(cells: Sequence[str]) -> dict[str, int] | None:
    lower = [cell.lower() for cell in cells]
    found = {key: next((lower.index(name) for name in names if name in lower), None) for key, names in _COLUMNS.items()}
    return None if None in found.values() else found


def _row(place: str, line: str, cells: Sequence[str], columns: Mapping[str, int] | None):
    """Name and colour of a row: by the header's columns, else three numbers and the text beside them."""
    if columns is not None and len(cells) > max(columns.values()):
        name, numbers = cells[columns['name']], [cells[columns[key]] for key in 'rgb']
    else:
        name, numbers = '', []
        for start in range(len(cells) - 2):
            if all(cell.isdecimal() for cell in cells[start : start + 3]):
                numbers = cells[start : start + 3]
                rest = cells[:start] or cells[start + 3 :]
                name = ' '.join(cell for cell in rest if not cell.isdecimal())
                break
    if len(numbers) != 3 or not all(cell.isdecimal() and int(cell) <= 255 for cell in numbers):
        raise UserError(f'{place}: {shown(line)} is not the colour of a class. Expected {_EXPECTED}.')
    return name, tuple(map(int, numbers))
