"""Reads the JSON files of LabelMe."""

from __future__ import annotations

import base64
import binascii
import io
import math
import posixpath
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from seg.datasets import checking, findings, image_files, other_tools
from seg.datasets import orientation as orientations
from seg.datasets.findings import NOTE, WARN, Finding
from seg.datasets.instances import collected, folders, segmentations
from seg.datasets.instances.data_set import Source
from seg.errors import UserError, reason, shown
from seg.files import parse_json, read_bytes

IGNORED, BACKGROUND = '__ignore__', '_background_'  # Labels with a meaning in LabelMe.
_CORNERS = 64  # Of the polygon of a circle.
_MOST_PIXELS = 2**26
_FLAT = ('point', 'points', 'line', 'linestrip')


class _Fault(ValueError):
    """A file that cannot be used; the message is the reason."""


class _Instance(NamedTuple):
    label: str
    shapes: list[Mapping]


class _File(NamedTuple):
    image: str  # Relative to the folder of the data set.
    height: int
    width: int
    instances: list[_Instance]
    flat: int  # Shapes that cover no pixel.


def read(root: str, split: str, orientation: str) -> Source:
    """Reads all JSON files below a folder.

    Args:
      root: the folder.
      split: the setting, for messages.
      orientation: the setting.

    Raises:
      UserError: if there are none, or some cannot be used.
    """
    part = 'datasets.labelme'
    where = f'{part}, {root}'
    names = checking.files_below(root, ['.json'])
    if not names:
        raise UserError(f'{part}.data_dir = {root!r}: there is no JSON file in it. {checking.holds(root)}.')
    images, upright = set(checking.files_below(root, folders.IMAGES)), orientations.check(part, orientation)
    found, faults = [], []
    first: dict[str, str] = {}
    for name in names:
        try:
            file = _read(root, name, images, upright)
        except (_Fault, UserError) as error:
            faults.append(('', f'{posixpath.join(root, name)}: {error}'))
            continue
        if file.image in first:
            faults.append(('', f'{name} and {first[file.image]} both annotate {file.image}. Remove one of them.'))
            continue
        first[file.image] = name
        found.append(file)
    unusable = findings.unusable('unusable_annotations', where, faults, len(names), 'JSON files')
    remarks = findings.left_out(unusable, len(names))
    labels = sorted({instance.label for file in found for instance in file.instances} - {BACKGROUND})
    if not labels:
        findings.settle(remarks)
        raise UserError(
            f'{where}: none of {len(names)} JSON files has a shape with a label. Are these the right files?'
        )
    unused = sorted(images - first.keys())
    if unused and not faults:
        text = f'{where}: {len(unused)} images have no JSON file and are not used: {checking.first_of(unused)}.'
        remarks.append(Finding(kind='images_without_labels', severity=NOTE, text=text, count=len(unused)))
    flat = sum(file.flat for file in found)
    if flat:
        text = f'{where}: {flat} shapes are points or lines, which cover no pixel, and are dropped.'
        remarks.append(Finding(kind='unusable_mask', severity=WARN, text=text, count=flat))
    return Source(
        part=part,
        split=split,
        labels=root,
        folder=root,
        names=tuple(file.image for file in found),
        ids=tuple(range(1, len(found) + 1)),
        sizes=np.array([(file.height, file.width) for file in found], np.int32),
        instances=_collect(where, found, labels, remarks),
        class_names=tuple(labels),
        original_ids=None,
        drop='remove its JSON file',
        remarks=remarks,
    )


def _read(root: str, name: str, images: set[str], upright: bool) -> _File:
    try:
        data = parse_json(read_bytes(posixpath.join(root, name)))
    except ValueError as error:
        raise _Fault(f'it is not a complete JSON file: {error}. Save it again in LabelMe.') from None
    if not isinstance(data, Mapping) or not isinstance(data.get('shapes'), list):
        note = other_tools.note(data) or ' Move files of other kinds out of the folder.'
        raise _Fault(f"expected LabelMe's annotations, an object with the list shapes; it is {shown(data)}.{note}")
    image = _image(root, name, data, images)
    height, width = (_side(data.get(key)) for key in ('imageHeight', 'imageWidth'))
    if not (height and width):
        try:
            header = image_files.read_header(posixpath.join(root, image))
        except (ValueError, tf.errors.OpError) as error:
            why = reason(error) if isinstance(error, tf.errors.OpError) else error
            raise _Fault(f'imageHeight and imageWidth are missing, and {image} is not readable: {why}.') from None
        height, width = header.height, header.width
        if upright:
            height, width = orientations.upright((height, width), header.orientation)
    if height * width >= _MOST_PIXELS:
        raise _Fault(f'imageHeight is {height} and imageWidth {width}, expected at most {_MOST_PIXELS} pixels.')
    grouped: dict[Any, _Instance] = {}
    flat = 0
    for number, shape in enumerate(data['shapes']):
        if not isinstance(shape, Mapping):
            raise _Fault(f'shapes[{number}] is {shown(shape)}, expected an object.')
        label, group = shape.get('label'), shape.get('group_id')
        if not checking.is_text(label):
            raise _Fault(f'shapes[{number}].label is {shown(label)}, expected a name.')
        if not (group is None or isinstance(group, (int, str))):
            raise _Fault(f'shapes[{number}].group_id is {shown(group)}, expected a number or null.')
        if shape.get('shape_type') in _FLAT:
            flat += 1
            continue
        key = number if group is None else (label, group)
        grouped.setdefault(key, _Instance(label, [])).shapes.append(shape)
    return _File(image, height, width, list(grouped.values()), flat)


