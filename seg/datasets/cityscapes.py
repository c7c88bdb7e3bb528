"""Cityscapes: street scenes with 19 classes, 8 of them with instances (Cordts et al., CVPR 2016)."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from seg.datasets import checking, class_maps, findings, layouts, splits
from seg.datasets.base import check_target
from seg.datasets.described import Described
from seg.datasets.findings import Finding
from seg.datasets.label_maps import legend as legends
from seg.datasets.label_maps import matching
from seg.datasets.label_maps.legend import Legend
from seg.datasets.label_maps.objects import InstanceMaps
from seg.datasets.label_maps.semantic import Classes, Files, LabelMaps
from seg.errors import UserError, shown
from seg.registry import datasets
from seg.structures import DatasetInfo

_PART = 'datasets.cityscapes'
_SIZE = (1024, 2048)  # Of all images, in pixels.
_IMAGES = 'leftImg8bit'
_INSTANCE = 1000  # Factor of the label id in instance maps; smaller values are label ids of groups.


class _Label(NamedTuple):
    name: str
    color: tuple[int, int, int]
    evaluated: bool = False
    has_instances: bool = False


# By label id: the table of the authors' scripts.
_LABELS = (
    _Label('unlabeled', (0, 0, 0)),
    _Label('ego vehicle', (0, 0, 0)),
    _Label('rectification border', (0, 0, 0)),
    _Label('out of roi', (0, 0, 0)),
    _Label('static', (0, 0, 0)),
    _Label('dynamic', (111, 74, 0)),
    _Label('ground', (81, 0, 81)),
    _Label('road', (128, 64, 128), True),
    _Label('sidewalk', (244, 35, 232), True),
    _Label('parking', (250, 170, 160)),
    _Label('rail track', (230, 150, 140)),
    _Label('building', (70, 70, 70), True),
    _Label('wall', (102, 102, 156), True),
    _Label('fence', (190, 153, 153), True),
    _Label('guard rail', (180, 165, 180)),
    _Label('bridge', (150, 100, 100)),
    _Label('tunnel', (150, 120, 90)),
    _Label('pole', (153, 153, 153), True),
    _Label('polegroup', (153, 153, 153)),
    _Label('traffic light', (250, 170, 30), True),
    _Label('traffic sign', (220, 220, 0), True),
    _Label('vegetation', (107, 142, 35), True),
    _Label('terrain', (152, 251, 152), True),
    _Label('sky', (70, 130, 180), True),
    _Label('person', (220, 20, 60), True, True),
    _Label('rider', (255, 0, 0), True, True),
    _Label('car', (0, 0, 142), True, True),
    _Label('truck', (0, 0, 70), True, True),
    _Label('bus', (0, 60, 100), True, True),
    _Label('caravan', (0, 0, 90), False, True),
    _Label('trailer', (0, 0, 110), False, True),
    _Label('train', (0, 80, 100), True, True),
    _Label('motorcycle', (0, 0, 230), True, True),
    _Label('bicycle', (119, 11, 32), True, True),
)


@datasets.register('cityscapes', free=('data_dir',))
def cityscapes(
    *,
    data_dir: str | None,
    split: str = 'train',
    annotations: str = 'gtFine',
    target: str = 'label_map',
    verify: bool = True,
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    void: Sequence[str] | None = None,
) -> LabelMaps | InstanceMaps | Described:
    """Cityscapes as published: `leftImg8bit/<split>/<city>/` and `gtFine/<split>/<city>/`.

    Label maps are made from `…_labelIds.png`: the 19 evaluated classes in the order of their train ids; other labels
    are ignored. Instances are made from `…_instanceIds.png` (16 bits): the 8 evaluated classes with instances. As in
    the official evaluation, groups without instances are crowds, and caravans and trailers count nowhere. (The other
    ignored regions, such as 'dynamic', count there as void as well; here detections in them are false positives.)

    Args:
      data_dir: the folder that holds both folders. None, for `--topology` only: classes and image size without files.
      split: 'train', 'val', …; several are joined by '+'.
      annotations: folder of the annotations: 'gtFine' or 'gtCoarse'.
      target: supplied; 'label_map' or 'instances'.
      verify: whether `verify()` decodes every file. Otherwise it reads headers only: sizes and file types.
      classes: a subset of the classes, in the wanted order; the others are void. It may name labels that are not
        evaluated, such as 'parking'.
      merge: {name of a label: name of the class that it belongs to}, such as {'parking': 'road'}.
      void: names of labels that are ignored, besides those that are not evaluated.

    Raises:
      UserError: if a folder or file is missing, or a setting is out of its range.
    """
    check_target(_PART, target, ['label_map', 'instances'])
    legend, found = _legend(target, classes, merge, void)
    if data_dir is None:
        refusal = f'{_PART}.data_dir = None: expected the folder that holds {_IMAGES} and {annotations}.'
        return Described(DatasetInfo(f'cityscapes/{split}', found.names, 1, _SIZE), target, refusal)
    if not isinstance(data_dir, (str, os.PathLike)) or not str(data_dir):
        raise UserError(f'{_PART}.data_dir = {shown(data_dir)}: expected the folder that holds {_IMAGES}.')
    root = os.path.expanduser(str(data_dir))
    remarks: list[Finding] = []
    names, images, labels, numbers = _find(root, split, annotations, target, remarks)
    files = Files(
        part=_PART,
        split=split,
        root=root,
        names=names,
        images=images,
        labels=labels,
        numbers=numbers,
        drop='remove it',
    )
    if target == 'label_map':
        return LabelMaps(files, legend, found, decode_all=verify, remarks=remarks)
    return InstanceMaps(files, legend, found, decode_all=verify, remarks=remarks, class_of=_class_of)


def _class_of(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    is_group = number < _INSTANCE
    return tf.where(is_group, number, number // _INSTANCE), is_group


def _legend(target: str, classes: Any, merge: Any, void: Any) -> tuple[Legend, Classes]:
    """The meaning of label ids."""
    with_instances = target == 'instances'
    used = [n for n, label in enumerate(_LABELS) if label.has_instances or not with_instances]
    names = [_LABELS[n].name for n in used]
    if classes is None:
        joined = merge if isinstance(merge, Mapping) else {}
        dropped = void if isinstance(void, tuple | list) else ()
        kept = [
            label.name for label in _LABELS if label.name in names and label.evaluated and label.name not in dropped
        ]
        classes = list(dict.fromkeys(joined.get(name, name) for name in kept))
    mapping = class_maps.class_map(_PART, names, classes, merge, void)
    if with_instances:
        ids = dict(zip(used, legends.instance_ids(mapping)[1:], strict=True))
    else:
        ids = dict(enumerate(legends.class_ids(mapping)))
    legend = Legend(
        names=tuple(label.name for label in _LABELS),
        values=tuple(range(len(_LABELS))),
        ids=np.array([ids.get(n, 0) for n in range(len(_LABELS))], np.int32),
        ignored=(),
        origin='the table of Cityscapes',
    )
    origins = [used[n] for n in mapping.origins]
    return legend, Classes(
        names=mapping.names, original_ids=tuple(origins), colors=tuple(_LABELS[n].color for n in origins)
    )


def _find(root: str, split: str, annotations: str, target: str, remarks: list[Finding]):
    """Names, images, label maps and instance maps of a split; the maps of the other target are not needed."""
    parts = splits.parts(f'{_PART}.split', split)
    for folder in (_IMAGES, annotations):
        if not os.path.isdir(os.path.join(root, folder)):
            raise UserError(
                f'{_PART}.data_dir = {root!r}: there is no folder {folder} in it. Expected the folder that holds '
                f'{_IMAGES} and {annotations}, as Cityscapes is published. {layouts.described(root, "cityscapes")}'
            )
    kind = 'labelIds' if target == 'label_map' else 'instanceIds'
    images, labels = {}, {}
    for part in parts:
        if not os.path.isdir(os.path.join(root, _IMAGES, part)):
            there = ', '.join(map(repr, sorted(os.listdir(os.path.join(root, _IMAGES)))))
            raise UserError(f'{_PART}.split = {shown(split)}: there is no folder {_IMAGES}/{part}. There are {there}.')
        # The last part of a name is the ending, which a glob stands for.
        found = matching.find(f'{_PART}.split', root, f'{_IMAGES}/{part}/*/*_{_IMAGES}.*', ())
        maps = matching.find(f'{_PART}.split', root, f'{annotations}/{part}/*/*_{annotations}_{kind}.png', ())
        for name, path in ((posixpath.dirname(name), path) for name, path in found.items()):
            if name in images:
                raise UserError(
                    f'{_PART}.split = {shown(split)}: {images[name]} and {path} are both the image {name!r}. Expected '
                    'one of them: remove the other.'
                )
            images[name] = path
            labels[name] = maps.get(name)
    names = sorted(images)
    if missing := [name for name in names if labels[name] is None]:
        lacking = Finding(
            kind='missing_file',
            severity=findings.FIX,
            text=f'{_PART}.split = {shown(split)}: {len(missing)} of {len(names)} images have no file '
            f'…_{annotations}_{kind}.png, such as {checking.first_of(missing)}.',
            remedy="Add the files (the authors' scripts make them: createTrainIdLabelImgs, createTrainIdInstanceImgs), "
            'or remove the images.',
            images=tuple(missing),
            count=len(missing),
        )
        remarks += findings.left_out([lacking], len(names))
        names = [name for name in names if labels[name] is not None]
    paths = [labels[name] for name in names]
    return names, [images[name] for name in names], *((paths, ()) if target == 'label_map' else ((), paths))
