"""Findings about label maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seg.datasets.findings import FIX, NOTE, WARN, Finding
from seg.errors import shown
from seg.inspection.facts import Facts
from seg.inspection.split import Split

_SHOWN_VALUES = 5
_MOST_IGNORED = 0.5  # Share of the pixels of a split that may be ignored before a warning.


class Value(NamedTuple):
    """A value of the label maps of a split.

    Attributes:
      value: as `load` returns it.
      name: name of the class; '(ignored)' for the ignore label, '(unknown)' for any other value.
      pixels: how many pixels have it.
      images: how many images have it.
    """

    value: int
    name: str
    pixels: int
    images: int


def values(split: Split) -> list[Value]:
    """All classes, in their order, then the ignore label, then unknown values."""
    info, pixels, images = split.info, {}, {}
    for _, facts in split.loaded():
        for value, count in _counted(facts, info.ignore_label).items():
            pixels[value] = pixels.get(value, 0) + count
            images[value] = images.get(value, 0) + 1
    names = dict(enumerate(info.class_names)) | {info.ignore_label: '(ignored)'}
    order = [
        *range(info.num_classes),
        *sorted(pixels.keys() - set(range(info.num_classes)), key=lambda v: v not in names),
    ]
    return [Value(v, names.get(v, '(unknown)'), pixels.get(v, 0), images.get(v, 0)) for v in order]


def _counted(facts: Facts, ignore_label: int) -> dict[int, int]:
    """Pixels by value; the ignore label under its own value, which may be negative."""
    found = dict(facts.values)
    if facts.ignored:
        place = min(max(ignore_label, -1), 2**16)
        found[place] -= facts.ignored
        if not found[place]:
            del found[place]
        found[ignore_label] = found.get(ignore_label, 0) + facts.ignored
    return found


def check(split: Split) -> Iterator[Finding]:
    """Yields findings about the label maps of a split."""
    info, loaded = split.info, [(i, facts) for i, facts in split.loaded() if facts.label_size is not None]
    if not loaded:
        return
    yield from split.finding(
        'size_mismatch',
        FIX,
        'differ in size from their label maps',
        [i for i, facts in loaded if facts.label_size != (facts.height, facts.width)],
        'Make the label maps again, or scale them by nearest neighbour.',
        lambda i: f'{(split.facts[i].height, split.facts[i].width)}, label map {split.facts[i].label_size}.',
    )
    counted = {i: _counted(facts, info.ignore_label) for i, facts in loaded}
    unknown = list(_unknown(split, counted))
    yield from unknown
    classes = range(info.num_classes)
    total = {value: sum(found.get(value, 0) for found in counted.values()) for value in classes}
    present = [value for value in classes if total[value]]
    ignored = sum(found.get(info.ignore_label, 0) for found in counted.values())
    if len(present) < 2 <= info.num_classes and not unknown:  # Unknown values may be the other classes.
        there = ' and '.join(f'{value} ({info.class_names[value]})' for value in present) or 'no class'
        yield Finding(
            kind='one_class',
            severity=FIX,
            text=f'{info.name}: all label maps hold {there}{" and ignored pixels" if ignored else ""} only, so that '
            'there is nothing to distinguish.',
            remedy='Label the pixels of each class with its id.'
            + (f' If {info.ignore_label} marks a class, write its id instead.' if ignored else ''),
        )
    elif not unknown and (absent := [value for value in classes if not total[value]]):
        yield Finding(
            kind='absent_class',
            severity=WARN,
            text=f'{info.name}: {len(absent)} of {info.num_classes} classes do not occur: '
            f'{", ".join(f"{v} ({info.class_names[v]})" for v in absent[:_SHOWN_VALUES])}'
            f'{", …" if absent[_SHOWN_VALUES:] else ""}.',
            remedy='They can be neither learnt nor scored from this split. Move images with these classes into it, '
            'or check the class names.',
            count=len(absent),
        )
    yield from split.finding(
        'unlabelled',
        WARN,
        'have no labelled pixel',
        [i for i, found in counted.items() if not any(found.get(value) for value in classes)],
        'Nothing is learnt from them. Label them, or remove them from the split.',
    )
    yield from split.finding(
        'background_and_ignored',
        WARN,
        f'hold {info.class_names[0]} (0) and ignored pixels ({info.ignore_label}) only',
        [i for i, found in counted.items() if set(found) == {0, info.ignore_label} and info.ignore_label != 0],
        f'{info.ignore_label} counts nowhere: if it marks a class there, write the id of the class instead.',
    )
    labelled = sum(total.values())
    if ignored > _MOST_IGNORED * (ignored + labelled) and labelled:
        yield Finding(
            kind='mostly_ignored',
            severity=WARN,
            text=f'{info.name}: {100 * ignored / (ignored + labelled):.0f} % of all pixels are ignored.',
            remedy='Is the ignore label a class or the background of these data? If so, give it an id of its own.',
        )
    fractions = np.array([total[value] for value in present]) / max(labelled, 1)
    rare = [value for value, fraction in zip(present, fractions, strict=True) if fraction < 1e-3]
    if rare and len(present) > 1:
        yield Finding(
            kind='rare_class',
            severity=NOTE,
            text=f'{info.name}: {len(rare)} classes have less than 0.1 % of the labelled pixels: '
            f'{", ".join(f"{v} ({info.class_names[v]})" for v in rare[:_SHOWN_VALUES])}.',
            remedy='A loss with class weights may help: see @losses.softmax_cross_entropy, class_weights.',
            count=len(rare),
        )


def _unknown(split: Split, counted: dict[int, dict[int, int]]) -> Iterator[Finding]:
    info = split.info
    known = {*range(info.num_classes), info.ignore_label}
    unknown = {i: sorted(found.keys() - known) for i, found in counted.items() if found.keys() - known}
    occurring = sorted({value for found in unknown.values() for value in found})
    total = [sum(found.get(value, 0) for found in counted.values()) for value in range(info.num_classes)]
    remedy = 'Correct the labels, or add names for the missing classes.'
    if occurring == [info.num_classes] and not total[0]:
        remedy = 'The labels seem to start at 1: subtract 1 from each, or add a name for class 0.'
    elif info.num_classes == 2 and len(occurring) == 1 and total[0] and not total[1]:
        remedy = f'If {occurring[0]} marks {shown(info.class_names[1])}, write 1 instead.'
    elif len(occurring) > 3 * info.num_classes and len(occurring) > 20:
        remedy = (
            'So many values come from colours or from a lossy format: read a palette PNG by its indices, convert '
            'colours to ids, and never store labels as JPEG.'
        )

    def line(index: int) -> str:
        values = unknown[index]
        found = ', '.join(f'{_value(v)} ({counted[index][v]} pixels)' for v in values[:_SHOWN_VALUES])
        return f'{found}{", …" if values[_SHOWN_VALUES:] else ""}.'

    yield from split.finding(
        'unknown_values',
        FIX,
        f'have label values that are no class. Expected 0..{info.num_classes - 1} ({info.num_classes} classes) or '
        f'{info.ignore_label}, which is ignored',
        unknown,
        remedy,
        line,
    )


def _value(value: int) -> str:
    return 'negative values' if value == -1 else '65536 or more' if value == 2**16 else str(value)
