"""Finds the files of a data set in COCO's format: its annotations, and the images that they list."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
import urllib.parse
from collections.abc import Sequence

import tensorflow as tf

from seg.datasets import checking, findings, layouts
from seg.datasets.findings import FIX, WARN, Finding
from seg.datasets.instances.coco_json import Contents
from seg.datasets.instances.data_set import Source
from seg.errors import UserError, did_you_mean, shown

_COCO, _ROBOFLOW = 'annotations/instances_{}.json', '{}/_annotations.coco.json'
# Files that hold all images: of CVAT, Label Studio and Roboflow.
_OF_ALL = ('annotations/instances_default.json', 'result.json', '_annotations.coco.json')
_PLAIN = re.compile(r'\w[\w-]*\.\w+')  # A name that needs no further check.
_TRIED = 20  # Number of images that are looked for, to find their folder.


def find_annotations(root: str, split: str, annotations: str | None) -> tuple[str, bool]:
    """Finds the annotation file: the one that is set, the one of the split, or else a single one for all images.

    Returns:
      Its path, and whether it holds the images of all splits.

    Raises:
      UserError: if it does not exist.
    """
    wanted = [annotations] if annotations else [place.format(split) for place in (_COCO, _ROBOFLOW)]
    for name in wanted:
        path = posixpath.join(root, name)
        if _is_file(path):
            return path, False
    if not tf.io.gfile.isdir(root):
        raise UserError(
            f'datasets.coco.data_dir = {root!r}: there is no such folder.{did_you_mean(root)} Set it (in most gin '
            'files by the macro DATA_DIR) to the folder that holds annotations and images.'
        )
    found = [name for name in checking.listed(root) if name.endswith('.json')]
    for folder in checking.listed(root):
        inside = checking.listed(posixpath.join(root, folder))
        found += [f'{folder}/{name}' for name in inside if name.endswith('.json')]
    if annotations:
        remedy = f'JSON files in {root}: {checking.first_of(found)}.' if found else f'{root} holds no JSON file.'
        raise UserError(
            f'datasets.coco.annotations = {annotations!r}: there is no {posixpath.join(root, annotations)}. {remedy}'
        )
    of_all = [name for name in _OF_ALL if name in found] or (found if len(found) == 1 else [])
    patterns = [re.compile(re.escape(place).replace(r'\{\}', '([^/]+)')) for place in (_COCO, _ROBOFLOW)]
    splits = [match[1] for name in found for pattern in patterns if (match := pattern.fullmatch(name))]
    if of_all and set(splits) <= {'default'}:
        return posixpath.join(root, of_all[0]), True
    if splits:
        there = f'Splits there: {checking.first_of(splits)}.'
        remedy = 'Set datasets.coco.split to one of them, or datasets.coco.annotations to your JSON file.'
    elif found:
        there = f'{layouts.described(root, "coco")} JSON files: {checking.first_of(found)}.'
        remedy = 'Set datasets.coco.annotations to your JSON file.'
    else:
        there = layouts.described(root, 'coco')
        remedy = (
            'If you have such files, set datasets.coco.data_dir (in most gin files the macro DATA_DIR) to their folder.'
        )
    raise UserError(
        f'datasets.coco.split = {split!r}: there is no {wanted[0]} and no {wanted[1]} in {root}. {there} {remedy}'
    )


def _is_file(path: str) -> bool:
    return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)


def find_folder(root: str, split: str, images: str | None, path: str, names: Sequence[str]) -> str:
    """Returns the folder of the images: the one that is set, or the usual place that has most of the first images.

    Args:
      root: the folder of the data set.
      split: name of the split.
      images: the folder that is set.
      path: the annotation file; images may lie beside it.
      names: file names in it.

    Raises:
      UserError: if there is none.
    """
    usual = [split, f'images/{split}', 'images', 'images/default']
    candidates = [images] if images else usual
    folders = [posixpath.join(root, candidate) for candidate in candidates]
    if not images:
        only = [name for name in checking.listed(root) if name != 'annotations' and _is_folder(root, name)]
        folders += [root, posixpath.dirname(path), *(posixpath.join(root, name) for name in only if len(only) == 1)]
        have = {folder: _has(folder, names[:_TRIED]) for folder in folders}
        if (best := max(folders, key=have.get)) and have[best]:  # The first of equals.
            return posixpath.normpath(best)
    for folder in folders[: len(candidates)]:
        if tf.io.gfile.isdir(folder):
            return posixpath.normpath(folder)
    setting = f'datasets.coco.images = {images!r}' if images else f'datasets.coco.split = {split!r}'
    raise UserError(
        f'{setting}: looked for the folder of the images at {", ".join(candidates)} in {root}. '
        f'{checking.holds(root)}. Set datasets.coco.images to it.'
    )


def _has(folder: str, names: Sequence[str]) -> int:
    """The number of these images that are in a folder."""
    within = [_within(folder, name) for name in names]
    return sum(name is not None and _is_file(posixpath.join(folder, name)) for name in within)


def _is_folder(root: str, name: str) -> bool:
    return tf.io.gfile.isdir(posixpath.join(root, name))


def find_images(
    where: str, folder: str, names: Sequence[str], ids: Sequence[int | str], remarks: list[Finding]
) -> tuple[str, ...]:
    """Finds the files of all listed images.

    Names may have Windows' separators, or be absolute paths within the folder. For a missing name, other spellings are
    tried: web tools write `%20` for a space, and macOS stores accents apart from their letters.

    Args:
      where: the split, for messages.
      folder: folder of the images.
      names: file names in the annotation file.
      ids: ids of the images, for messages.
      remarks: findings are added to it.

    Returns:
      The name of each image's file, relative to the folder and within it; of a missing one as it is listed.

    Raises:
      UserError: if all images are missing, if one is listed twice, or its name leads out of the folder.
    """
    relative = [_within(folder, name) for name in names]
    outside = [name for name, inner in zip(names, relative, strict=True) if inner is None]
    if outside:
        hint = _hint(folder, outside, len(names)) or 'Set datasets.coco.images to the folder that holds all.'
        raise UserError(
            f'{where}: {len(outside)} of {len(names)} file names lead out of the folder of the images, {folder}: '
            f'{checking.first_of(outside)}. {hint}'
        )
    listing = _Listing(folder)
    found = [name if listing.has(name) else listing.other_spelling(name) for name in relative]
    missing = [name for name, file in zip(names, found, strict=True) if file is None]
    if missing:
        hint = _hint(folder, missing, len(names)) or 'Add the files, or set datasets.coco.images to their folder.'
        lacking = Finding(
            kind='missing_image',
            severity=FIX,
            text=f'{where}: {len(missing)} of {len(names)} images are not in {folder}: {checking.first_of(missing)}. '
            f'{checking.holds(folder)}.',
            remedy=hint,
            images=tuple(posixpath.splitext(name)[0] for name, file in zip(relative, found, strict=True) if not file),
            count=len(missing),
        )
        remarks += findings.left_out([lacking], len(names))
        found = [file or name for name, file in zip(relative, found, strict=True)]
    respelt = [pair for pair in zip(relative, found, strict=True) if pair[0] != pair[1]]
    if respelt:
        text = (
            f'{where}: {len(respelt)} images were found under another spelling of their names, such as '
            f'{shown(respelt[0][1])} for {shown(respelt[0][0])}.'
        )
        remarks.append(Finding(kind='other_spelling', severity=WARN, text=text, count=len(respelt)))
    _refuse_twice(where, found, ids)
    return tuple(found)


def _within(folder: str, name: str) -> str | None:
    """A name relative to the folder; None if it leads out of it."""
    if _PLAIN.fullmatch(name):
        return name
    name = posixpath.normpath(name.replace('\\', '/'))
    if name.startswith('/'):
        for base in (os.path.abspath(folder), os.path.realpath(folder)):
            if name.startswith(base.rstrip('/') + '/'):
                return name[len(base.rstrip('/')) + 1 :]
        return None
    leads_out = name in ('.', '..') or name.startswith('../') or re.match('[A-Za-z]:/', name)
    return None if leads_out else name


class _Listing:
    """Entries of a folder and its subfolders; each is listed once, on demand."""

    def __init__(self, folder: str):
        self._folder, self._listed, self._composed = folder, {}, {}

    def _names(self, folder: str) -> set[str]:
        if folder not in self._listed:
            self._listed[folder] = set(checking.listed(posixpath.join(self._folder, folder)))
        return self._listed[folder]

    def has(self, name: str) -> bool:
        return posixpath.basename(name) in self._names(posixpath.dirname(name))

    def other_spelling(self, name: str) -> str | None:
        """The file with this name in another spelling; None if there is none."""
        plain = urllib.parse.unquote(name)
        for spelling in (name, plain) if _within(self._folder, plain) == plain and '\0' not in plain else (name,):
            if self.has(spelling):
                return spelling
            folder, base = posixpath.split(spelling)
            if folder not in self._composed:
                self._composed[folder] = {_composed(there): there for there in self._names(folder)}
            file = self._composed[folder].get(_composed(base))
            if file:
                return posixpath.join(folder, file)
        return None


def _composed(name: str) -> str:
    return unicodedata.normalize('NFC', name)


def _hint(folder: str, names: Sequence[str], count: int) -> str:
    """The remedy for missing names, out of `count` names; '' if none is known."""
    parts = [[part for part in re.split(r'[/\\]', name) if part] for name in names]
    above = posixpath.dirname(folder)
    listing = _Listing(above)
    if len(names) == count and all(
        len(path) > 1 and '..' not in path and listing.has('/'.join(path)) for path in parts
    ):
        return f'They are in {above or "."}: set datasets.coco.images to it.'
    listing = _Listing(folder)
    there = [path[-1] for path in parts if path and listing.has(path[-1])]
    if not there:
        return ''
    return (
        f'{len(there)} of them are in {folder} under the last part of their names: write {shown(there[0])}, without '
        'folders, as file_name.'
    )


def _refuse_twice(where: str, files: Sequence[str], ids: Sequence[int | str]) -> None:
    first, problems = {}, []
    for file, image_id in zip(files, ids, strict=True):
        if file in first:
            problems.append(
                f'{shown(file)} is the image of the ids {shown(first[file])} and {shown(image_id)}. Each image needs '
                'exactly one entry in images: remove the later one, and set the image_id of its annotations to '
                f'{shown(first[file])}.'
            )
        first.setdefault(file, image_id)
    checking.raise_problems(where, problems, len(files), 'entries of images')


def source(
    contents: Contents, split: str, path: str, folder: str, names: tuple[str, ...], remarks: Sequence[Finding] = ()
) -> Source:
    """The files and annotations that `datasets.coco` has found.

    Args:
      contents: the annotations.
      split: name of the split.
      path: their file.
      folder: the folder of the images.
      names: names of the images' files, relative to it.
      remarks: findings about the images' names.
    """
    return Source(
        part='datasets.coco',
        split=split,
        labels=path,
        folder=folder,
        names=names,
        ids=contents.image_ids,
        sizes=contents.sizes,
        instances=contents.instances,
        class_names=contents.class_names,
        original_ids=contents.category_ids,
        drop=f'remove it from {path}',
        remarks=[*contents.remarks, *remarks],
    )
