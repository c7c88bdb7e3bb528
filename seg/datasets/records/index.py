"""The index of records: their headers and instances, read at the first start and cached."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from seg.datasets import checking, findings, remembered
from seg.datasets.findings import WARN, Finding
from seg.datasets.image_files import ImageHeader
from seg.datasets.label_maps.values import Fault
from seg.datasets.records.entries import Entry, RecordInstances
from seg.datasets.records.places import Places
from seg.errors import UserError, shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """The files of a split, and how their records are read.

    Attributes:
      part: the data set's gin key, such as 'datasets.tfrecord'.
      split: name of the split.
      root: the folder.
      paths: the files, each once.
      image: key of the image in a record.
      label: key of its label map; None for instances.
      key: what the entries depend on besides the files; values that JSON can hold.
      look: function from the number of a file to the entries of its records, or their faults.
      files: function from file, number and offset of each record, int64 [N], to `Places` with `read(index)`.
      drop: what can be done about a damaged record, such as 'leave its file out'.
    """

    part: str
    split: str
    root: str
    paths: Sequence[str]
    image: str
    label: str | None
    key: Sequence[Any]
    look: Callable[[int], list[Entry | Fault]]
    files: Callable[[np.ndarray, np.ndarray, np.ndarray], Places]
    drop: str

    @property
    def where(self) -> str:
        """The setting and the split, for messages."""
        return f'{self.part}, split {self.split!r} of {self.root}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """The sound records of a split.

    Attributes:
      origin: where they come from.
      files: reads them.
      names: name of each image.
      ids: id of each image.
      images: header of each image.
      labels: header of each label map; None for instances.
      sizes: int32 [N, 2], (height, width) of each image as its record states it.
      remarks: findings about records that cannot be used, about names, and about files.
      unsound: files with records that cannot be used.
    """

    origin: Origin
    files: Any
    names: tuple[str, ...]
    ids: tuple[int | str, ...]
    images: Sequence[ImageHeader]
    labels: Sequence[ImageHeader | None]
    sizes: np.ndarray
    remarks: list[Finding]
    unsound: frozenset[int]

    def place(self, index: int) -> str:
        """File, number and image of a record, for messages."""
        return f'{self.files.place(index)} (image {shown(self.names[index])})'

    def of_each(self, what: str, look: Callable[[int], Any], kind: Any) -> list[Any]:
        """The result of a function for each record, by its position; cached by `remembered.each`, file by file.

        Args:
          what: name of the results, for the cache and for the log.
          look: a `str` is a fault.
          kind: type of the values other than faults.
        """
        origin, positions = self.origin, self.files.by_file()

        def look_at(file: int) -> list[Any]:
            return [look(position) for position in positions[file].tolist()]

        def sound(file: int, found: list[Any]) -> bool:
            return file not in self.unsound and not any(isinstance(item, str) for item in found)

        key, title = [origin.part, what, *origin.key, *origin.paths], f'{origin.where}: {what}'
        found = remembered.items_of_each(key, origin.paths, look_at, sound, kind, title)
        result = [None] * len(self.files)
        for places, items in zip(positions, found, strict=True):
            for place, item in zip(places.tolist(), items, strict=True):
                result[place] = item
        return result


def make(
    origin: Origin, order: Callable[[list[list[Any]]], list[tuple[int, Any]]]
) -> tuple[Index, list[RecordInstances]]:
    """Reads all records that are not cached by an earlier start.

    Args:
      origin: the records.
      order: function from the items of each file to all items in the order of the split, each with its file.

    Returns:
      The index, and the instances of each record; none of label maps.

    Raises:
      UserError: if no record can be used.
    """

    def is_sound(_: int, found: list[Entry | Fault]) -> bool:
        return not any(isinstance(item, Fault) for item in found)

    where = origin.where
    key = [origin.part, 'index', *origin.key, *origin.paths]
    found = remembered.items_of_each(key, origin.paths, origin.look, is_sound, Entry, f'{where}: indexing files')
    ordered = order(found)
    faults = [item for _, item in ordered if isinstance(item, Fault)]
    sound = [(file, item) for file, item in ordered if isinstance(item, Entry)]
    if not sound:
        raise UserError('\n  '.join([f'{where}: none of its records can be used:', *faults[: checking.SHOWN]]))
    entries = [entry for _, entry in sound]
    owners, numbers, offsets = np.array([(file, entry.number, entry.offset) for file, entry in sound], np.int64).T
    names, remarks = _names(origin, sound)
    return Index(
        origin=origin,
        files=origin.files(owners, numbers, offsets),
        names=names,
        ids=_ids(entries),
        images=[entry.image for entry in entries],
        labels=[entry.label for entry in entries],
        sizes=np.array([entry.size for entry in entries], np.int32),
        remarks=[*_unusable(where, faults, len(ordered)), *remarks],
        unsound=frozenset(number for number, each in enumerate(found) if not is_sound(number, each)),
    ), [entry.instances for entry in entries if entry.instances is not None]


def file_by_file(found: list[list[Any]]) -> list[tuple[int, Any]]:
    """The `order` of a split that has its files one after the other."""
    return [(file, item) for file, items in enumerate(found) for item in items]


def _unusable(where: str, faults: Sequence[Fault], total: int) -> list[Finding]:
    by_kind = collections.defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(('', str(fault)))
    return [item for kind, each in by_kind.items() for item in findings.unusable(kind, where, each, total, 'records')]


def _names(origin: Origin, sound: Sequence[tuple[int, Entry]]) -> tuple[tuple[str, ...], list[Finding]]:
    """Names of all images, and a finding about those that occur twice."""
    names = [entry.name or f'{os.path.basename(origin.paths[file])}/{entry.number}' for file, entry in sound]
    seen = collections.Counter()
    for position, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[position] = f'{name}-{seen[name]}'
    remarks = []
    if twice := [name for name, times in seen.items() if times > 1]:
        remarks.append(
            Finding(
                kind='same_names',
                severity=WARN,
                text=f'{origin.where}: {len(twice)} names belong to several records, such as '
                f'{checking.first_of(twice)}; the later ones get a number.',
                remedy='Are the same images in several files?',
                images=tuple(twice),
                count=len(twice),
            )
        )
    return tuple(names), remarks


def _ids(entries: Sequence[Entry]) -> tuple[int | str, ...]:
    """Ids of all images: those of the records if each has one of its own, otherwise the positions from 1 on."""
    ids = [entry.id for entry in entries]
    return tuple(range(1, len(ids) + 1)) if '' in ids or len(set(ids)) < len(ids) else tuple(ids)
