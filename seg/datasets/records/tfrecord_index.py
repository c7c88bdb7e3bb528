"""The index of TFRecord files."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

from seg.datasets import checking
from seg.datasets.findings import WARN, Finding
from seg.datasets.label_maps.values import Fault
from seg.datasets.records import index as indices
from seg.datasets.records import tfrecord_entries, tfrecord_files
from seg.datasets.records.entries import Entry, RecordInstances
from seg.datasets.records.index import Index, Origin
from seg.datasets.records.tfrecord_files import RecordFiles
from seg.errors import UserError


def has_label_maps(part: str, paths: Sequence[str]) -> bool:
    """Whether the records are for semantic segmentation, by the first one; otherwise they are for instances.

    Raises:
      UserError: if there is no record, or the first one cannot be read or is of another kind.
    """
    for path in paths:
        places, fault = tfrecord_files.spans(path)
        if fault and not places:
            raise UserError(f'{part}: {fault}')
        if places:
            (record,) = tfrecord_files.contents(path, places[:1])
            if isinstance(record, str):
                raise UserError(f'{part}: {record}')
            try:
                return tfrecord_entries.has_label_map(record)
            except UserError as error:
                raise UserError(f'{part}: {path}: {error}') from None
    raise UserError(f'{part}: {checking.first_of(paths)}: there is no record in these files.')


def make(
    part: str, split: str, root: str, paths: Sequence[str], labels: bool, threshold: int
) -> tuple[Index, list[RecordInstances]]:
    """The index, and the instances of each record.

    Args:
      part: the data set's gin key.
      split: name of the split.
      root: the folder.
      paths: the files.
      labels: whether label maps are wanted; otherwise instances.
      threshold: of masks, see `entries.mask`.

    Raises:
      UserError: if no record can be used.
    """
    origin = Origin(
        part=part,
        split=split,
        root=root,
        paths=paths,
        image=tfrecord_entries.IMAGE,
        label=tfrecord_entries.LABEL if labels else None,
        key=[labels, threshold],
        look=lambda file: _read_all(paths[file], labels, threshold),
        files=functools.partial(RecordFiles, paths),
        drop='leave its file out',
    )
    made, instances = indices.make(origin, indices.file_by_file)
    made.remarks.extend(_lacking(origin.where, paths))
    return made, instances


def _read_all(path: str, labels: bool, threshold: int) -> list[Entry | Fault]:
    places, rest = tfrecord_files.spans(path)
    found: list[Entry | Fault] = []
    for number, record in enumerate(tfrecord_files.contents(path, places)):
        if isinstance(record, str):
            found.append(Fault('damaged_record', record))
            continue
        place = f'{path}: record {number}, at byte {places[number][0]}'
        found.append(tfrecord_entries.read(record, number, places[number][0], place, labels, threshold))
    return [*found, *([Fault('damaged_record', rest)] if rest else [])]


def _lacking(where: str, paths: Sequence[str]) -> list[Finding]:
    """Findings about files that are empty or not there."""
    found = []
    if missing := tfrecord_files.missing_shards(paths):
        text = f'{where}: by the names of the others, {len(missing)} files are missing: {checking.first_of(missing)}.'
        found.append(Finding(kind='missing_files', severity=WARN, text=text, count=len(missing)))
    if empty := [path for path in paths if os.path.isfile(path) and not os.path.getsize(path)]:
        text = f'{where}: {len(empty)} files are empty: {checking.first_of(empty)}.'
        found.append(Finding(kind='empty_files', severity=WARN, text=text, count=len(empty)))
    return found