def _side(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else 0


def _image(root: str, name: str, data: Mapping, images: set[str]) -> str:
    """The image of a JSON file, relative to the folder of the data set and within it."""
    folder, given = posixpath.dirname(name), data.get('imagePath')
    stem = posixpath.splitext(name)[0]
    beside = [stem + ending for lower in folders.IMAGES for ending in (lower, lower.upper())]
    candidates = beside
    if checking.is_text(given) and '\0' not in given:
        given = given.replace('\\', '/')
        # Moved files keep the path of the place where they were labelled.
        candidates = [posixpath.join(folder, given), posixpath.join(folder, posixpath.basename(given)), *beside]
    for candidate in map(posixpath.normpath, candidates):
        if candidate in images:
            return candidate
    remedy = 'Add it as JPEG or PNG, or remove the JSON file'
    if data.get('imageData'):
        remedy = f'Image data within the JSON file (imageData) are not read: save them as {beside[0]}'
    raise _Fault(f'its image {shown(data.get("imagePath"))} is not in {posixpath.join(root, folder)}. {remedy}.')


# ---- Shapes ----------------------------------------------------------------------------------------------------------


def _collect(where: str, files: list[_File], labels: list[str], remarks: list[Finding]) -> collected.Instances:
    class_of = {label: number for number, label in enumerate(labels)}
    image_of, instances = [], []
    for place, file in enumerate(files):
        for instance in file.instances:
            if instance.label in class_of:
                image_of.append(place)
                instances.append(instance)
    image_of = np.array(image_of, np.int64)
    classes = np.array([class_of[instance.label] for instance in instances], np.int32)
    sizes = np.array([(file.height, file.width) for file in files], np.int32).reshape(-1, 2)

    def title(number):
        return f'{shown(instances[number].label)} in {shown(files[image_of[number]].image)}'

    def chunks():
        for numbers in collected.in_pieces(len(image_of)):
            shapes = []
            for number in numbers:
                found, fault = _segmentation(instances[number].shapes, *sizes[image_of[number]].tolist())
                shapes.append(collected.Shape(found))
                if fault:
                    partial.add(fault, number)
            yield numbers, shapes

    partial = collected.Tally(image_of, title)
    crowds = np.zeros(len(instances), bool)
    found = collected.collect(where, chunks(), image_of, classes, crowds, sizes, title, remarks, expects_boxes=False)
    remarks += partial.findings('odd_mask', f'{where}: %d of {len(instances)} instances lose a part of their mask')
    return found


def _segmentation(shapes: list[Mapping], height: int, width: int) -> tuple[Any, str]:
    """The union of shapes in a form of COCO, and why a part is omitted, if the form does not show it; otherwise ''."""
    parts = [_part(shape, height, width) for shape in shapes]
    if all(isinstance(part, list) for part in parts):
        return parts, ''
    masks, faults = [], []
    for part in parts:
        try:
            if isinstance(part, list):
                part = {'size': [height, width], 'counts': segmentations.compressed([part], height, width)[0]}
            masks.append(part)
        except segmentations.Unusable as error:
            faults.append(str(error))
    return {'size': [height, width], 'counts': coco_mask.merge(masks)['counts'].decode()}, ''.join(faults[:1])


def _part(shape: Mapping, height: int, width: int) -> list[float] | dict[str, Any]:
    """A polygon x0, y0, x1, y1, …, empty if it is damaged, or a mask in COCO's compressed form."""
    kind, points = shape.get('shape_type'), _points(shape.get('points'))
    if points is None:
        return []
    if kind == 'rectangle' and len(points) == 2:
        (left, top), (right, bottom) = points
        points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    elif kind == 'circle' and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        turns = [2 * math.pi * n / _CORNERS for n in range(_CORNERS)]
        points = [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
    elif kind == 'mask' and points:
        return _mask(shape.get('mask'), points[0], height, width)
    return [side for point in points for side in point]


def _points(value: Any) -> list[tuple[float, float]] | None:
    """Points of numbers; None if they are anything else."""
    if not isinstance(value, list):
        return None
    for point in value:
        if not isinstance(point, list) or len(point) != 2 or not all(isinstance(s, (int, float)) for s in point):
            return None
        if not all(abs(side) < 2**31 for side in point):
            return None
    return [(float(x), float(y)) for x, y in value]


def _mask(text: Any, corner: tuple[float, float], height: int, width: int) -> dict[str, Any] | list:
    """A mask that LabelMe stores as a PNG of the pixels in its box."""
    left, top = (int(round(side)) for side in corner)
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=['PNG']) as image:
            if image.width > width or image.height > height:
                return []
            pixels = np.asarray(image.convert('L')) > 0
    except (TypeError, ValueError, OSError, SyntaxError, binascii.Error, Image.DecompressionBombError):
        return []
    whole = np.zeros([height, width], np.uint8, order='F')
    rows = slice(*np.clip([top, top + pixels.shape[0]], 0, height))
    columns = slice(*np.clip([left, left + pixels.shape[1]], 0, width))
    whole[rows, columns] = pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return coco_mask.encode(whole)
