"""Finds what the annotations of COCO's files refer to: their images and classes."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from seg.datasets import checking
from seg.datasets.findings import WARN, Finding
from seg.datasets.instances import collected
from seg.errors import shown

# The strings come from files that were converted from CSV and XML.
_IS_CROWD = {0: False, 1: True, None: False, '0': False, '1': True, 'false': False, 'true': True, '': False}


class _Reference(msgspec.Struct, gc=False, kw_only=True):
    """What an annotation in the ordinary form refers to."""

    id: int
    image_id: int
    category_id: int
    iscrowd: int = 0
    # Of panoptic annotations, which are refused.
    segments_info: Literal['none'] | msgspec.UnsetType = msgspec.UNSET


class _Annotation(collected.Shape, gc=False, kw_only=True):
    """The same with the shape."""

    id: int
    image_id: int
    category_id: int
    iscrowd: int = 0
    segments_info: Literal['none'] | msgspec.UnsetType = msgspec.UNSET


class Other(Exception):
    """A file that is not in the ordinary form."""


class References(NamedTuple):
    """What the annotations of a file refer to.

    Attributes:
      ids: the id of each annotation in the file.
      image_of: int64 [annotations], the image of each.
      classes: int32 [annotations].
      is_crowd: bool [annotations].
    """

    ids: Sequence[Any]
    image_of: np.ndarray
    classes: np.ndarray
    is_crowd: np.ndarray


def identity(value: Any) -> int | str | None:
    """An id: a number or a string. (pandas writes numbers as 1.0.) None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) or checking.is_text(value) else None


class _Found(dict):
    """Entries by id. A string also matches the number that it stands for, and vice versa, if that is unambiguous."""

    def __init__(self, ids: Iterable[int | str]):
        super().__init__((each, n) for n, each in enumerate(ids))
        self.other_kind = 0
        self._by_text = {}
        for each, n in self.items():
            self._by_text[str(each)] = None if str(each) in self._by_text else n

    def find(self, value: Any) -> int | None:
        """The position of the entry with an id; None if there is none."""
        wanted = identity(value)
        found = self.get(wanted)
        if found is None and wanted is not None:
            found = self._by_text.get(str(wanted))
            self.other_kind += found is not None
        return found


def find(path: str, annotations: list, index_of: Mapping, class_of: Mapping, remarks: list) -> References:
    """Finds the image and the class of every annotation, and its crowd mark."""
    count = len(annotations)
    image_of, classes, is_crowd = np.zeros(count, np.int64), np.zeros(count, np.int32), np.zeros(count, bool)
    images, categories = _Found(index_of), _Found(class_of)
    only = next(iter(class_of)) if len(class_of) == 1 else None
    listed = [checking.first_of(list(ids)) for ids in (index_of, class_of)]
    problems, ids, seen, repeated = [], [], set(), collections.Counter()
    for number, annotation in enumerate(annotations):
        image_id, category_id = annotation.get('image_id'), annotation.get('category_id')
        category_id = only if category_id is None else category_id
        name = title(identity(annotation.get('id')), number)
        image, its_class, crowd = images.find(image_id), categories.find(category_id), _crowd(annotation)
        if image is None:
            problems.append(
                f'{name}: image_id is {shown(image_id)}, which is not in images. It lists {listed[0]}. Add the image, '
                'or remove the annotation.'
            )
        elif its_class is None:
            problems.append(
                f'{name}: category_id is {shown(category_id)}; categories lists {listed[1]}. Add the category, or '
                'remove the annotation.'
            )
        elif crowd is None:
            problems.append(f'{name}: iscrowd is {shown(annotation["iscrowd"])}, expected 0 or 1.')
        else:
            image_of[number], classes[number], is_crowd[number] = image, its_class, crowd
        ids.append(identity(annotation.get('id')))
        if ids[-1] is not None:
            repeated.update([ids[-1]] if ids[-1] in seen else [])
            seen.add(ids[-1])
    checking.raise_problems(path, problems, count, 'annotations')
    for found, key in ((images, 'image_id'), (categories, 'category_id')):
        if found.other_kind:
            text = (
                f'{path}: {found.other_kind} annotations have a string as {key} where the list has a number, or vice '
                'versa; both are treated as equal.'
            )
            remarks.append(warning('id_of_other_type', text, found.other_kind))
    remarks += repeated_ids(path, repeated)
    return References(ids, image_of, classes, is_crowd)


