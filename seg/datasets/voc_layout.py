"""Folders in the layout of PASCAL VOC: images, label files, lists of names."""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from seg.datasets import checking, class_maps, findings, splits, voc_folder
from seg.datasets import orientation as orientations
from seg.datasets.base import check_target
from seg.datasets.builders import reading
from seg.datasets.described import Described
from seg.datasets.findings import Finding
from seg.datasets.label_maps import legend as legends
from seg.datasets.label_maps import stored_palette
from seg.datasets.label_maps.legend import IGNORE, Legend
from seg.datasets.label_maps.objects import KIND, InstanceMaps
from seg.datasets.label_maps.semantic import Classes, Files, LabelMaps
from seg.datasets.label_maps.values import Counts
from seg.datasets.voc_folder import IMAGES, LABELS, NAMES, OBJECTS, SPLITS
from seg.drawing.palette import class_palette
from seg.errors import UserError, shown
from seg.known_classes import VOC_CLASS_NAMES
from seg.registry import datasets
from seg.structures import DatasetInfo

_PART = 'datasets.voc_layout'
_LARGEST = (500, 500)  # The images of PASCAL VOC, in pixels.
_IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png')
_TOO_FEW = {
    'label_map': 'which leaves nothing to distinguish. Name the background as well, and label it with its own id',
    'instances': 'which is the background. Name at least one class after it',
}


@datasets.register('voc_layout', free=('data_dir', 'download'))
def voc_layout(
    *,
    data_dir: str | None,
    split: str = 'train',
    target: str = 'label_map',
    verify: bool = True,
    orientation: str | None = None,
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    void: Sequence[str] | None = None,
    ignore_values: Sequence[int] | None = None,
    download: str | None = None,
) -> LabelMaps | InstanceMaps | Described:
    """Images with label files in a folder laid out like PASCAL VOC, with VOC's classes or your own.

    The folder holds
    - `JPEGImages/<name>.jpg` (or .jpeg, .png),
    - `SegmentationClass/<name>.png`: the class id of each pixel, greyscale or indices into any palette; 255 is ignored,
    - for instances, `SegmentationObject/<name>.png`: the number of each pixel's instance, from 1 on; 0 is background,
      and in maps of 8 bits 255 is ignored (maps of 16 bits have room for more). An instance's class is the most common
      one of its pixels in `SegmentationClass`,
    - `ImageSets/Segmentation/<split>.txt`: the names of the split, one per line; `city/1` for files in folders `city`,
    - `class_names.txt`: the class names, one per line, id 0 first. Without it the classes are the 21 of PASCAL VOC.

    By default images and labels are read as stored: an EXIF orientation is not applied, because label tools write PNGs
    without it. If image and label differ in size for this reason, the message says so.

    Args:
      data_dir: this folder, or a folder that holds it as `VOC2012` or `VOCdevkit/VOC2012`. None: a run needs
        `download`; `--topology` uses the classes and the image size of PASCAL VOC.
      split: which list of names to use.
      target: supplied; 'label_map' (background is class 0) or 'instances' (the classes are those after the background).
      verify: whether `verify()` decodes every file. Otherwise it reads headers only: sizes and file types.
      orientation: 'ignore' (the default), or 'apply': images are turned upright by their EXIF orientation; labels must
        fit the turned images.
      classes: a subset of the classes, in the wanted order; the others are void.
      merge: {name of a class in the files: name of the class that it belongs to}.
      void: names of classes that are ignored; instances of them are crowds, which are ignored.
      ignore_values: label values that are ignored; None: 255.
      download: the published set that is used without `data_dir`, 'voc2012_segmentation' or 'camvid11'. The first run
        downloads and prepares it (docs/records.md).

    Raises:
      UserError: if the folder, the list or a listed file is missing, or a setting is out of its range.
    """
    check_target(_PART, target, ['label_map', 'instances'])
    splits.parts(f'{_PART}.split', split)
    upright = orientations.check(_PART, orientation)
    needed = [IMAGES, LABELS, *([OBJECTS] if target == 'instances' else []), SPLITS]
    if not isinstance(data_dir, (str, os.PathLike)) or not str(data_dir):
        refusal = (
            f'{_PART}.data_dir = {data_dir!r}: expected a folder that holds {", ".join(needed)}. '
            f'Set it in the gin file or by --gin_param="{_PART}.data_dir=\'/path/to/VOCdevkit\'".'
        )
        if data_dir is not None:
            raise UserError(refusal)
        palette = class_palette(VOC_CLASS_NAMES)
        _, found = _legend(VOC_CLASS_NAMES, palette, target, classes, merge, void, ignore_values, '')
        fetch = functools.partial(
            *(reading.read, _PART, download, split, target, verify, orientation),
            classes=classes, merge=merge, void=void, ignore_values=ignore_values,
        )  # fmt: skip
        info = DatasetInfo(f'voc_layout/{split}', found.names, 1, _LARGEST)
        return Described(info, target, refusal, fetch if download else None)
    root = voc_folder.find_root(os.path.expanduser(str(data_dir)), needed)
    names, stems = voc_folder.read_class_names(root), voc_folder.read_split(root, split)
    names_file = posixpath.join(root, NAMES)
    if len(names) < 2:
        raise UserError(f'{names_file} names {shown(names[0])} only, {_TOO_FEW[target]}.')
    origin = names_file if tf.io.gfile.exists(names_file) else f'PASCAL VOC, because there is no {names_file}'
    remarks: list[Finding] = []
    kinds = {'image': (IMAGES, _IMAGE_ENDINGS), 'label': (LABELS, ('.png',)), KIND: (OBJECTS, ('.png',))}
    if target != 'instances':
        del kinds[KIND]
    paths = [_find_files(root, split, stems, *place, kind, remarks) for kind, place in kinds.items()]
    stems = [stem for stem in stems if all(stem in found for found in paths)]
    if not stems:
        findings.settle(remarks)
    images, labels, numbers = [*([found[stem] for stem in stems] for found in paths), ()][:3]
    files = Files(
        part=_PART,
        split=split,
        root=root,
        names=tuple(stems),
        images=images,
        labels=labels,
        numbers=numbers,
        add_names='there',
        any_format=False,
    )
    palette = stored_palette.read(labels, names, range(len(names))) or class_palette(names)
    legend, found = _legend(names, palette, target, classes, merge, void, ignore_values, origin)
    build = InstanceMaps if target == 'instances' else LabelMaps
    extra = functools.partial(_missing_names, f'{_PART}, split {split!r} of {root}', names_file)
    return build(files, legend, found, decode_all=verify, upright=upright, remarks=remarks, extra=extra)


