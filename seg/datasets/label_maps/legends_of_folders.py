"""The meaning of label values in folders without a fixed layout: from settings, tables, and the values that occur."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from seg.datasets import checking, class_maps, findings, remembered
from seg.datasets.findings import Finding
from seg.datasets.label_maps import class_names as names_files
from seg.datasets.label_maps import color_table, decoding, stored_palette, values
from seg.datasets.label_maps import legend as legends
from seg.datasets.label_maps.color_table import ColorTable
from seg.datasets.label_maps.legend import COLORED, IGNORE, Legend
from seg.datasets.label_maps.semantic import Classes
from seg.datasets.label_maps.values import Fault, Values
from seg.drawing.palette import class_palette, instance_palette
from seg.errors import UserError, shown

_BINARY = (0, IGNORE)
_MOST_COLORS = 12  # Colours that a message lists.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a reader that give label values their meaning; `origin` is where `class_names` come from."""

    part: str
    target: str
    class_names: Sequence[str] | None
    origin: str
    values: Sequence[int] | None
    colors: Mapping[str, Any] | str | None
    colors_file: str | None
    classes: Sequence[str] | None
    merge: Mapping[str, str] | None
    void: Sequence[str] | None
    ignore_values: Sequence[int] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meaning:
    """The meaning of label values.

    Attributes:
      legend: the legend.
      classes: the classes.
      counted: the values of all label files, by path, if they had to be counted.
      remarks: findings about names that were not given.
      remedy: where classes are added, the end of a sentence.
      hint: a sentence about the settings that give values a meaning.
    """

    legend: Legend
    classes: Classes
    counted: Mapping[str, Values]
    remarks: Sequence[Finding]
    remedy: str
    hint: str


def make(
    settings: Settings,
    root: str,
    labels: Sequence[str],
    count: Callable[[], dict[str, Values]] | None = None,
) -> Meaning:
    """Finds the meaning of label values.

    Args:
      settings: the settings.
      root: folder of the data.
      labels: label files of all splits; empty for instances without label maps.
      count: returns the values of labels that are not files; called only if the classes follow from them.

    Raises:
      UserError: if a setting is wrong, or the classes should follow from the values and do not.
    """
    part, names, stored = settings.part, settings.class_names, settings.values
    counted: dict[str, Values] = {}
    remarks: list[Finding] = []
    origin = settings.origin
    ignored = class_maps.ignored_values(part, settings.ignore_values)
    by_color, table = settings.colors is not None, None
    remedy = f'to {settings.origin if settings.class_names else f"{part}.class_names"}'
    if names is not None:
        names = names_files.check(part, names, settings.origin)
    if settings.target == 'instances' and not labels:
        names = ('background', *(names or ('object',)))
        if len(names) != 2 or settings.values is not None or by_color:
            raise UserError(
                f'{part}.class_names = {shown(names[1:])}: without {part}.labels all instances are of one class. '
                'Expected one name, and neither values nor colors; or label maps, for the class of each instance.'
            )
        stored = (0, 1)
    elif by_color:
        if settings.ignore_values is not None:
            raise UserError(
                f'{part}.ignore_values = {shown(settings.ignore_values)}: labels are colours ({part}.colors). Expected '
                f'the name of the colour in the table, and in {part}.void.'
            )
        if stored is not None:
            raise UserError(
                f'{part}.values = {shown(stored)}: {part}.colors gives the colour of each class. Expected one of them.'
            )
        table = color_table.make(f'{part}.colors', settings.colors, settings.colors_file)
        if names is not None:
            table = _ordered(table, names, origin, settings.colors_file or f'{part}.colors')
        names, stored = table.names, tuple(65536 * r + 256 * g + b for r, g, b in table.colors)
        remedy = f'to {settings.colors_file or f"{part}.colors"}'
    elif stored is not None:
        stored = names_files.check_values(part, stored, names, lowest=-(2**15))
        if len(stored) < 2:
            raise UserError(f'{part}.values = {shown(stored)}: expected at least 2 label values.')
        names, origin = names or tuple(f'class {value}' for value in stored), f'{part}.values'
        remedy = f'to {part}.values and {part}.class_names'
    elif names is None or len(names) == 2:
        counted = count() if count else _count(part, root, labels, needed=names is None)
        occurring = sorted({value for item in counted.values() for value in item.values})
        binary = tuple(occurring) == _BINARY and settings.ignore_values is None
        if names is None:
            default = (IGNORE,) if settings.ignore_values is None else ignored
            names, stored = _by_values(part, root, [v for v in occurring if binary or v not in default], binary)
            remarks, origin = [_default_names(part, root, names, stored)], 'the values that occur without a gap'
        elif binary:
            stored = _BINARY
            logging.info('%s: labels hold 0 and 255 only: 255 is %s.', root, shown(names[1]))
    stored = stored or tuple(range(len(names)))
    if settings.ignore_values is None:
        ignored = () if IGNORE in stored or by_color or not labels else (IGNORE,)
    if both := [value for value in stored if value in ignored]:
        raise UserError(f'{part}.ignore_values has {both[0]}, which is a class. Expected other values.')
    first = 1 if settings.target == 'instances' else 0
    mapping = class_maps.class_map(part, names[first:], settings.classes, settings.merge, settings.void)
    origins = [first + n for n in mapping.origins]
    legend = Legend(
        names=tuple(names),
        values=tuple(stored),
        ids=legends.instance_ids(mapping) if first else legends.class_ids(mapping),
        ignored=tuple(ignored),
        origin=settings.colors_file or (f'{part}.colors' if by_color else origin),
        by_color=by_color,
    )
    original = tuple(stored[n] for n in origins)
    palette = table.colors if table else stored_palette.read(labels, names, stored) or _default_palette(names, first)
    same = by_color or original == tuple(range(len(original)))
    hint = (
        ''
        if by_color
        else f'The setting {part}.values states the value of each class, {part}.ignore_values the ignored values.'
    )
    classes = Classes(
        names=mapping.names,
        original_ids=None if same else original,
        colors=tuple(palette[n] for n in origins),
    )
    return Meaning(legend=legend, classes=classes, counted=counted, remarks=remarks, remedy=remedy, hint=hint)


