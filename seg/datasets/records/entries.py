"""What the records of an image say, in the keys of the Cloud TPU tools, research/deeplab, Model Garden and DeepLab2."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from seg.datasets import image_files
from seg.datasets.image_files import PNG_COLOR_TYPES, ImageHeader
from seg.datasets.label_maps.values import Fault
from seg.errors import UserError, reason, shown

IMAGE, LABEL, LABEL_FORMAT = 'image/encoded', 'image/segmentation/class/encoded', 'image/segmentation/class/format'
_NAME, _ID, _HEIGHT, _WIDTH = 'image/filename', 'image/source_id', 'image/height', 'image/width'
_CLASS, _TEXT, _CROWD, _AREA, _MASK = (
    f'image/object/{key}' for key in ('class/label', 'class/text', 'is_crowd', 'area', 'mask')
)
_SIDES = tuple(f'image/object/bbox/{side}' for side in ('ymin', 'xmin', 'ymax', 'xmax'))
_REMEDY = 'Make the records again'


class Objects(NamedTuple):
    """The instances of a record.

    Attributes:
      labels: the id of each one's class.
      names: the class's name; empty without names.
      crowds: whether each is a crowd.
      areas: in pixels; empty for those of the masks.
      boxes: y0, x0, y1, x1 in pixels; zeros for one that is not finite.
      masks: COCO's compressed run lengths.
    """

    labels: list[int]
    names: list[str]
    crowds: list[bool]
    areas: list[float]
    boxes: list[tuple[float, float, float, float]]
    masks: list[str]


class Entry(NamedTuple):
    """A record: its place, and what the index keeps of it.

    Attributes:
      number: in its file, from 0.
      offset: byte at which it begins.
      name: the image's file name; empty if it has none.
      id: its id as text; empty if it has none.
      image: header of the image.
      size: (height, width) of the image as the record states it; of the image as stored, if it does not.
      label: header of the label map; None for instances.
      objects: the instances; None for label maps.
    """

    number: int
    offset: int
    name: str
    id: str
    image: ImageHeader
    size: tuple[int, int]
    label: ImageHeader | None
    objects: Objects | None


def has_label_map(record: bytes) -> bool:
    """Whether the record is one for semantic segmentation; otherwise it is one for instances.

    Raises:
      UserError: completes "<file>: ": if it is neither; says what it is.
    """
    try:
        keys = sorted(tf.train.Example.FromString(record).features.feature)
    except Exception:  # protobuf's DecodeError.
        raise UserError('its records are no tf.train.Example.') from None
    if LABEL in keys:
        return True
    if _CLASS in keys or _MASK in keys:
        return False
    there = f'its first record has the keys {", ".join(map(shown, keys[:12]))}{", …" if keys[12:] else ""}'
    if IMAGE in keys and any(key.startswith('image/panoptic') for key in keys):
        there += ', panoptic labels, which are not read'
    elif IMAGE in keys:
        there += ', an image without annotations. Is it a test split?'
    raise UserError(
        f'{there.rstrip(".?")}. Expected {IMAGE!r} and {LABEL!r}, as research/deeplab and Model Garden write for '
        f'semantic segmentation; or {_CLASS!r}, {_SIDES[0]!r}, … and {_MASK!r}, as the Cloud TPU tools do for '
        'instances.'
    )


def read(record: bytes, number: int, offset: int, place: str, labels: bool, threshold: int) -> Entry | Fault:
    """Reads a record.

    Args:
      record: its data.
      number: in its file.
      offset: byte at which it begins.
      place: file and number, for messages.
      labels: whether its label map is wanted; otherwise its instances.
      threshold: a pixel belongs to a mask if its value is greater.
    """
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception:  # protobuf's DecodeError.
        return Fault('damaged_record', f'{place}: not a tf.train.Example. {_REMEDY}.')
    name, id = (_text(features, key) for key in (_NAME, _ID))
    place = f'{place} (image {shown(name or id)})' if name or id else place
    try:
        image = _header(features, IMAGE)
    except ValueError as error:
        return Fault('unreadable_file', f'{place}: no readable image: {error}. {_REMEDY}.')
    stated = tuple((_numbers(features, key, 'int64_list') or [-1])[0] for key in (_HEIGHT, _WIDTH))
    size = stated if min(stated) > 0 and max(stated) < 1 << 31 else (image.height, image.width)
    try:
        label = _label(features) if labels else None
        objects = None if labels else _objects(features, size, threshold)
    except _Unusable as error:
        return Fault(error.kind, f'{place}: {error}')
    return Entry(number, offset, name, id, image, size, label, objects)


class _Unusable(ValueError):
    """A record whose annotations cannot be used: the kind of the fault, and a sentence."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


# ---- Values of features ----------------------------------------------------------------------------------------------


def _numbers(features: Mapping, key: str, kind: str) -> list[Any]:
    """The values of a feature; none if it is missing or of another kind."""
    return list(getattr(features[key], kind).value) if key in features else []


def _text(features: Mapping, key: str) -> str:
    return b''.join(_numbers(features, key, 'bytes_list')[:1]).decode('utf-8', 'replace')


