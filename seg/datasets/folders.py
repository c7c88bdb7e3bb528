"""Images and label maps in two folders of any names."""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from seg.datasets import checking, findings, layouts, splits
from seg.datasets import orientation as orientations
from seg.datasets.base import check_target
from seg.datasets.described import Described
from seg.datasets.findings import Finding
from seg.datasets.label_maps import class_names as names_files
from seg.datasets.label_maps import legends_of_folders as legends
from seg.datasets.label_maps import matching
from seg.datasets.label_maps.decoding import IMAGE_ENDINGS, LABEL_ENDINGS
from seg.datasets.label_maps.objects import InstanceMaps, one_class
from seg.datasets.label_maps.semantic import Files, LabelMaps
from seg.errors import UserError, did_you_mean, shown
from seg.registry import datasets
from seg.structures import DatasetInfo

_PART = 'datasets.folders'
_LARGEST = (512, 512)  # Of `--topology` without data, in pixels.
# Folders with these names divide the images.
_COLORS = ('colors.txt', 'colors.csv')
_SPLIT_FOLDERS = frozenset('train training val valid validation test testing trainval'.split())


@datasets.register('folders', free=('data_dir',))
def folders(
    *,
    data_dir: str | None,
    images: str | None = None,
    labels: str | None = None,
    instances: str | None = None,
    split: str = 'train',
    lists: str | None = None,
    fractions: Mapping[str, float] | None = None,
    groups: str | None = None,
    split_seed: int = 0,
    class_names: Sequence[str] | str | None = None,
    values: Sequence[int] | None = None,
    colors: Mapping[str, Any] | str | None = None,
    target: str = 'label_map',
    verify: bool = True,
    orientation: str = 'ignore',
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    void: Sequence[str] | None = None,
    ignore_values: Sequence[int] | None = None,
) -> LabelMaps | InstanceMaps | Described:
    """Images and their label maps in folders of any names.

    Images and labels belong together by their names: equal without the ending, or with a beginning or an end without
    digits that is the same for all (`a.jpg` and `a_mask.png`). `images` and `labels` may be globs; then what the
    wildcards stand for must be equal: `*.jpg` and `*_mask.png`.

    Images are JPEG and PNG; also WebP, TIFF, BMP and GIF (the first one of several), which Pillow decodes. Of 16 bits
    the 8 highest are used; alpha is dropped, CMYK becomes RGB. Labels hold a class id for each pixel: PNG of 1 to 16
    bits, greyscale (alpha is dropped) or palette (indices count), or RGB with three equal channels; also TIFF, BMP and
    arrays [height, width] in `.npy` files. With `colors` they hold colours. JPEG is refused for labels, because it
    changes them.

    Images are divided into splits by the first of these that is set or found: `lists`; `fractions`; `{split}` in
    `images`; subfolders named train, val, … ; else 80 % are 'train' and 20 % are 'val'.

    Args:
      data_dir: the folder that the other paths are relative to. None, for `--topology` only: two classes, no files.
      images: folder of the images, with all subfolders, or a glob. `{split}` stands for the name of the split.
      labels: likewise of the label maps. For the target 'instances' they give the class of each instance; without them
        all instances are of one class.
      instances: likewise of the instance maps, for the target 'instances': the number of each pixel's instance (8 or 16
        bits), 0 is the background. With `labels`, 255 is ignored in maps of 8 bits.
      split: 'train', 'val', …; several are joined by '+'.
      lists: text file with the names of a split, one per line, such as 'lists/{split}.txt'.
      fractions: fraction of the images in each split, such as {'train': 0.7, 'val': 0.2, 'test': 0.1}. The division is
        pseudo-random, by the names, and the same on every machine.
      groups: regular expression: images stay together if it finds the same text in their names, or in the parentheses,
        such as r'^(.*)_\\d+$' for frames of videos.
      split_seed: another number gives another division.
      class_names: names, or a text file with one per line. None: the file `class_names.txt` in `data_dir`; without it,
        the classes are the values 0 to k that occur in the labels of all splits without a gap.
      values: the label value of each class, such as (0, 255). None: 0, 1, 2, …; or 0 and 255 if there are two classes
        and no label holds anything else.
      colors: labels are colours: a dict from class names to '#rrggbb', or a table: lines `name = #rrggbb`, or CSV rows
        name, r, g, b. It names the classes; if `class_names` is set as well, to the same names, it orders them. None:
        the file `colors.txt` or `colors.csv` in `data_dir`; with names of classes only if labels hold colours. A colour
        to be ignored needs a name as well, which is listed in `void`.
      target: supplied; 'label_map' or 'instances' (with `labels`, the first class is the background).
      verify: whether `verify()` decodes every file. Otherwise it reads headers only: sizes and file types.
      orientation: 'ignore', or 'apply': images are turned upright by their EXIF orientation; labels must fit them.
      classes: a subset of the classes, in the wanted order; the others are void.
      merge: {name of a class in the files: name of the class that it belongs to}.
      void: names of classes that are ignored; instances of them are crowds, which are ignored.
      ignore_values: label values that are ignored. None: 255, unless it is the value of a class.

    Raises:
      UserError: if a folder or file is missing, names do not fit together, or a setting is out of its range.
    """
    check_target(_PART, target, ['label_map', 'instances'])
    upright = orientations.check(_PART, orientation)
    if data_dir is None:
        refusal = f'{_PART}.data_dir = None: expected the folder that holds images and labels.'
        return Described(DatasetInfo(f'folders/{split}', ('class 0', 'class 1'), 1, _LARGEST), target, refusal)
    if not isinstance(data_dir, (str, os.PathLike)) or not str(data_dir):
        raise UserError(f'{_PART}.data_dir = {shown(data_dir)}: expected the path of a folder.')
    root = os.path.expanduser(str(data_dir))
    _check_folders(root, images, labels, instances, target)
    places = {'labels': labels, 'instances': instances if target == 'instances' else None}
    places = {setting: where for setting, where in places.items() if where is not None}
    found = _find(root, images, places, split, lists, fractions, groups, split_seed)
    if colors is None and values is None:
        class_names, colors = _default_names(root, class_names, found.all_labels)
    if isinstance(class_names, str):
        origin = os.path.join(root, os.path.expanduser(class_names))
        class_names = names_files.read(origin)
    else:
        origin = f'{_PART}.class_names'
    meaning = legends.make(
        legends.Settings(
            part=_PART,
            target=target,
            class_names=class_names,
            origin=origin,
            values=values,
            colors=colors,
            colors_file=os.path.join(root, os.path.expanduser(colors)) if isinstance(colors, str) else None,
            classes=classes,
            merge=merge,
            void=void,
            ignore_values=ignore_values,
        ),
        root,
        found.all_labels,
    )
    files = Files(
        part=_PART,
        split=split,
        root=root,
        names=found.names,
        images=found.images,
        labels=found.labels.get('labels', ()),
        numbers=found.labels.get('instances', ()),
        drop='remove it',
        add_names=meaning.remedy,
        hint=meaning.hint,
    )
    remarks = [*found.remarks, *meaning.remarks]
    shared = {'decode_all': verify, 'upright': upright, 'counted': meaning.counted, 'remarks': remarks}
    if target == 'label_map':
        return LabelMaps(files, meaning.legend, meaning.classes, **shared)
    return InstanceMaps(files, meaning.legend, meaning.classes, class_of=None if labels else one_class, **shared)


