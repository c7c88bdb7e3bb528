"""The index of a split of a set of TensorFlow Datasets."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seg.datasets.label_maps.values import Fault
from seg.datasets.records import array_files, entries, fields, tfds_folder
from seg.datasets.records import index as indices
from seg.datasets.records.array_files import ArrayFiles, Part
from seg.datasets.records.entries import Entry, RecordInstances, Unusable
from seg.datasets.records.fields import Field
from seg.datasets.records.index import Index, Origin
from seg.masks import runs


def make(
    part: str, split: str, builder: Any, found: Mapping[str, Field], whole_ids: bool
) -> tuple[Index, list[RecordInstances]]:
    """The index, and the instances of each record.

    Args:
      part: the data set's gin key.
      split: name of the split.
      builder: from `tfds_folder.find`.
      found: where the records hold the image and its annotations, see `fields.find`.
      whole_ids: whether ids of images are whole numbers in text.

    Raises:
      UserError: if a file is missing or truncated, or no record can be used.
    """
    root, remedy = str(builder.data_dir), tfds_folder.damaged(builder)
    parts = [each for each in tfds_folder.parts(part, builder, split) if each.count]
    paths = list(dict.fromkeys(each.path for each in parts))
    array_files.check(f'{part}, split {split!r} of {root}', parts, tfds_folder.INFO, remedy)

    def look(file: int) -> list[Entry | Fault]:
        numbers = [n for each in parts if each.path == paths[file] for n in range(each.start, each.start + each.count)]
        records = array_files.contents(paths[file], numbers, remedy)
        return [
            Fault('damaged_record', record)
            if isinstance(record, str)
            else read(record, number, f'{paths[file]}, record {number}', found, whole_ids, remedy)
            for number, record in zip(numbers, records, strict=True)
        ]

    origin = Origin(
        part=part,
        split=split,
        root=root,
        paths=paths,
        image=found['image'].key,
        label=found['label'].key if 'label' in found else None,
        key=[
            [[name, *field[:3]] for name, field in found.items()],
            [[each.start, each.count] for each in parts],
            whole_ids,
        ],
        look=look,
        files=lambda owners, numbers, _: ArrayFiles(paths, owners, numbers, remedy),
        drop=f'remove {root} and prepare the set again',
    )
    return indices.make(origin, functools.partial(_ordered, parts, paths))


def _ordered(parts: Sequence[Part], paths: Sequence[str], found: Sequence[Sequence[Any]]) -> list[tuple[int, Any]]:
    """The items of each file in the order of the split, which may have several parts of a file."""
    number, items = {path: n for n, path in enumerate(paths)}, [iter(each) for each in found]
    files = [number[part.path] for part in parts for _ in range(part.count)]
    return [(file, next(items[file])) for file in files]


def read(
    record: bytes, number: int, place: str, found: Mapping[str, Field], whole_ids: bool, remedy: str
) -> Entry | Fault:
    """Reads a record.

    Args:
      record: its data.
      number: in its file.
      place: file and number, for messages.
      found: as for `make`.
      whole_ids: likewise.
      remedy: what to do about a damaged record, a sentence.
    """
    try:
        features = entries.features_of(record)
        name = _name(features, found['image_name']) if 'image_name' in found else ''
        place = f'{place} (image {name!r})' if name else place
        image = entries.image_header(features, found['image'].key)
        label = entries.label_header(features, found['label'].key) if 'label' in found else None
        size = image.height, image.width
        instances = _instances(features, found, size) if 'masks' in found else None
    except Unusable as error:
        return Fault(error.kind, f'{place}: {error}. {f"{error.remedy}." if error.remedy else remedy}')
    identity = _id(features, found['image_id'], whole_ids) if 'image_id' in found else ''
    return Entry(number, 0, name, identity, image, size, label, instances)


def _name(features: Mapping, field: Field) -> str:
    name = entries.text(features, field.key)
    # Others are names of files.
    return name if field.key == 'image_name' else re.sub(r'\.(jpe?g|png)$', '', name, flags=re.IGNORECASE)


def _id(features: Mapping, field: Field, whole: bool) -> int | str:
    if field.form == fields.NUMBER:
        return next(iter(entries.values(features, field.key, 'int64_list')), '')
    identity = entries.text(features, field.key)
    return int(identity) if whole and re.fullmatch('-?[0-9]{1,18}', identity) else identity


def _instances(features: Mapping, found: Mapping[str, Field], size: tuple[int, int]) -> RecordInstances:
    stored = {
        name: entries.values(features, field.key, _LISTS[field.form])
        for name, field in found.items()
        if field.of_instances
    }
    labels, masks = stored['classes'], stored['masks']
    lengths = {found[name].key: len(values) for name, values in stored.items() if name != 'boxes'}
    if 'boxes' in found:
        lengths[found['boxes'].key] = len(stored['boxes']) // 4
    entries.check_lengths(found['classes'].key, len(labels), lengths)
    for name in ('boxes', 'area'):
        if not all(map(math.isfinite, stored.get(name, ()))):
            raise Unusable('damaged_record', f'{found[name].key!r} has a value that is not finite')
    boxes = np.array(stored.get('boxes', ()), np.float32).reshape(-1, 4)
    if 'boxes' in found and found['boxes'].form == fields.NORMALISED:
        boxes *= np.array([*size, *size], np.float32)
    key = found['masks'].key
    return RecordInstances(
        labels=labels,
        names=[],
        crowds=list(map(bool, stored['is_crowd'])) if 'is_crowd' in found else [False] * len(labels),
        areas=list(map(float, stored.get('area', ()))),
        boxes=[tuple(box) for box in boxes.tolist()],
        masks=_run_lengths(masks, size, key)
        if found['masks'].form == fields.RUNS
        else [entries.mask(f'value {n} of {key!r}', png, size) for n, png in enumerate(masks)],
    )


def _run_lengths(masks: Sequence[bytes], size: tuple[int, int], key: str) -> list[str]:
    """Masks in COCO's compressed form, which are checked."""
    pixels = size[0] * size[1]
    _, covered = runs.from_strings(masks, np.full(len(masks), pixels))
    for number in np.flatnonzero(covered != pixels):
        what = 'are damaged' if covered[number] < 0 else f'cover {covered[number]} pixels of {pixels}'
        raise Unusable('damaged_record', f'the run lengths of value {number} of {key!r} {what}')
    return [mask.decode() for mask in masks]


_LISTS = {
    fields.NUMBER: 'int64_list',
    fields.REAL: 'float_list',
    fields.NORMALISED: 'float_list',
    fields.PIXELS: 'float_list',
    fields.RUNS: 'bytes_list',
    fields.IMAGES: 'bytes_list',
}
