"""The index of TFRecord files: what their records say, made at the first start and remembered."""

from __future__ import annotations

import collections
import dataclasses
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from typing import Any

from seg.datasets import checking, findings, remembered
from seg.datasets.findings import WARN, Finding
from seg.datasets.label_maps.values import Fault
from seg.datasets.records import entries, tfrecord_files
from seg.datasets.records.entries import Entry
from seg.datasets.records.tfrecord_files import RecordFiles
from seg.errors import UserError, shown

_PART = 'datasets.tfrecord'


@dataclasses.dataclass(frozen=True)
class Index:
    """The sound records of a split.

    Attributes:
      where: the setting and the split, for messages.
      files: reads them.
      entries: what they say.
      names: name of each image.
      ids: id of each image.
      remarks: findings about records that cannot be used, and about names and files.
      paths: the files.
      unsound: positions of files with records that cannot be used.
    """

    where: str
    files: RecordFiles
    entries: Sequence[Entry]
    names: tuple[str, ...]
    ids: tuple[int | str, ...]
    remarks: Sequence[Finding]
    paths: Sequence[str]
    unsound: frozenset[int]

    def place(self, index: int) -> str:
        """File, number and image of a record, for messages."""
        return f'{self.files.place(index)} (image {shown(self.names[index])})'

    def of_each(self, what: str, look: Callable[[int], Any], kind: Any) -> list[Any]:
        """What a function finds in each record, by its position; remembered as `remembered.each` does, file by file.

        Args:
          what: what is found, for the memory and for the log.
          look: a `str` is a fault.
          kind: type of the values other than faults.
        """

        def look_at(file: int) -> list[Any]:
            return [look(position) for position in self.files.positions(file)]

        def sound(file: int, found: list[Any]) -> bool:
            return file not in self.unsound and not any(isinstance(item, str) for item in found)

        key, title = [_PART, what, *self.paths], f'{self.where}: {what}'
        found = remembered.items_of_each(key, self.paths, look_at, sound, kind, title)
        return [item for items in found for item in items]


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
                return entries.has_label_map(record)
            except UserError as error:
                raise UserError(f'{part}: {path}: {error}') from None
    raise UserError(f'{part}: {checking.first_of(paths)}: there is no record in these files.')


def make(where: str, paths: Sequence[str], labels: bool, threshold: int) -> Index:
    """Reads all records that are not remembered from an earlier start.

    Args:
      where: the setting and the split, for messages.
      paths: the files.
      labels: whether label maps are wanted; otherwise instances.
      threshold: of masks, see `entries.read`.

    Raises:
      UserError: if no record can be used.
    """

    def is_sound(_: int, found: list[Entry | Fault]) -> bool:
        return not any(isinstance(item, Fault) for item in found)

    key = [_PART, 'index', labels, threshold, *paths]
    found = remembered.items_of_each(
        key, paths, lambda file: _read_all(paths[file], labels, threshold), is_sound, Entry, f'{where}: indexing files'
    )
    unsound = frozenset(number for number, each in enumerate(found) if not is_sound(number, each))
    faults = [item for each in found for item in each if isinstance(item, Fault)]
    sound = [[item for item in each if isinstance(item, Entry)] for each in found]
    together = [entry for each in sound for entry in each]
    if not together:
        raise UserError('\n  '.join([f'{where}: none of its records can be used:', *faults[: checking.SHOWN]]))
    names, ids, remarks = _names(where, paths, sound)
    numbers, offsets = [entry.number for entry in together], [entry.offset for entry in together]
    return Index(
        where=where,
        files=RecordFiles(paths, list(map(len, sound)), numbers, offsets),
        entries=together,
        names=names,
        ids=ids,
        remarks=[*_unusable(where, faults, len(together) + len(faults)), *_lacking(where, paths, sound), *remarks],
        paths=paths,
        unsound=unsound,
    )


def _read_all(path: str, labels: bool, threshold: int) -> list[Entry | Fault]:
    places, rest = tfrecord_files.spans(path)
    found: list[Entry | Fault] = []
    for number, record in enumerate(tfrecord_files.contents(path, places)):
        if isinstance(record, str):
            found.append(Fault('damaged_record', record))
            continue
        place = f'{path}: record {number}, at byte {places[number][0]}'
        found.append(entries.read(record, number, places[number][0], place, labels, threshold))
    return [*found, *([Fault('damaged_record', rest)] if rest else [])]


def _unusable(where: str, faults: Sequence[Fault], total: int) -> list[Finding]:
    by_kind = collections.defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(('', str(fault)))
    return [item for kind, each in by_kind.items() for item in findings.unusable(kind, where, each, total, 'records')]


def _lacking(where: str, paths: Sequence[str], sound: Sequence[list[Entry]]) -> list[Finding]:
    """Findings about files that are empty or not there."""
    found = []
    if missing := tfrecord_files.missing_shards(paths):
        text = f'{where}: by the names of the others, {len(missing)} files are missing: {checking.first_of(missing)}.'
        found.append(Finding(kind='missing_files', severity=WARN, text=text, count=len(missing)))
    if empty := [path for path, items in zip(paths, sound, strict=True) if not items and not os.path.getsize(path)]:
        text = f'{where}: {len(empty)} files are empty: {checking.first_of(empty)}.'
        found.append(Finding(kind='empty_files', severity=WARN, text=text, count=len(empty)))
    return found


# ---- Names and ids ---------------------------------------------------------------------------------------------------


def _names(
    where: str, paths: Sequence[str], sound: Sequence[list[Entry]]
) -> tuple[tuple[str, ...], tuple[int | str, ...], list[Finding]]:
    """Names and ids of all images, and findings about those that occur twice."""
    stems = [os.path.basename(path) for path, items in zip(paths, sound, strict=True) for _ in items]
    each = [entry for items in sound for entry in items]
    names = [
        _inside(entry.name) or _inside(entry.id) or f'{stem}/{entry.number}'
        for stem, entry in zip(stems, each, strict=True)
    ]
    remarks, seen = [], collections.Counter()
    for position, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[position] = f'{name}-{seen[name]}'
    if twice := [name for name, times in seen.items() if times > 1]:
        remarks.append(
            Finding(
                kind='same_names',
                severity=WARN,
                text=f'{where}: {len(twice)} names belong to several records, such as {checking.first_of(twice)}; the '
                'later ones get a number.',
                remedy='Are the same images in several files?',
                images=tuple(twice),
                count=len(twice),
            )
        )
    ids: Sequence[int | str] = [int(entry.id) if re.fullmatch('[0-9]{1,18}', entry.id) else entry.id for entry in each]
    if '' in ids or len(set(ids)) < len(ids):
        ids = range(1, len(each) + 1)
    return tuple(names), tuple(ids), remarks


def _inside(name: str) -> str:
    """A name without its ending; of a path that is absolute or leads out of its folder, the last part alone."""
    name = posixpath.splitext(name.replace('\\', '/').strip())[0]
    parts = [part for part in name.split('/') if part not in ('', '.')]
    outside = name.startswith('/') or '..' in parts or ':' in name
    name = ''.join(parts[-1:]) if outside else '/'.join(parts)
    return '' if name == '..' else name.replace('\0', '')
