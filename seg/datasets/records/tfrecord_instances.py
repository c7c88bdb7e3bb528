"""Instances in TFRecord files: their classes, and flat arrays of all of them."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from seg.datasets import checking, findings
from seg.datasets.findings import Finding
from seg.datasets.instances import collected
from seg.datasets.instances.data_set import Source
from seg.datasets.label_maps import class_names as names_files
from seg.datasets.records.entries import Objects
from seg.datasets.records.index import Index
from seg.datasets.records.known_classes import COCO
from seg.datasets.records.tfrecord_data import RecordImages
from seg.errors import UserError, shown
from seg.number_checks import check_whole


def read(
    part: str,
    split: str,
    root: str,
    index: Index,
    names: Sequence[str] | None,
    origin: str,
    values: Sequence[int] | None,
) -> Source:
    """The instances of all records.

    Args:
      part: the data set's gin key, such as 'datasets.tfrecord'.
      split: name of the split.
      root: the folder.
      index: the records.
      names: names of the classes; None if they are not set.
      origin: where they come from, for messages.
      values: the setting of this name.

    Raises:
      UserError: if a setting is wrong, or classes have no unique names.
    """
    each = [entry.objects for entry in index.entries]
    occurring = collections.Counter(label for objects in each for label in objects.labels)
    known = _given(part, names, origin, values) or _from_records(index, part, each, occurring)
    remarks = list(index.remarks)
    if unknown := sorted(set(occurring) - set(known)):
        remarks.append(_unknown(index, part, unknown, occurring, known, origin))
    position = {value: place for place, value in enumerate(known)}
    image_of = np.repeat(np.arange(len(each)), [len(objects.labels) for objects in each])
    labels = [label for objects in each for label in objects.labels]
    sizes = np.array([entry.size for entry in index.entries], np.int32)
    instances = collected.collect(
        where=index.where,
        chunks=_chunks(index, image_of),
        image_of=image_of,
        classes=np.array([position.get(label, 0) for label in labels], np.int32),
        is_crowd=np.array([crowd for objects in each for crowd in objects.crowds], bool),
        sizes=sizes,
        title=lambda number: index.place(int(image_of[number])),
        remarks=remarks,
    )
    return Source(
        part=part,
        split=split,
        labels=root,
        folder=root,
        names=index.names,
        ids=index.ids,
        sizes=sizes,
        instances=instances,
        class_names=tuple(known.values()),
        original_ids=None if list(known) == list(range(len(known))) else tuple(known),
        drop='leave its file out',
        remarks=remarks,
        images=RecordImages(index),
    )


def _chunks(index: Index, image_of: np.ndarray):
    """Numbers of instances, and the instances in the form of COCO's files."""
    first = np.searchsorted(image_of, np.arange(len(index.entries)))
    for numbers in collected.in_pieces(len(image_of)):
        shapes = []
        for number, image in zip(numbers.tolist(), image_of[numbers].tolist(), strict=True):
            objects, place = index.entries[image].objects, number - int(first[image])
            y0, x0, y1, x1 = objects.boxes[place]
            shapes.append(
                {
                    'segmentation': {'size': list(index.entries[image].size), 'counts': objects.masks[place]},
                    'bbox': [x0, y0, x1 - x0, y1 - y0],
                    'area': objects.areas[place] if objects.areas else None,
                }
            )
        yield numbers, shapes


# ---- Classes ---------------------------------------------------------------------------------------------------------


def _given(part: str, names: Sequence[str] | None, origin: str, values: Sequence[int] | None) -> dict[int, str] | None:
    """The name of each id, by the settings."""
    if values is not None:
        if not isinstance(values, tuple | list) or len(set(values)) < len(values) or not values:
            raise UserError(f'{part}.values = {shown(values)}: expected a tuple of different ids, such as (1, 3).')
        values = [check_whole(f'{part}.values[{n}]', value, 0, 2**31 - 1) for n, value in enumerate(values)]
    if names is None:
        return None if values is None else {value: f'class {value}' for value in values}
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{part}.class_names = {shown(names)}: expected a tuple of names, such as ('cat', 'dog'), or the path of a "
            'text file with one name per line.'
        )
    if fault := names_files.fault_of(list(names)):
        raise UserError(f'{origin} {fault}.')
    values = values or range(1, len(names) + 1)
    if len(values) != len(names):
        raise UserError(
            f'{part}.values = {shown(values)}: {len(values)} ids for {len(names)} classes, {shown(names)}. Expected '
            'one for each.'
        )
    return dict(zip(values, names, strict=True))


def _from_records(index: Index, part: str, each: Sequence[Objects], occurring: Mapping[int, int]) -> dict[int, str]:
    """The name of each id in ascending order: from the records, from COCO, or its number."""
    written: dict[int, str] = {}
    for number, objects in enumerate(each):
        for label, name in zip(objects.labels, objects.names, strict=False):
            if written.setdefault(label, name) != name:
                raise UserError(
                    f'{index.place(number)}: class {label} is {shown(name)}, and {shown(written[label])} in records '
                    f'before it. Expected one name for each class: set {part}.class_names and {part}.values.'
                )
    is_coco = written.items() <= COCO.items() if written else 90 in occurring
    if is_coco and occurring.keys() <= COCO.keys():
        logging.info('%s: the classes are the 80 of COCO, by their ids.', index.where)
        return COCO
    found = {label: written.get(label) or f'class {label}' for label in sorted(occurring)}
    if len(set(found.values())) < len(found):
        name = collections.Counter(found.values()).most_common(1)[0][0]
        ids = [label for label, each in found.items() if each == name]
        raise UserError(
            f'{index.where}: the classes {checking.first_of(ids)} have the same name {shown(name)}. Expected different '
            f'names: set {part}.class_names and {part}.values.'
        )
    return found


def _unknown(
    index: Index, part: str, unknown: Sequence[int], occurring: Mapping[int, int], known: Mapping[int, str], origin: str
) -> Finding:
    images = [
        name
        for name, entry in zip(index.names, index.entries, strict=True)
        if not known.keys() >= set(entry.objects.labels)
    ]
    there = ', '.join(f'{label} ({occurring[label]} instances)' for label in unknown[: checking.SHOWN])
    return Finding(
        kind='unknown_values',
        severity=findings.FIX,
        text=f'{index.where}: class ids without a name: {there}{", …" if unknown[checking.SHOWN :] else ""}. '
        f'Classes are {", ".join(f"{label} {shown(name)}" for label, name in list(known.items())[:8])} from {origin}.',
        remedy=f'Name them in {part}.class_names; {part}.values states the id of each class.',
        images=tuple(images),
        count=len(images),
    )