def _header(features: Mapping, key: str) -> ImageHeader:
    """The header of an encoded image.

    Raises:
      ValueError: if there is none, or it is no JPEG or PNG.
    """
    if len(found := _numbers(features, key, 'bytes_list')) != 1:
        raise ValueError(f'{key!r} has {len(found)} values, expected one')
    try:
        header = image_files.parse_header(found[0])
    except EOFError:
        raise ValueError(f'{key!r} ends within the header of the image, after {len(found[0])} bytes') from None
    if not header.height or not header.width:
        raise ValueError(f'{key!r} is an image of {header.width}x{header.height} pixels')
    return header


# ---- Label maps ------------------------------------------------------------------------------------------------------


def _label(features: Mapping) -> ImageHeader:
    if LABEL not in features:
        raise _Unusable('missing_label', f'it has no {LABEL!r}, as records of a test split. Leave its file out.')
    if _text(features, LABEL_FORMAT) == 'raw':
        raise _Unusable(
            'wrong_format',
            'its label is raw, the panoptic form of DeepLab2 (class * divisor + instance), which is not read. Make '
            'records for semantic segmentation, with PNG labels.',
        )
    try:
        header = _header(features, LABEL)
    except ValueError as error:
        raise _Unusable('unreadable_file', f'no readable label map: {error}. {_REMEDY}.') from None
    if header.format != 'png' or header.color_type not in (0, 3):
        kind = 'a JPEG, which blurs ids' if header.format == 'jpeg' else PNG_COLOR_TYPES.get(header.color_type, '?')
        raise _Unusable(
            'wrong_format',
            f'its label map is {kind}. Expected a PNG of one channel, where each sample is an id: convert colours to '
            'ids, and make the records again.',
        )
    return header


# ---- Instances -------------------------------------------------------------------------------------------------------


def _objects(features: Mapping, size: tuple[int, int], threshold: int) -> Objects:
    labels = _numbers(features, _CLASS, 'int64_list')
    sides = [_numbers(features, key, 'float_list') for key in _SIDES]
    masks, names = _numbers(features, _MASK, 'bytes_list'), _numbers(features, _TEXT, 'bytes_list')
    crowds, areas = _numbers(features, _CROWD, 'int64_list'), _numbers(features, _AREA, 'float_list')
    if labels and not masks:
        raise _Unusable(
            'no_masks',
            f'it has {len(labels)} boxes and no {_MASK!r}. Make the records again with masks (--include_masks of '
            'create_coco_tf_record.py).',
        )
    needed = {_CLASS: labels, **dict(zip(_SIDES, sides, strict=True)), _MASK: masks}
    optional = {_CROWD: crowds, _AREA: areas}
    for key, values in (needed | {key: values for key, values in optional.items() if values}).items():
        if len(values) != len(labels):
            raise _Unusable(
                'wrong_lengths',
                f'{key!r} has {len(values)} values, and {_CLASS!r} has {len(labels)}. Expected one for each instance. '
                f'{_REMEDY}.',
            )
    return Objects(
        labels=labels,
        names=[name.decode('utf-8', 'replace') for name in names] if len(names) == len(labels) else [],
        crowds=[bool(crowd) for crowd in crowds] or [False] * len(labels),
        areas=[area if math.isfinite(area) else 0.0 for area in areas],
        boxes=[_box(box, size) for box in zip(*sides, strict=True)],
        masks=[_mask(number, png, size, threshold) for number, png in enumerate(masks)],
    )


def _box(fractions: Sequence[float], size: tuple[int, int]) -> tuple[float, ...]:
    """A box in pixels.

    A fraction in float32 is not exact. To a thousandth of a pixel, it gives back the numbers of COCO's files, which
    have two decimals.
    """
    if not all(map(math.isfinite, fractions)):
        return (0.0,) * 4
    return tuple(round(fraction * side, 3) for fraction, side in zip(fractions, (*size, *size), strict=True))


def _mask(number: int, png: bytes, size: tuple[int, int], threshold: int) -> str:
    where = f'value {number} of {_MASK!r}'
    try:
        with Image.open(io.BytesIO(png), formats=['PNG']) as image:
            if (image.height, image.width) != size:
                raise _Unusable(
                    'size_mismatch',
                    f'{where} is {image.width}x{image.height} pixels, the image {size[1]}x{size[0]} (width x height). '
                    f'{_REMEDY}.',
                )
            pixels = np.asarray(image)
    except _Unusable:
        raise
    except Exception as error:  # Pillow's are of many types.
        what = 'it is not a PNG' if isinstance(error, Image.UnidentifiedImageError) else reason(error)
        raise _Unusable('unreadable_file', f'{where} is no readable mask: {what}. {_REMEDY}.') from None
    if pixels.ndim != 2:
        raise _Unusable('wrong_format', f'{where} has {pixels.shape[2]} channels, expected one. {_REMEDY}.')
    inside = np.asfortranarray(pixels > threshold, np.uint8)
    return coco_mask.encode(inside)['counts'].decode()