def repeated_ids(path: str, ids: collections.Counter) -> list[Finding]:
    if not ids:
        return []
    text = (
        f'{path}: {ids.total()} annotations have the id of an earlier one, such as {checking.first_of(list(ids))}. All '
        'are used; if the file was merged from others, check that it contains no instance twice.'
    )
    return [warning('repeated_id', text, ids.total())]


def warning(kind: str, text: str, count: int) -> Finding:
    return Finding(kind=kind, severity=WARN, text=text, count=count)


def _crowd(annotation: Mapping) -> bool | None:
    """Whether an annotation is marked as a crowd; None if the mark is neither 0 nor 1."""
    mark = annotation.get('iscrowd')
    if isinstance(mark, str):
        mark = mark.strip().lower()
    return _IS_CROWD.get(mark) if mark is None or isinstance(mark, (str, int, float)) else None


def title(own: int | str | None, number: int) -> str:
    """The name of an annotation in messages, by its id or else its number."""
    return f'annotations[{number}]' if own is None else f'annotation {shown(own)}'


_REFERENCES = msgspec.json.Decoder(list[_Reference])
_ANNOTATIONS = msgspec.json.Decoder(list[_Annotation])


class Typed:
    """References of a file in the ordinary form, which are read piece by piece.

    Args:
      count: number of annotations.
      index_of: position of each image, by its id.
      category_of: position of each category, by its id.

    Attributes:
      found: what has been read; `classes` are positions of categories.
    """

    def __init__(self, count: int, index_of: Mapping[int | str, int], category_of: Mapping[int | str, int]):
        ids, image_of = (np.zeros(count, np.int64) for _ in range(2))
        self._ids, self._images, self._categories = ids, _Lookup(index_of), _Lookup(category_of)
        self.found = References(memoryview(ids), image_of, np.zeros(count, np.int32), np.zeros(count, bool))

    def read(self, numbers: np.ndarray, piece: bytes) -> list[collected.Shape] | None:
        """Reads annotations; returns their shapes, or None if one has another form.

        Args:
          numbers: of the annotations.
          piece: a JSON list of them.

        Raises:
          Other, msgspec.MsgspecError, OverflowError: if the references have another form, or something is wrong.
        """
        try:
            entries = _ANNOTATIONS.decode(piece)
        except msgspec.MsgspecError:
            entries = _REFERENCES.decode(piece)
        self._ids[numbers] = [entry.id for entry in entries]
        self.found.image_of[numbers] = self._images.find([entry.image_id for entry in entries])
        self.found.classes[numbers] = self._categories.find([entry.category_id for entry in entries])
        crowds = np.array([entry.iscrowd for entry in entries], np.int64)
        if not np.isin(crowds, [0, 1]).all():
            raise Other
        self.found.is_crowd[numbers] = crowds == 1
        return entries if isinstance(entries[0], _Annotation) else None

    def repeated(self) -> collections.Counter:
        """Ids that occur again, and how often."""
        again = np.argsort(self._ids, kind='stable')[1:][np.diff(np.sort(self._ids)) == 0]
        return collections.Counter(self._ids[np.sort(again)].tolist())


class _Lookup:
    """Finds the positions of ids that are numbers."""

    def __init__(self, position_of: Mapping[int | str, int]):
        if not all(isinstance(each, int) for each in position_of):
            raise Other
        ids = np.array(list(position_of), np.int64)
        order = np.argsort(ids)
        self._ids, self._positions = ids[order], np.array(list(position_of.values()))[order]

    def find(self, ids: Sequence[int]) -> np.ndarray:
        """The positions of ids; raises `Other` if one is missing."""
        wanted = np.array(ids, np.int64)
        place = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        if not np.array_equal(self._ids[place], wanted):
            raise Other
        return self._positions[place]
