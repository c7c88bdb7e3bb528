"""Finds what the annotations of COCO's files refer to: their images and classes."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from seg.datasets import checking
from seg.datasets.findings import WARN, Finding
from seg.errors import shown

# The strings come from files that were converted from CSV and XML.
_IS_CROWD = {0: False, 1: True, None: False, '0': False, '1': True, 'false': False, 'true': True, '': False}


class _Reference(msgspec.Struct, gc=False):
    """What an annotation in the ordinary form refers to."""

    id: int
    image_id: int
    category_id: int
    iscrowd: int = 0
    # Of panoptic annotations, which are refused.
    segments_info: Literal['none'] | msgspec.UnsetType = msgspec.UNSET


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
            problems.append(f'{name}: image_id is {shown(image_id)}, which is not in images. It lists {listed[0]}.')
        elif its_class is None:
            problems.append(f'{name}: category_id is {shown(category_id)}; categories lists {listed[1]}.')
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


def of_typed(pieces: Iterable[bytes]) -> np.ndarray:
    """Ids, image ids, category ids and crowd marks of all annotations, int64 [4, annotations].

    Args:
      pieces: JSON lists of annotations.

    Raises:
      msgspec.MsgspecError, OverflowError: if a value is no number of int64.
    """
    found = [np.zeros([4, 0], np.int64)]
    for piece in pieces:
        entries = _REFERENCES.decode(piece)
        ids, images = [entry.id for entry in entries], [entry.image_id for entry in entries]
        categories, crowds = [entry.category_id for entry in entries], [entry.iscrowd for entry in entries]
        found.append(np.array([ids, images, categories, crowds], np.int64))
    return np.concatenate(found, axis=1)


def positions(index_of: Mapping[int | str, int], ids: np.ndarray) -> np.ndarray | None:
    """The entries with these ids; None if one is missing, or if there are ids of another kind."""
    if not index_of or not all(isinstance(identity, int) and abs(identity) < 2**63 for identity in index_of):
        return None
    known = np.array(list(index_of), np.int64)
    order = np.argsort(known)
    found = order[np.minimum(np.searchsorted(known[order], ids), len(known) - 1)]
    return np.array(list(index_of.values()), np.int64)[found] if (known[found] == ids).all() else None
