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
from seg.datasets.findings import NOTE, WARN, Finding
from seg.datasets.image_files import ImageHeader
from seg.datasets.instances import collected, folders
from seg.datasets.instances.data_set import Source
from seg.datasets.label_maps import class_names
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
    described, yaml_file = {}, ''
    if found:
        yaml_file = posixpath.join(root, 'data.yaml' if 'data.yaml' in found else found[0])
        described = _yaml(yaml_file)
    names, origin = _class_names(part, root, described, yaml_file)
    count = described.get('nc')
    if count is not None and count != len(names):
        raise UserError(
            f'{yaml_file}: nc is {shown(count)}, but there are {len(names)} names in {origin}. Correct one of them.'
        )
    parts = [_images(part, root, described, yaml_file, each) for each in splits.parts(f'{part}.split', split)]
    images = sorted({path for paths, _ in parts for path in paths})
    return Layout(root, images, names, origin, any(holds_all for _, holds_all in parts))


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice, as YAML does; PyYAML would take the last one."""

    def compose_mapping_node(self, anchor):
        node, seen = super().compose_mapping_node(anchor), set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f'the key {key.value} occurs twice', problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def _yaml(path: str) -> Mapping:
    try:
        found = yaml.load(read_bytes(path), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: invalid dates.
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
                names, origin = _listed_names(path), path
                break
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
    if isinstance(names, list) and any(isinstance(name, bool) for name in names):
        raise UserError(
            f'{origin}: names is {shown(names)}: YAML reads yes, no, on, off, true and false as truth values. Quote '
            "the names, such as 'yes'."
        )
    names = (
        [str(name) if isinstance(name, (int, float)) else name for name in names] if isinstance(names, list) else names
    )
    if not isinstance(names, list) or not names or not all(map(checking.is_text, names)):
        raise UserError(f'{origin}: names is {shown(names)}, expected a list of class names, such as [cat, dog].')
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f'{origin}: names has {shown(twice[0])} twice. Expected each name once.')
    return tuple(names), origin


def _listed_names(path: str) -> list[str]:
    """The class names of a text file, one per line. There may be more than label maps can have."""
    names = class_names.read_lines(path)
    while names and not names[-1]:
        names.pop()
    if '' in names:
        raise UserError(
            f'{path} has an empty line {names.index("") + 1}, which would shift all later ids. Expected one class name '
            'per line, id 0 first.'
        )
    return names


def _images(part: str, root: str, described: Mapping, origin: str, split: str) -> tuple[list[str], bool]:
    """Paths of the images of a split; and whether they are those of all splits."""
    entry = described.get(split)
    if entry is not None:
        entries = entry if isinstance(entry, list) else [entry]
        found = [path for each in entries for path in _of_entry(root, described, origin, split, each)]
    else:
        candidates = [f'images/{split}', f'{split}/images', split]
        usable = [name for name in candidates if os.path.isdir(_within(root, posixpath.join(root, name)) or '')]
        if not usable and not any(key in described for key in ('train', 'val', 'test')):
            found = [posixpath.join(root, name) for name in checking.files_below(root, folders.IMAGES)]
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
    return found, False


def _of_entry(root: str, described: Mapping, origin: str, split: str, entry: Any) -> list[str]:
    """Paths of the images that an entry of the YAML file names: a folder, or a list of files. They are in the root."""
    if not checking.is_text(entry) or '\0' in entry:
        raise UserError(f'{origin}: {split} is {shown(entry)}, expected a folder of images, such as images/train.')
    base = described.get('path')
    base = posixpath.join(root, base) if checking.is_text(base) and '\0' not in base else root
    # Exports often name places of the machine where they were made, or one folder too far up.
    plain = entry
    while plain.startswith('../'):
        plain = plain[3:]
    places = [posixpath.normpath(posixpath.join(b, e)) for b in (base, root) for e in (entry, plain)]
    inside = [place for place in (_within(root, place) for place in places) if place]
    place = next((place for place in inside if os.path.exists(place)), None)
    if place is None and any(map(os.path.exists, places)):
        raise UserError(
            f'{origin}: {split} is {shown(entry)}, which leads out of the folder of the data set, {root}. Move the '
            'images there, and correct the entry (or path) in this file.'
        )
    if place is None:
        raise UserError(
            f'{origin}: {split} is {shown(entry)}, but there is neither {" nor ".join(dict.fromkeys(places))}. '
            f'{checking.holds(root)}. Correct the entry (or path) in this file.'
        )
    if os.path.isdir(place):
        return _inside(place)
    lines = [line for line in class_names.read_lines(place) if line]
    paths = [_within(root, posixpath.join(posixpath.dirname(place), line)) for line in lines]
    outside = [line for line, path in zip(lines, paths, strict=True) if path is None]
    if outside:
        raise UserError(
            f'{place}: {len(outside)} of {len(paths)} listed images lead out of the folder of the data set, {root}: '
            f'{checking.first_of(outside)}. Move them there, and correct the list.'
        )
    lost = [path for path in paths if not os.path.isfile(path)]
    if lost:
        raise UserError(f'{place}: {len(lost)} of {len(paths)} listed images do not exist: {checking.first_of(lost)}.')
    return paths


def _within(root: str, path: str) -> str | None:
    """A path below the root, without `..`; None if it leads out of it. Links are not resolved."""
    path = os.path.abspath(path)
    for base in (os.path.abspath(root), os.path.realpath(root)):
        if path == base or path.startswith(base.rstrip('/') + '/'):
            return root if path == base else posixpath.join(root, os.path.relpath(path, base))
    return None


def _inside(folder: str) -> list[str]:
    return [posixpath.join(folder, name) for name in checking.files_below(folder, folders.IMAGES)]


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
    unreadable, unusable, without = [], [], []
    lines, kept, sizes = [], [], []
    for path, name, header in zip(images, names, headers, strict=True):
        text, stem = _label_path(path), posixpath.splitext(name)[0]
        if isinstance(header, str):
            unreadable.append((stem, header))
            continue
        size = (header.height, header.width)
        size = orientations.upright(size, header.orientation) if upright else size
        try:
            found = _lines(len(kept), text, size, layout) if os.path.exists(text) else without.append(name)
        except ValueError as error:
            unusable.append((stem, f'{text}{error}'))
            continue
        lines += found or []
        kept.append((path, name))
        sizes.append(size)
    remarks = findings.unusable('unreadable', where, unreadable, len(images), 'images')
    remarks += findings.unusable('unusable_annotations', where, unusable, len(images), 'text files')
    remarks = findings.left_out(remarks, len(images))
    if len(without) == len(kept):
        findings.settle(remarks)
        raise UserError(
            f'{where}: none of its {len(images)} images has a text file; the first would be {_label_path(images[0])}. '
            f'{layouts.described(layout.root, "yolo")}'
        )
    images, names = zip(*kept, strict=True)
    if without:
        text = f'{where}: {len(without)} images have no text file, and so no instance: {checking.first_of(without)}.'
        remarks.append(Finding(kind='images_without_labels', severity=NOTE, text=text, count=len(without)))
    remarks += _spare(where, images)
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


def _spare(where: str, images: Sequence[str]) -> list[Finding]:
    """The finding that text files beside those of the images belong to no image, also of another split."""
    stems: dict[str, set[str]] = {}
    for folder, texts in sorted({(posixpath.dirname(path), posixpath.dirname(_label_path(path))) for path in images}):
        there = [name for place in (folder, texts) for name in checking.listed(place)]
        stems.setdefault(texts, set()).update(
            posixpath.splitext(name)[0] for name in there if name.lower().endswith(folders.IMAGES)
        )
    spare = [
        posixpath.join(folder, name)
        for folder, known in stems.items()
        for name in checking.listed(folder)
        if name.endswith('.txt') and name[:-4] not in known and _has_numbers(posixpath.join(folder, name))
    ]
    if not spare:
        return []
    text = f'{where}: {len(spare)} text files belong to no image (JPEG or PNG): {checking.first_of(spare)}.'
    remedy = 'They are not read.'
    return [Finding(kind='labels_without_image', severity=WARN, text=text, remedy=remedy, count=len(spare))]


def _has_numbers(path: str) -> bool:
    """Whether a text file has instances: there are other files, such as lists of class names."""
    try:
        first = read_bytes(path).decode('utf-8-sig').strip().split('\n')[0] if os.path.isfile(path) else ''
        return len(list(map(float, first.split()))) >= 5
    except ValueError:
        return False


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