@dataclasses.dataclass
class _Found:
    """The files of a split: `names`, `images`, and `labels` by setting; `all_labels` are those of all splits;
    `remarks` are findings about names.
    """

    names: list[str] = dataclasses.field(default_factory=list)
    images: list[str] = dataclasses.field(default_factory=list)
    labels: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    all_labels: list[str] = dataclasses.field(default_factory=list)
    remarks: list[Finding] = dataclasses.field(default_factory=list)


def _default_names(root: str, class_names: Any, labels: Sequence[str]) -> tuple[Any, str | None]:
    """The settings `class_names` and `colors` if the latter is not set: files in the folder.

    With names, labels may be ids beside a table for drawing; so it is used only if labels hold colours.
    """
    there = [name for name in ('class_names.txt', *_COLORS) if os.path.exists(os.path.join(root, name))]
    table = next((name for name in there if name in _COLORS), None)
    if class_names is None and 'class_names.txt' in there:
        class_names = 'class_names.txt'
    if class_names is not None and table and not legends.hold_colors(_PART, root, labels):
        table = None
    return class_names, table


def _check_folders(root: str, images: Any, labels: Any, instances: Any, target: str) -> None:
    if not os.path.isdir(root):
        raise UserError(f'{_PART}.data_dir = {root!r}: there is no such folder.{did_you_mean(root)}')
    needed = {
        'images': images,
        ('labels' if target == 'label_map' else 'instances'): instances if target != 'label_map' else labels,
    }
    for setting, where in {**needed, 'labels': labels, 'instances': instances}.items():
        if (setting in needed or where is not None) and (not isinstance(where, str) or not where):
            raise UserError(
                f'{_PART}.{setting} = {shown(where)}: expected a folder or a glob, relative to data_dir = {root!r}. '
                f'{layouts.described(root, "folders")}'
            )
    if '{split}' in f'{labels}{instances}' and '{split}' not in images:
        raise UserError(f'{_PART}.images = {images!r}: expected {{split}} in it, as in the folder of the labels.')


