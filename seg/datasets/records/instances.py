"""Instances in records: their classes, and flat arrays of all of them."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from seg.datasets import checking, findings
from seg.datasets.findings import Finding
from seg.datasets.instances import collected, flat
from seg.datasets.instances.data_set import Source
from seg.datasets.instances.flat import Instances
from seg.datasets.label_maps import class_names as names_files
from seg.datasets.records.entries import RecordInstances
from seg.datasets.records.index import Index
from seg.datasets.records.record_data import RecordImages
from seg.errors import UserError, shown
from seg.known_classes import COCO_CLASSES
from seg.masks import runs


def source(
    index: Index, records: Sequence[RecordInstances], known: Mapping[int, str], origin: str, exact: bool, **more: Any
) -> Source:
    """The instances of all records.

    Args:
      index: the records.
      records: the instances of each.
      known: the name of each class, by its value in the records.
      origin: where the names come from, for messages.
      exact: whether boxes and areas are taken as they are; otherwise they are checked as those of COCO's files.
      **more: other fields of `Source`.
    """
    remarks, position = list(index.remarks), {value: place for place, value in enumerate(known)}
    labels = [label for each in records for label in each.labels]
    if not known.keys() >= set(labels):
        remarks.append(_unknown(index, records, labels, known, origin))
    image_of = np.repeat(np.arange(len(records)), [len(each.labels) for each in records])
    classes = np.array([position.get(label, 0) for label in labels], np.int32)
    is_crowd = np.array([crowd for each in records for crowd in each.crowds], bool)
    if exact:
        instances = _as_they_are(records, image_of, classes, is_crowd, index.sizes)
    else:
        instances = collected.collect(
            where=index.origin.where,
            chunks=_chunks(index, records, image_of),
            image_of=image_of,
            classes=classes,
            is_crowd=is_crowd,
            sizes=index.sizes,
            title=lambda number: index.place(int(image_of[number])),
            remarks=remarks,
        )
    return Source(
        part=index.origin.part,
        split=index.origin.split,
        labels=index.origin.root,
        folder=index.origin.root,
        names=index.names,
        ids=index.ids,
        sizes=index.sizes,
        instances=instances,
        class_names=tuple(known.values()),
        drop=index.origin.drop,
        remarks=remarks,
        images=RecordImages(index),
        **more,
    )


def _as_they_are(
    records: Sequence[RecordInstances],
    image_of: np.ndarray,
    classes: np.ndarray,
    is_crowd: np.ndarray,
    sizes: np.ndarray,
) -> Instances:
    """All instances; those without boxes or areas have the ones of their masks."""
    strings = [mask.encode() for each in records for mask in each.masks]
    parts = []
    for piece in collected.in_pieces(len(strings)):
        size = sizes[image_of[piece]].astype(np.int64)
        found, _ = runs.from_strings(strings[piece[0] : piece[-1] + 1], size.prod(axis=1))
        parts.append((found.ends, np.diff(found.splits), *runs.boxes_and_areas(found, size[:, 0])))
    none = (np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros([0, 4], np.float32), np.zeros(0, np.int64))
    ends, lengths, boxes, area = (np.concatenate(part) for part in zip(none, *parts, strict=True))
    if given := [box for each in records for box in each.boxes]:
        boxes = np.array(given, np.float32)
    if given := [number for each in records for number in each.areas]:
        area = np.array(given, np.float32)
    return Instances(
        splits=flat.splits_of(np.bincount(image_of, minlength=len(records))),
        boxes=boxes,
        classes=classes,
        is_crowd=is_crowd,
        area=area.astype(np.float32),
        ends=ends,
        run_splits=flat.splits_of(lengths),
        points=np.zeros([0, 2], np.uint16),
        point_splits=flat.splits_of(np.zeros(0, np.int64)),
        outline_splits=flat.splits_of(np.zeros(len(classes), np.int64)),
    )


def _chunks(
    index: Index, records: Sequence[RecordInstances], image_of: np.ndarray
) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
    """Numbers of instances, and the instances in the form of COCO's files."""
    first = np.searchsorted(image_of, np.arange(len(records)))
    for numbers in collected.in_pieces(len(image_of)):
        shapes = []
        for number, image in zip(numbers.tolist(), image_of[numbers].tolist(), strict=True):
            each, place = records[image], number - int(first[image])
            y0, x0, y1, x1 = each.boxes[place]
            shapes.append(
                {
                    'segmentation': {'size': index.sizes[image].tolist(), 'counts': each.masks[place]},
                    'bbox': [x0, y0, x1 - x0, y1 - y0],
                    'area': each.areas[place] if each.areas else None,
                }
            )
        yield numbers, shapes


