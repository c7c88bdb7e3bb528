"""The values that occur in label maps: their numbers of pixels, and their faults."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from seg.datasets import checking, findings
from seg.datasets.findings import Finding
from seg.datasets.label_maps import decoding
from seg.datasets.label_maps.legend import COLORED, IGNORE, Legend
from seg.errors import shown
from seg.structures import ClassHistogram


class Fault(str):
    """What makes one example unusable: a sentence with file, value and remedy; `kind` names it for `Finding`."""

    kind: str

    def __new__(cls, kind: str, text: str):
        made = super().__new__(cls, text)
        made.kind = kind
        return made


class Values(NamedTuple):
    """The stored values of one label file.

    Attributes:
      values: those that occur, ascending.
      pixels: the number of pixels of each.
    """

    values: list[int]
    pixels: list[int]


class Counts(NamedTuple):
    """The pixels of one label map, or of several: of each name of the legend, ignored, and of unknown values."""

    names: np.ndarray
    ignored: int
    unknown: collections.Counter[int]


def lossy(form: str, path: str, kind: str = 'label') -> Fault | None:
    """The fault of a label file in a format that changes values."""
    if form not in ('jpeg', 'webp', 'mpo'):
        return None
    name = 'WebP' if form == 'webp' else 'JPEG'
    return Fault(
        'wrong_format', f'{path}: the {kind} is a {name} file, which blurs ids. Save it as greyscale or palette PNG.'
    )


def count(path: str, kind: int, by_color: bool, drop: str) -> Values | Fault:
    """Decodes a label file and counts its values, as in `load`: a file that passes here does not fail there."""
    try:
        values, pixels = (part.numpy().tolist() for part in _counted(kind, by_color)(tf.constant(path)))
    except tf.errors.OpError as error:
        return Fault('damaged_file', checking.damage(path, error, drop))
    order = np.argsort(values)
    return Values([values[n] for n in order], [pixels[n] for n in order])


def _counted(kind: int, by_color: bool):
    if (kind, by_color) not in _COUNTERS:

        @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
        def counted(path):
            label = tf.reshape(decoding.decode_label(path, kind, [kind], by_color), [-1])
            if kind == decoding.SAMPLES and not by_color:  # Of 16 bits at most: a table is the fastest.
                pixels = tf.math.bincount(label, maxlength=1 << 16)
                values = tf.cast(tf.where(pixels)[:, 0], tf.int32)
                return values, tf.gather(pixels, values)
            values, _, pixels = tf.unique_with_counts(label)
            return values, pixels

        _COUNTERS[kind, by_color] = counted
    return _COUNTERS[kind, by_color]


_COUNTERS: dict[tuple[int, bool], tf.types.experimental.PolymorphicFunction] = {}


def counts_of(found: Values, legend: Legend) -> Counts:
    """Assigns the values of a label file to the names."""
    position = {value: n for n, value in enumerate(legend.values)}
    names, ignored, unknown = np.zeros(len(legend.names), np.int64), 0, collections.Counter()
    for value, pixels in zip(found.values, found.pixels, strict=True):
        if legend.id_of(value) == legend.unknown:
            unknown[value] += pixels
        elif value in legend.ignored:
            ignored += pixels
        else:
            names[position[value]] += pixels
    return Counts(names, ignored, unknown)


def total_of(each: Sequence[Counts]) -> Counts:
    """The sum over label files."""
    return Counts(
        sum(item.names for item in each),
        sum(item.ignored for item in each),
        sum((item.unknown for item in each), collections.Counter()),
    )


def class_histogram(
    each: Sequence[Counts], ids: np.ndarray, first: int, num_classes: int, ignore: int = IGNORE
) -> ClassHistogram:
    """Pixels of each class.

    Args:
      each: the pixels of every label file.
      ids: `Legend.ids`.
      first: the id of the first class there.
      num_classes: number of classes.
      ignore: the ignore label.
    """
    to_class = np.zeros([len(ids), num_classes], np.int64)
    known = np.flatnonzero((ids >= first) & (ids < first + num_classes))
    to_class[known, ids[known] - first] = 1
    pixels = np.array([item.names @ to_class for item in each], np.int64).reshape(-1, num_classes)
    # Images count as a whole, with what is not a class of its own: the background of instances.
    labelled = np.array([item.names[ids != ignore].sum() for item in each], np.int64)
    return ClassHistogram(pixels.sum(axis=0), ((pixels > 0) * labelled[:, None]).sum(axis=0))


def unknown_values(path: str, item: Counts, legend: Legend) -> Fault:
    """Describes a label file with values that have no meaning."""
    found = [f'{legend.shown_value(value)} ({pixels} pixels)' for value, pixels in sorted(item.unknown.items())]
    return Fault('unknown_values', f'{path}: label values out of range: {", ".join(found[: checking.SHOWN])}.')


def remedy_of_unknown_values(total: Counts, legend: Legend, place: str, hint: str) -> str:
    """The classes, and what to do about values that have no meaning.

    Args:
      total: the pixels of all files.
      legend: the meaning of values.
      place: where names can be added; empty if nowhere.
      hint: a last sentence, about settings that give values a meaning.
    """
    number, unknown = len(legend.names), sorted(total.unknown)
    remedy = f'Change the labels, or add names for the missing classes {place}'
    if not place:
        remedy = 'Change the labels'
    elif unknown[-1] >= COLORED and not legend.by_color:
        remedy = 'The labels hold colours: give their meaning in a table (setting colors)'
    elif legend.by_color:
        remedy = f'Change the labels, or add these colours {place} (and to void, to ignore them)'
    elif not legend.counts_up:
        remedy = f'Change the labels, or add these values {place}'
    elif unknown == [number] and not total.names[0]:
        remedy = (
            f'The labels seem to start at 1: subtract 1 from each except {IGNORE}, or add a name for class 0 {place}'
        )
    elif number == 2 and len(unknown) == 1 and total.names[0] and not total.names[1]:
        remedy = f'If {unknown[0]} marks {shown(legend.names[1])}, write 1 instead'
    return f'Classes are {legend.shown_classes()}. {remedy}. {hint}'.strip()


def remarks(
    where: str, images: Sequence[str], each: Sequence[Counts], total: Counts, legend: Legend
) -> Iterator[Finding]:
    """Findings about a whole split: one class only, or label maps of 0 and 255 only."""
    occurring, absent = np.flatnonzero(total.names), np.flatnonzero(total.names == 0)
    ignored = ' and '.join(map(legend.shown_value, legend.ignored))
    if len(occurring) < 2:
        there = [legend.shown_value(legend.values[n]) for n in occurring] + ([ignored] if total.ignored else [])
        remedy = 'Label the pixels of each class with its id'
        if total.ignored and absent.size:
            remedy = (
                f'{ignored} is ignored. If it marks a class, write its id instead, such as '
                f'{legend.shown_value(legend.values[absent[0]])} for {shown(legend.names[absent[0]])}'
            )
        yield Finding(
            kind='one_class',
            severity=findings.FIX,
            text=f'{where}: all labels hold {" and ".join(there)} only'
            f'{"".join(f" (class {shown(legend.names[n])})" for n in occurring)}, so that there is nothing to '
            'distinguish.',
            remedy=f'{remedy}.',
            images=tuple(images),
            count=len(each),
        )
    two = [
        name
        for name, item in zip(images, each, strict=True)
        if item.ignored and item.names[0] and not item.names[1:].any()
    ]
    if two and IGNORE in legend.ignored and legend.counts_up:
        yield Finding(
            kind='only_0_and_255',
            severity=findings.WARN,
            text=f'{where}: {len(two)} of {len(each)} labels hold 0 and {IGNORE} only, such as '
            f'{checking.first_of(two)}.',
            remedy=f'{IGNORE} is ignored; if it marks a class there, write its id instead.',
            images=tuple(two),
            count=len(two),
        )
