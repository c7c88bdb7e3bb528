"""Finds and reads the files of YOLO's data sets for segmentation."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import yaml

from seg.datasets import checking, findings, image_files, layouts, remembered, splits
from seg.datasets import orientation as orientations
from seg.datasets.findings import NOTE, Finding
from seg.datasets.image_files import ImageHeader
from seg.datasets.instances import collected, folders
from seg.datasets.instances.data_set import Source
from seg.datasets.label_maps import class_names as names_files
from seg.errors import UserError, shown
from seg.files import read_bytes

_BEYOND = 0.01  # Tools write outlines that reach a little beyond the image; they are cut at its border.
_CLASSES = ('classes.txt', 'obj.names')


class Layout(NamedTuple):
    """Where the files of a split are.

    Attributes:
      root: the folder of the data set.
      images: paths of the images.
      names: the class names.
      origin: the file of the class names.
      holds_all: whether these are the images of all splits.
    """

    root: str
    images: list[str]
    names: tuple[str, ...]
    origin: str
    holds_all: bool


def find(part: str, data_dir: Any, split: str) -> Layout:
    """Finds the files of a split.

    Raises:
      UserError: if there are none, or there are no class names.
    """
    splits.parts(f'{part}.split', split)
    given = os.path.expanduser(str(data_dir)) if isinstance(data_dir, (str, os.PathLike)) else ''
    is_yaml = given.endswith(('.yaml', '.yml')) and os.path.isfile(given)
    root = folders.checked(part, os.path.dirname(given) or '.' if is_yaml else data_dir)
    found = [name for name in checking.listed(root) if name.endswith(('.yaml', '.yml'))]
    found = [os.path.basename(given)] if is_yaml else found
    if len(found) > 1 and 'data.yaml' not in found:
        raise UserError(
            f'{part}.data_dir = {shown(data_dir)}: it holds the YAML files {checking.first_of(found)}. Set data_dir to '
            'one of them.'
        )
    described, origin = {}, ''
    if found:
        origin = posixpath.join(root, 'data.yaml' if 'data.yaml' in found else found[0])
        described = _yaml(origin)
    names, origin = _class_names(part, root, described, origin)
    images, holds_all = _images(part, root, described, origin, split)
    return Layout(root, images, names, origin, holds_all)


class _Yaml(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML takes the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if isinstance(key, (str, int)) and keys.count(key) > 1:
                raise yaml.YAMLError(f'the key {shown(key)} is there twice')
        return super().construct_mapping(node, deep)


def _yaml(path: str) -> Mapping:
    try:
        found = yaml.load(read_bytes(path), _Yaml)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of dates.
        reason = ' '.join(str(error).split())[:200]
        raise UserError(
            f'{path}: it is not YAML: {reason}. Expected names, train and val, as YOLO describes.'
        ) from None
    if not isinstance(found, Mapping):
        raise UserError(f'{path}: it holds {shown(found)}, expected entries such as names, train and val.')
    return found


def _class_names(part: str, root: str, described: Mapping, origin: str) -> tuple[tuple[str, ...], str]:
    """The class names, and the file that has them."""
    names = described.get('names')
    if names is None:
        for name in _CLASSES:
            path = posixpath.join(root, name)
            if os.path.isfile(path):
                return names_files.read(path), path
    if names is None:
        there = (
            f'{origin} has no names.'
            if origin
            else f'there is no data.yaml in {root}. {layouts.described(root, "yolo")}'
        )
        raise UserError(
            f'{part}: {there} Expected class names: data.yaml with the entry names: [cat, dog], or classes.txt with '
            'one name per line.'
        )
    if isinstance(names, Mapping):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(f'{origin}: names has the numbers {shown(list(names))}, expected 0 to {len(names) - 1}.')
        names = [names[number] for number in range(len(names))]
    if isinstance(names, list):
        if any(isinstance(name, bool) for name in names):
            raise UserError(
                f"{origin}: names is {shown(names)}: YAML reads yes, no, on and off as truth values. Quote 'no'."
            )
        names = [str(name) if isinstance(name, (int, float)) else name for name in names]
    if not isinstance(names, list) or not names or not all(map(checking.is_text, names)):
        raise UserError(f'{origin}: names is {shown(names)}, expected a list of class names, such as [cat, dog].')
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f'{origin}: names has {shown(twice[0])} twice. Expected each name once.')
    count = described.get('nc')
    if isinstance(count, int) and count != len(names):
        raise UserError(f'{origin}: nc is {count}, and there are {len(names)} names. Expected one name for each class.')
    return tuple(names), origin


def _images(part: str, root: str, described: Mapping, origin: str, split: str) -> tuple[list[str], bool]:
    """Paths of the images of a split; and whether they are those of all splits."""
    entry = described.get(split)
    if entry is not None:
        entries = entry if isinstance(entry, list) else [entry]
        found = [path for each in entries for path in _of_entry(root, described, origin, split, each)]
    else:
        candidates = [f'images/{split}', f'{split}/images', split]
        usable = [name for name in candidates if os.path.isdir(posixpath.join(root, name))]
        if not usable and not any(key in described for key in ('train', 'val', 'test')):
            found = [posixpath.join(root, name) for name in folders.files(root, folders.IMAGES)]
            if found:
                return found, True
        if not usable:
            there = [key for key in ('train', 'val', 'test') if described.get(key) is not None]
            known = f'{origin} has {" and ".join(there)}' if there else checking.holds(root)
            raise UserError(
                f'{part}.split = {shown(split)}: there is no folder {" or ".join(candidates)} in {root}. {known}.'
            )
        found = _inside(posixpath.join(root, usable[0]))
    if not found:
        raise UserError(f'{part}.split = {shown(split)}: there is no image (JPEG or PNG) of this split in {root}.')
    return sorted(set(found)), False


def _of_entry(root: str, described: Mapping, origin: str, split: str, entry: Any) -> list[str]:
    """Paths of the images that an entry of the YAML file names: a folder, or a list of files."""
    if not checking.is_text(entry) or '\0' in entry:
        raise UserError(f'{origin}: {split} is {shown(entry)}, expected a folder of images, such as images/train.')
    base = described.get('path')
    base = posixpath.join(root, base) if checking.is_text(base) and '\0' not in base else root
    # Exports often name places of the machine where they were made, or one folder too far up.
    plain = entry
    while plain.startswith('../'):
        plain = plain[3:]
    places = [posixpath.normpath(posixpath.join(b, e)) for b in (base, root) for e in (entry, plain)]
    there = [place for place in places if os.path.exists(place)]
    place = next((place for place in there if _is_inside(root, place)), None)
    if place is None and there:
        raise UserError(
            f'{origin}: {split} is {shown(entry)}, which is {there[0]}, outside of data_dir = {root!r}. Set data_dir '
            'to a folder that holds all of the data, or correct the entry (or path) in this file.'
        )
    if place is None:
        raise UserError(
            f'{origin}: {split} is {shown(entry)}, but there is neither {" nor ".join(dict.fromkeys(places))}. '
            f'{checking.holds(root)}. Correct the entry (or path) in this file.'
        )
    if os.path.isdir(place):
        return _inside(place)
    lines = [line.strip() for line in read_bytes(place).decode('utf-8-sig', 'replace').splitlines()]
    paths = [posixpath.normpath(posixpath.join(posixpath.dirname(place), line)) for line in lines if line]
    if outside := [path for path in paths if not _is_inside(root, path)]:
        raise UserError(
            f'{place}: {len(outside)} of {len(paths)} listed images lie outside of data_dir = {root!r}: '
            f'{checking.first_of(outside)}. Set data_dir to a folder that holds all of the data, or correct the list.'
        )
    lost = [path for path in paths if not os.path.isfile(path)]
    if lost:
        raise UserError(f'{place}: {len(lost)} of {len(paths)} listed images do not exist: {checking.first_of(lost)}.')
    return paths


def _is_inside(root: str, path: str) -> bool:
    root = os.path.abspath(root)
    return os.path.commonpath([root, os.path.abspath(path)]) == root


def _inside(folder: str) -> list[str]:
    return [posixpath.join(folder, name) for name in folders.files(folder, folders.IMAGES)]


# ---- Text files ------------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    image: int
    number: int  # Of the line, from 1.
    category: int
    outline: list[float] | None  # x0, y0, x1, y1, … in pixels; None for a box.


def read(layout: Layout, split: str, orientation: Any) -> Source:
    """Reads the text files and the headers of the images.

    Raises:
      UserError: if some are missing, damaged or of another kind.
    """
    part = 'datasets.yolo'
    where = f'{part}, split {split!r} of {layout.root}'
    upright, images = orientations.check(part, orientation), layout.images
    headers = remembered.each(
        ['headers', where], [[path] for path in images], lambda n: _header(images[n]), ImageHeader,
        f'{where}: reading headers',
    )  # fmt: skip
    names = [os.path.relpath(path, layout.root).replace(os.sep, '/') for path in images]
    faults = [(name, header) for name, header in zip(names, headers, strict=True) if isinstance(header, str)]
    findings.settle(findings.unusable('unreadable', where, faults, len(images), 'images'))
    sizes = [(header.height, header.width) for header in headers]
    if upright:
        sizes = [orientations.upright(size, h.orientation) for size, h in zip(sizes, headers, strict=True)]
    lines, faults, without = [], [], []
    for place, path in enumerate(images):
        text = _label_path(path)
        if not os.path.exists(text):
            without.append(names[place])
            continue
        try:
            lines += _lines(place, text, sizes[place], layout)
        except ValueError as error:
            faults.append((posixpath.splitext(names[place])[0], f'{text}{error}'))
    findings.settle(findings.unusable('unusable_annotations', where, faults, len(images), 'text files'))
    if len(without) == len(images):
        raise UserError(
            f'{where}: none of its {len(images)} images has a text file; the first would be {_label_path(images[0])}. '
            f'{layouts.described(layout.root, "yolo")}'
        )
    remarks = []
    if without:
        text = f'{where}: {len(without)} images have no text file, thus no instance: {checking.first_of(without)}.'
        remarks.append(Finding(kind='images_without_labels', severity=NOTE, text=text, count=len(without)))
    sizes = np.array(sizes, np.int32)
    return Source(
        part=part,
        split=split,
        labels=layout.root,
        folder=layout.root,
        names=tuple(names),
        ids=tuple(range(1, len(names) + 1)),
        sizes=sizes,
        instances=_collect(where, lines, sizes, images, remarks),
        class_names=layout.names,
        original_ids=None,
        drop='remove it with its text file',
        remarks=remarks,
    )


def _header(path: str) -> ImageHeader | str:
    try:
        return image_files.read_header(path)
    except (ValueError, tf.errors.OpError) as error:
        return f'{path}: not a readable image: {error}. Replace the file, or remove it with its text file.'


def _label_path(path: str) -> str:
    """The text file of an image: in `labels` in place of the last `images`, or beside it."""
    before, found, after = path.rpartition('/images/')
    beside = posixpath.splitext(path)[0] + '.txt'
    apart = posixpath.splitext(f'{before}/labels/{after}')[0] + '.txt'
    return apart if found and (os.path.exists(apart) or not os.path.exists(beside)) else beside


def _lines(place: int, path: str, size: tuple[int, int], layout: Layout) -> list[_Line]:
    """The lines of a text file.

    Raises:
      ValueError: with the rest of the message after the path.
    """
    height, width = size
    found = []
    for number, line in enumerate(read_bytes(path).decode('utf-8-sig', 'replace').splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            values = np.array(words, np.float64)
        except ValueError:
            raise ValueError(
                f', line {number}: {shown(line)}: expected numbers: the class, then x and y of each point.'
            ) from None
        category = values[0]
        if not (category % 1 == 0 and 0 <= category < len(layout.names)):
            raise ValueError(
                f', line {number}: the class is {words[0]}, but {layout.origin} has names for 0 to '
                f'{len(layout.names) - 1}. Add the name, or correct the number.'
            )
        if len(values) == 5:
            found.append(_Line(place, number, int(category), None))
            continue
        if len(values) < 7 or len(values) % 2 == 0:
            raise ValueError(
                f', line {number}: {len(values)} numbers; expected the class, then x and y of three points or more.'
            )
        outline = values[1:]
        if not (outline.min() >= -_BEYOND and outline.max() <= 1 + _BEYOND):  # Also for NaN.
            far = outline[~((outline >= -_BEYOND) & (outline <= 1 + _BEYOND))][0]
            raise ValueError(
                f', line {number}: the coordinate {far:g}; expected fractions of width and height from 0 to 1. Divide '
                'pixels by the size of the image.'
            )
        outline = np.clip(outline, 0, 1).reshape(-1, 2) * [width, height]
        found.append(_Line(place, number, int(category), outline.reshape(-1).tolist()))
    return found


def _collect(
    where: str, lines: Sequence[_Line], sizes: np.ndarray, images: Sequence[str], remarks: list[Finding]
) -> collected.Instances:
    def title(number):
        line = lines[number]
        return f'line {line.number} of {shown(_label_path(images[line.image]))}'

    def chunks():
        for numbers in collected.in_pieces(len(image_of)):
            outlines = [lines[number].outline for number in numbers]
            yield numbers, [collected.Shape([outline] if outline else None) for outline in outlines]

    image_of = np.array([line.image for line in lines], np.int64)
    classes = np.array([line.category for line in lines], np.int32)
    crowds = np.zeros(len(lines), bool)
    return collected.collect(where, chunks(), image_of, classes, crowds, sizes, title, remarks, expects_boxes=False)