def _find(root, images, places, split, lists, fractions, groups, split_seed) -> _Found:
    found = _Found()
    if lists is not None and fractions is not None:
        raise UserError(
            f'{_PART}.lists = {shown(lists)} and {_PART}.fractions = {shown(fractions)}: expected one of them.'
        )
    by_place = '{split}' in images
    if by_place and fractions is not None:
        raise UserError(
            f'{_PART}.fractions = {shown(fractions)}: {_PART}.images = {images!r} divides the images already. Expected '
            'one of the two.'
        )
    for part in splits.parts(f'{_PART}.split', split) if by_place else ['']:
        try:
            paths = matching.find(f'{_PART}.images', root, images.replace('{split}', part), IMAGE_ENDINGS)
        except UserError as error:
            raise UserError(f'{error} {layouts.described(root, "folders")}'.strip()) from None
        maps = {
            setting: matching.find(f'{_PART}.{setting}', root, where.replace('{split}', part), LABEL_ENDINGS)
            for setting, where in places.items()
        }
        names = sorted(paths)
        if not by_place:
            names = [names[n] for n in _members(root, paths, found, split, lists, fractions, groups, split_seed)]
        for setting, files in maps.items():
            # Images and labels may be in one folder.
            files = {name: path for name, path in files.items() if paths.get(name) != path}
            maps[setting] = _paired(setting, places[setting], paths, files, names, found)
        names = [name for name in names if all(name in pairs for pairs in maps.values())]
        for setting, pairs in maps.items():
            found.labels.setdefault(setting, []).extend(pairs[name] for name in names)
        found.names += [posixpath.join(part, name) if by_place else name for name in names]
        found.images += [paths[name] for name in names]
    if by_place and 'labels' in places:
        everywhere = places['labels'].replace('{split}', '*')
        found.all_labels = sorted(matching.find(f'{_PART}.labels', root, everywhere, LABEL_ENDINGS).values())
    return found


def _paired(setting: str, where: str, paths, files, names, found: _Found) -> dict[str, str]:
    """The label of each image that has one."""
    pairs, rule = matching.pair(paths, files)
    slot = f'{_PART}.{setting}'
    missing = [name for name in names if name not in pairs]
    if missing:
        lacking = Finding(
            kind='missing_file',
            severity=findings.FIX,
            text=f'{slot} = {where!r}: {len(missing)} of {len(names)} images have no file there, such as '
            f'{checking.first_of(missing)}. '
            + (f'The others follow the rule: {rule}. ' if rule else '')
            + f'There are names such as {", ".join(map(shown, sorted(files)[:3]))}.',
            remedy='Add the files; or move images without them elsewhere, or list the others (lists); or use globs '
            "whose wildcards stand for the same text: 'images/*.jpg' and 'masks/*_mask.png'.",
            images=tuple(missing),
            count=len(missing),
        )
        found.remarks += findings.left_out([lacking], len(names))
    if rule:
        logging.info('%s: labels are found by their names: %s.', slot, rule)
    if unused := len(files) - len(set(pairs.values())):
        spare = sorted(set(files.values()) - set(pairs.values()))
        found.remarks.append(
            Finding(
                kind='labels_without_image',
                severity=findings.WARN,
                text=f'{slot} = {where!r}: {unused} of {len(files)} files there belong to no image, such as '
                f'{checking.first_of(spare)}.',
                remedy='They are not read.',
                count=unused,
            )
        )
    if setting == 'labels':
        found.all_labels = sorted(set(pairs.values()))
    return pairs


def _members(root, paths, found: _Found, split, lists, fractions, groups, split_seed) -> list[int]:
    """Positions of the sorted names that belong to the split."""
    names = sorted(paths)
    slot = f'{_PART}.split'
    wanted = splits.parts(slot, split)
    if lists is not None:
        if not isinstance(lists, str) or '{split}' not in lists:
            raise UserError(
                f"{_PART}.lists = {shown(lists)}: expected a path with {{split}} in it, such as 'lists/{{split}}.txt'."
            )
        members, images = [], [paths[name] for name in names]
        for part in wanted:
            path = os.path.join(root, os.path.expanduser(lists.replace('{split}', part)))
            members += splits.by_list(f'{_PART}.lists', path, names_files.read_lines(path), names, images)
        return list(dict.fromkeys(members))
    steps = {step for name in names for step in posixpath.dirname(name).split('/')}
    if fractions is None and (steps & _SPLIT_FOLDERS or all(part in steps for part in wanted)):
        members = []
        for part in wanted:
            inside = splits.by_folder(names, part)
            if not inside:
                there = sorted(steps & _SPLIT_FOLDERS)
                raise UserError(
                    f'{slot} = {shown(split)}: no image is in a folder {part!r}. The images are divided by folders: '
                    f'{", ".join(map(repr, there))}. Set split to one of them; or set {_PART}.fractions or '
                    f'{_PART}.lists.'
                )
            members += inside
        found.remarks += splits.outside(slot, names, {*_SPLIT_FOLDERS, *wanted})
        return sorted(set(members))
    return splits.by_fraction(_PART, names, split, fractions or splits.FRACTIONS, groups, split_seed)
