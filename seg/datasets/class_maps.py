"""Which classes a data set has, given the names in its files and the settings `classes`, `merge` and `void`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seg.errors import UserError, shown
from seg.number_checks import check_whole

VOID = -1  # In `ClassMap.ids`: the name belongs to no class.
_SHOWN = 12  # Number of names that a message lists.


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """The classes of a data set, and the class of each name in its files.

    Attributes:
      names: the classes; the position is the class id.
      ids: int32 [names in the files]: the class of each, `VOID` if it is ignored.
      origins: for each class, the position of its name in the files: the name equal to the class's, or the first one
        that is merged into it. Original ids and colours of classes are those of these names.
    """

    names: tuple[str, ...]
    ids: np.ndarray
    origins: tuple[int, ...]

    @property
    def changes_nothing(self) -> bool:
        """Whether every name in the files is a class, in the same order."""
        return bool(np.array_equal(self.ids, np.arange(len(self.names))))


def class_map(
    part: str,
    data_names: Sequence[str],
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    void: Sequence[str] | None = None,
) -> ClassMap:
    """Applies `void`, then `merge`, then `classes` to the names in the files.

    Args:
      part: the data set's gin key, such as 'datasets.folders', for messages.
      data_names: names in the files, each once.
      classes: a subset of the classes after `merge`, in the wanted order; all others are void. None: all, in the order
        of the files, each class at the place of the first name that belongs to it.
      merge: for names in the files, the class that they belong to: another name in the files, or a new one.
      void: names in the files that belong to no class.

    Raises:
      UserError: if a setting has another type, has a name that does not occur, or names a class twice; or if no class
        remains.
    """
    data_names = tuple(data_names)
    if merge is not None and not isinstance(merge, Mapping):
        raise UserError(
            f"{part}.merge = {shown(merge)}: expected a dict, such as {{'truck': 'car'}}: name in the files, class."
        )
    merge = dict(merge or {})
    void = _names(f'{part}.void', () if void is None else void)
    for name in void:
        _known(f'{part}.void', name, data_names)
        if name in merge:
            raise UserError(
                f'{part}.void has {shown(name)}, which {part}.merge makes part of {shown(merge[name])}. Expected the '
                'name in one of the two.'
            )
    for name, target in merge.items():
        slot = f'{part}.merge[{shown(name)}]'
        _known(slot, name, data_names)
        if not isinstance(target, str) or not target.strip():
            raise UserError(f'{slot} = {shown(target)}: expected the name of a class.')
        if target in void:
            raise UserError(f'{slot} = {shown(target)}: {part}.void has this name. Add {shown(name)} to void instead.')
        if merge.get(target, target) != target:
            raise UserError(
                f'{slot} = {shown(target)}: this name is itself merged into {shown(merge[target])}. Expected that name.'
            )
    merged = [None if name in void else merge.get(name, name) for name in data_names]
    after = list(dict.fromkeys(name for name in merged if name is not None))
    if classes is not None:
        chosen = _names(f'{part}.classes', classes)
        for name in chosen:
            _known(f'{part}.classes', name, after)
        after = list(chosen)
    if not after:
        slot, value = ('classes', classes) if classes is not None else ('void', void)
        raise UserError(f'{part}.{slot} = {shown(value)}: no class remains of {len(data_names)} names.')
    ids = np.array([after.index(name) if name in after else VOID for name in merged], np.int32).reshape(-1)
    origins = tuple(
        data_names.index(name) if name in _own(data_names, merged) else merged.index(name) for name in after
    )
    return ClassMap(tuple(after), ids, origins)


def ignored_values(part: str, values: Sequence[int] | None, default: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Returns the setting `ignore_values`: label values that belong to no class; the default if it is None.

    Raises:
      UserError: if it is not a tuple or list of whole numbers of 16 bits (negative ones occur in arrays).
    """
    if values is None:
        return default
    if not isinstance(values, tuple | list):
        raise UserError(
            f'{part}.ignore_values = {shown(values)}: expected a tuple of label values, such as (254, 255).'
        )
    return tuple(
        check_whole(f'{part}.ignore_values[{i}]', value, -(2**15), 2**16 - 1) for i, value in enumerate(values)
    )


def _own(data_names: Sequence[str], merged: Sequence[str | None]) -> set[str]:
    """Names in the files that are classes of the same name."""
    return {name for name, target in zip(data_names, merged, strict=True) if name == target}


def _names(slot: str, names: Any) -> tuple[str, ...]:
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{slot} = {shown(names)}: expected a tuple of class names, such as ('road', 'car').")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f'{slot} has {shown(twice[0])} twice. Expected each name once.')
    return tuple(names)


def _known(slot: str, name: str, names: Sequence[str]) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(str(name), names, 1)
    guess = f' Did you mean {shown(near[0])}?' if near else ''
    there = ', '.join(map(shown, names[:_SHOWN])) + (f', … ({len(names)} in all)' if len(names) > _SHOWN else '')
    raise UserError(f'{slot}: there is no class {shown(name)}.{guess} The classes are {there}.')