# ---- Classes ---------------------------------------------------------------------------------------------------------


def known_classes(
    index: Index,
    records: Sequence[RecordInstances],
    names: Sequence[str] | None,
    origin: str,
    values: Sequence[int] | None,
) -> dict[int, str]:
    """The name of each class by its value: from the settings, from the records, from COCO, or its number.

    Args:
      index: the records.
      records: the instances of each.
      names: names of the classes; None if they are not set.
      origin: where they come from, for messages.
      values: the setting of this name.

    Raises:
      UserError: if a setting is wrong, or classes have no unique names.
    """
    part = index.origin.part
    names = None if names is None else names_files.check(part, names, origin)
    if values is not None:
        values = names_files.check_values(part, values, names, highest=2**31 - 1)
        return dict(zip(values, names or [f'class {value}' for value in values], strict=True))
    return _from_records(index, records) if names is None else dict(enumerate(names, start=1))


def _from_records(index: Index, records: Sequence[RecordInstances]) -> dict[int, str]:
    part, occurring = index.origin.part, {label for each in records for label in each.labels}
    written: dict[int, str] = {}
    for number, each in enumerate(records):
        for label, name in zip(each.labels, each.names, strict=False):
            if written.setdefault(label, name) != name:
                raise UserError(
                    f'{index.place(number)}: class {label} is {shown(name)}, and {shown(written[label])} in records '
                    f'before it. Expected one name for each class: set {part}.class_names and {part}.values.'
                )
    is_coco = written.items() <= COCO_CLASSES.items() if written else 90 in occurring
    if is_coco and occurring <= COCO_CLASSES.keys():
        logging.info('%s: the classes are the 80 of COCO, by their ids.', index.origin.where)
        return dict(COCO_CLASSES)
    found = {label: written.get(label) or f'class {label}' for label in sorted(occurring)}
    if len(set(found.values())) < len(found):
        name = collections.Counter(found.values()).most_common(1)[0][0]
        ids = [label for label, each in found.items() if each == name]
        raise UserError(
            f'{index.origin.where}: the classes {checking.first_of(ids)} have the same name {shown(name)}. Expected '
            f'different names: set {part}.class_names and {part}.values.'
        )
    return found


def _unknown(
    index: Index, records: Sequence[RecordInstances], labels: Sequence[int], known: Mapping[int, str], origin: str
) -> Finding:
    """The finding that classes have no name."""
    unknown = sorted(collections.Counter(label for label in labels if label not in known).items())
    images = [name for name, each in zip(index.names, records, strict=True) if not known.keys() >= set(each.labels)]
    there = ', '.join(f'{label} ({count} instances)' for label, count in unknown[: checking.SHOWN])
    return Finding(
        kind='unknown_values',
        severity=findings.FIX,
        text=f'{index.origin.where}: class ids without a name: {there}{", …" if unknown[checking.SHOWN :] else ""}. '
        f'Classes are {", ".join(f"{label} {shown(name)}" for label, name in list(known.items())[:8])} from {origin}.',
        remedy=f'Name them in {index.origin.part}.class_names.',
        images=tuple(images),
        count=len(images),
    )
