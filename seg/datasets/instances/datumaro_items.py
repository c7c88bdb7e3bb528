"""Reads data sets by the library Datumaro, which is imported only here."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from seg.datasets import checking, findings
from seg.datasets.findings import NOTE, Finding
from seg.datasets.instances import collected
from seg.datasets.instances.data_set import Source
from seg.errors import UserError, shown

_PART = 'datasets.datumaro'
_BACKGROUND = 'background'


class _Instance(NamedTuple):
    image: int
    label: int
    parts: list[Any]  # Datumaro's polygons and masks.


def read(root: str, form: Any, split: str) -> tuple[Source, list[str]]:
    """Reads all images of a folder.

    Returns:
      What was found, and the subset of each image.

    Raises:
      UserError: if Datumaro is not installed, does not know the format, or cannot read the files.
    """
    try:
        import datumaro
    except ImportError as error:
        raise UserError(
            f'{_PART} needs the library Datumaro, which cannot be imported ({error}). Install it by '
            "pip install -e '.[formats]' (half a gigabyte), or pip install datumaro."
        ) from None
    dataset = _imported(datumaro, root, form)
    categories = dataset.categories().get(datumaro.AnnotationType.label)
    labels = [item.name for item in categories.items] if categories else []
    where = f'{_PART}, format {form!r} of {root}'
    items = sorted(dataset, key=lambda item: (str(item.subset), str(item.id)))
    files, sizes, faults, usable = [], [], [], []
    for item in items:
        path, size = getattr(item.media, 'path', None), getattr(item.media, 'size', None)
        if not path or not os.path.isfile(path):
            faults.append((str(item.id), f'{item.id}: there is no image {shown(path)}.'))
        elif not size:
            faults.append((str(item.id), f'{path}: not a readable image.'))
        else:
            files.append(os.path.relpath(path, root).replace(os.sep, '/'))
            sizes.append([int(side) for side in size])
            usable.append(item)
    unreadable = findings.unusable('unreadable', where, faults, len(items), 'images')
    remarks, items = findings.left_out(unreadable, len(items)), usable
    if not files:
        raise UserError(f'{where}: Datumaro finds no image there. {checking.holds(root)}.')
    instances, unlabelled, boxes = _instances(items, labels)
    names = [name for name in labels if name.lower() != _BACKGROUND]
    instances = [item for item in instances if labels[item.label] in names]
    if unlabelled or boxes:
        text = f'{where}: {unlabelled} annotations have no label, and {boxes} no mask; they are dropped.'
        remarks.append(Finding(kind='unusable_mask', severity=NOTE, text=text, count=unlabelled + boxes))
    if not names or len(set(names)) < len(names):
        raise UserError(f'{where}: its labels are {checking.first_of(labels)}, expected names, each once.')
    sizes = np.array(sizes, np.int32)
    source = Source(
        part=_PART,
        split=split,
        labels=root,
        folder=root,
        names=tuple(files),
        ids=tuple(range(1, len(files) + 1)),
        sizes=sizes,
        instances=_collect(where, instances, [names.index(labels[i.label]) for i in instances], sizes, files, remarks),
        class_names=tuple(names),
        original_ids=None,
        drop='remove it from the data set',
        remarks=remarks,
    )
    return source, [str(item.subset) for item in items]


def _imported(datumaro: Any, root: str, form: Any) -> Any:
    """The data set as Datumaro reads it."""
    from datumaro.components.environment import Environment

    environment = Environment()
    known = sorted(map(str, environment.importers))
    if form not in known:
        try:
            guess = environment.detect_dataset(root)
        except Exception:  # Of many types, for a folder that it does not understand.
            guess = []
        hint = f' Datumaro takes the folder for {" or ".join(map(repr, guess))}.' if guess else ''
        raise UserError(
            f"{_PART}.format = {shown(form)}: expected Datumaro's name of a format.{hint} It knows {', '.join(known)}."
        )
    try:
        return datumaro.Dataset.import_from(root, form)
    except Exception as error:  # Datumaro's and those of the libraries that it uses.
        cause = error.__cause__ or error
        reason = ' '.join(f'{type(cause).__name__}: {cause}'.split())[:300].rstrip('.')
        raise UserError(
            f'{_PART}, format {form!r}: Datumaro cannot read {root}: {reason}. Check the folder (its documentation '
            f'shows the layout that it expects) and {_PART}.format.'
        ) from error


def _instances(items: list[Any], labels: list[str]) -> tuple[list[_Instance], int, int]:
    """Instances in painting order, the topmost last; numbers of annotations without label and without mask."""
    found, unlabelled, flat = [], 0, 0
    for image, item in enumerate(items):
        grouped: dict[Any, _Instance] = {}
        order = sorted(item.annotations, key=lambda annotation: getattr(annotation, 'z_order', 0) or 0)
        masked = {(a.group, a.label) for a in order if a.group and _has_mask(a)}
        for number, annotation in enumerate(order):
            label, group = getattr(annotation, 'label', None), annotation.group
            if not _has_mask(annotation):
                flat += (group, label) not in masked  # Nothing is lost with the box of an instance that has a mask.
            elif label is None or not 0 <= label < len(labels):
                unlabelled += 1
            else:
                key = (group, label) if group else number
                grouped.setdefault(key, _Instance(image, label, [])).parts.append(annotation)
        found += grouped.values()
    return found, unlabelled, flat


def _has_mask(annotation: Any) -> bool:
    return annotation.type.name in ('polygon', 'mask')


def _collect(where, instances, classes, sizes, files, remarks) -> collected.Instances:
    image_of = np.array([instance.image for instance in instances], np.int64)

    def title(number):
        return f'an instance of {shown(files[image_of[number]])}'

    def chunks():
        for numbers in collected.in_pieces(len(instances)):
            yield numbers, [_shape(instances[n].parts, *sizes[image_of[n]].tolist()) for n in numbers]

    crowds = np.array([any(part.attributes.get('is_crowd') for part in i.parts) for i in instances], bool)
    return collected.collect(
        where, chunks(), image_of, np.array(classes, np.int32), crowds, sizes, title, remarks, expects_boxes=False
    )


def _shape(parts: list[Any], height: int, width: int) -> collected.Shape:
    """The union of polygons and masks."""
    polygons = [[float(side) for side in part.points] for part in parts if part.type.name == 'polygon']
    masks = [np.asarray(part.image) > 0 for part in parts if part.type.name == 'mask']
    if not masks:
        return collected.Shape(polygons)
    if any(mask.shape != (height, width) for mask in masks):
        return collected.Shape({'size': list(masks[0].shape)})
    encoded = [coco_mask.encode(np.asfortranarray(np.logical_or.reduce(masks), np.uint8))]
    outlines = [np.array(polygon) for polygon in polygons if len(polygon) >= 6]
    encoded += coco_mask.frPyObjects(outlines, height, width) if outlines else []
    return collected.Shape({'size': [height, width], 'counts': coco_mask.merge(encoded)['counts'].decode()})