def hold_colors(part: str, root: str, labels: Sequence[str]) -> bool:
    """Whether a label file holds colours that are not grey levels; decodes the files that have changed."""
    return any(max(item.values, default=0) >= COLORED for item in _count(part, root, labels).values())


def _ordered(table: ColorTable, names: Sequence[str], origin: str, place: str) -> ColorTable:
    """The table in the order of names that are given as well."""
    if differing := sorted({*names} ^ {*table.names}):
        raise UserError(
            f'{origin} and {place}, the table of the colours in the labels, name different classes: '
            f'{checking.first_of(differing)} in one of them only. Expected the same names, in any order; or leave '
            f'out {origin}: the table names the classes.'
        )
    color_of = dict(zip(table.names, table.colors, strict=True))
    return ColorTable(tuple(names), tuple(color_of[name] for name in names))


def _count(part: str, root: str, labels: Sequence[str], needed: bool = False) -> dict[str, Values]:
    """The values of all label files; files that cannot be read are omitted here, and reported with their split.

    Raises:
      UserError: if values are needed, and no file can be read.
    """

    def look(index):
        path = labels[index]
        try:
            header = decoding.read_header(path)
        except (ValueError, tf.errors.OpError) as error:
            return Fault('unreadable_file', f'{path}: not a readable label: {error}. Replace the file.')
        fault = values.lossy(header.format, path)
        return fault or values.count(path, decoding.label_kind(header), False, 'remove it')

    key = [part, root, 'values of all splits']
    found = remembered.each(key, [(path,) for path in labels], look, Values, f'{part}, {root}: values of labels')
    good = {path: item for path, item in zip(labels, found, strict=True) if isinstance(item, Values)}
    if needed and not good:
        checking.raise_problems(f'{part}.labels, {root}', found, len(labels), 'files')
    return good


def _by_values(part: str, root: str, occurring: Sequence[int], binary: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and values of classes without given names.

    Raises:
      UserError: if the values are colours, or do not begin with 0 and 1.
    """
    if binary:
        return ('background', 'foreground'), _BINARY
    colors = [f'#{value % COLORED:06x}' for value in occurring if value >= COLORED]
    if colors:
        # Greys look like numbers.
        colors += [f'#{65793 * value:06x}' for value in occurring if 0 <= value <= 255]
        more = f', … ({len(colors)} in all)' if len(colors) > _MOST_COLORS else ''
        raise UserError(
            f'{root}: the labels hold colours: {", ".join(colors[:_MOST_COLORS])}{more}. Expected a table of the '
            f"classes: {part}.colors = 'colors.txt', a file with a line such as 'road = {colors[0]}' for each."
        )
    end = next((n for n in range(len(occurring) + 1) if n not in occurring), 0)
    if end < 2:
        there = checking.first_of(occurring)
        raise UserError(
            f'{root}: no class is named, and the labels of all splits hold {there or "nothing"} besides ignored '
            f'values. Expected 0, 1, … without a gap, at least two of them; or {part}.values, the value of each class, '
            f'such as {shown(tuple(occurring[:4]) if len(occurring) > 1 else (0, 255))}, and {part}.class_names.'
        )
    if end > IGNORE:
        raise UserError(
            f'{root}: the labels hold the values 0 to {end - 1}, which are too many for classes. Are they photos, or '
            f'instance maps? Expected class ids of at most {IGNORE - 1}.'
        )
    return tuple(f'class {n}' for n in range(end)), tuple(range(end))


def _default_names(part: str, root: str, names: Sequence[str], stored: Sequence[int]) -> Finding:
    classes = ', '.join(
        f'{value} {shown(name)}' for value, name in list(zip(stored, names, strict=True))[:_MOST_COLORS]
    )
    more = f', … ({len(names)} in all)' if len(names) > _MOST_COLORS else ''
    return Finding(
        kind='default_names',
        severity=findings.WARN,
        text=f'{root}: no class is named; from the values of the labels, the classes are {classes}{more}.',
        remedy=f'Name them in {part}.class_names, or one per line in class_names.txt in this folder.',
    )


def _default_palette(names: Sequence[str], first: int) -> tuple[tuple[int, int, int], ...]:
    return ((0, 0, 0), *instance_palette(len(names) - 1)) if first else class_palette(names)