def _legend(names, palette, target, classes, merge, void, ignore_values, origin) -> tuple[Legend, Classes]:
    first = 1 if target == 'instances' else 0
    mapping = class_maps.class_map(_PART, names[first:], classes, merge, void)
    original = tuple(first + n for n in mapping.origins)
    legend = Legend(
        names=tuple(names),
        values=tuple(range(len(names))),
        ids=legends.instance_ids(mapping) if first else legends.class_ids(mapping),
        ignored=class_maps.ignored_values(_PART, ignore_values, (IGNORE,)),
        origin=origin,
    )
    same = original == tuple(range(len(names)))
    return legend, Classes(
        names=mapping.names, original_ids=None if same else original, colors=tuple(palette[n] for n in original)
    )


def _missing_names(where: str, names_file: str, total: Counts) -> Iterator[Finding]:
    """The finding that class names are missing."""
    absent = np.flatnonzero(total.names == 0)
    if absent.size and not tf.io.gfile.exists(names_file):
        yield Finding(
            kind='default_names',
            severity=findings.WARN,
            text=f'{where}: there is no {names_file}, so the classes are the {len(total.names)} of PASCAL VOC, of '
            f'which {checking.first_of(absent.tolist())} do not occur.',
            remedy='If you have other classes, write their names into this file, one per line.',
        )


def _find_files(
    root: str,
    split: str,
    stems: Sequence[str],
    folder: str,
    endings: Sequence[str],
    kind: str,
    remarks: list[Finding],
) -> dict[str, str]:
    """Returns the file of each listed name that has one, with the first of the `endings` that exists.

    Adds findings to the remarks.

    Raises:
      UserError: if none has one.
    """
    where = f'{_PART}, split {split!r} of {root}'
    files = {}
    for below in {posixpath.dirname(stem) for stem in stems}:
        if below.startswith('/') or '..' in below.split('/'):
            continue  # The name is outside of the folder.
        for name in checking.listed(posixpath.join(root, folder, below)):
            stem, ending = posixpath.splitext(posixpath.join(below, name))
            files.setdefault(stem, {})[ending.lower()] = f'{stem}{ending}'
    missing = [stem for stem in stems if not any(e in files.get(stem, ()) for e in endings)]
    if missing:
        named = checking.first_of([f'{stem}{endings[0]}' for stem in missing])
        others = {name for stem in missing for name in files.get(stem, {}).values()}
        there = f' There is {min(others)}, but a {kind} must end in {" or ".join(endings)}.' if others else ''
        plain = _plain_name(missing[0])
        if plain != missing[0] and _is_there(root, folder, plain, endings):
            there = (
                f' Expected one name per line, without folder, ending or anything after it: {plain!r}, not '
                f'{shown(missing[0])}.'
            )
        lacking = Finding(
            kind='missing_file',
            severity=findings.FIX,
            text=f'{where}: {len(missing)} of {len(stems)} listed names have no {kind} in '
            f'{posixpath.join(root, folder)}: {named}.{there}',
            remedy=f'Add the files, or remove the names from {" and ".join(voc_folder.split_paths(root, split))}.',
            images=tuple(missing),
            count=len(missing),
        )
        remarks += findings.left_out([lacking], len(stems))
    there = {stem: files.get(stem, {}) for stem in stems}
    found = {stem: [there[stem][e] for e in endings if e in there[stem]] for stem in there}
    if several := [stem for stem in found if len(found[stem]) > 1]:
        read, other = found[several[0]][:2]
        remarks.append(
            Finding(
                kind='several_files_of_a_name',
                severity=findings.WARN,
                text=f'{where}: {len(several)} of {len(stems)} names have several {kind}s in '
                f'{posixpath.join(root, folder)}, such as {read}, which is read, and {other}.',
                remedy='Remove the ones that are not meant.',
                images=tuple(several),
                count=len(several),
            )
        )
    return {stem: posixpath.join(root, folder, names[0]) for stem, names in found.items() if names}


def _is_there(root: str, folder: str, stem: str, endings: Sequence[str]) -> bool:
    return any(tf.io.gfile.exists(posixpath.join(root, folder, stem + ending)) for ending in endings)


def _plain_name(line: str) -> str:
    """A name without its path, its ending and what follows it in lists of other tools, such as labels."""
    words = line.split()
    return posixpath.splitext(posixpath.basename(words[0]))[0] if words else line
