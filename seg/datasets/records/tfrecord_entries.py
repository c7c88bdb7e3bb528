"""Reads records in the keys of the Cloud TPU tools, research/deeplab, Model Garden and DeepLab2."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping, Sequence

from seg.datasets.image_files import ImageHeader
from seg.datasets.label_maps.values import Fault
from seg.datasets.records import entries
from seg.datasets.records.entries import Entry, RecordInstances, Unusable
from seg.errors import UserError, shown

IMAGE, LABEL, LABEL_FORMAT = 'image/encoded', 'image/segmentation/class/encoded', 'image/segmentation/class/format'
_NAME, _ID, _HEIGHT, _WIDTH = 'image/filename', 'image/source_id', 'image/height', 'image/width'
_CLASS, _TEXT, _CROWD, _AREA, _MASK = (
    f'image/object/{key}' for key in ('class/label', 'class/text', 'is_crowd', 'area', 'mask')
)
_SIDES = tuple(f'image/object/bbox/{side}' for side in ('ymin', 'xmin', 'ymax', 'xmax'))


def has_label_map(record: bytes) -> bool:
    """Whether the record is one for semantic segmentation; otherwise it is one for instances.

    Raises:
      UserError: completes "<file>: ": if it is neither; the message says what it is.
    """
    try:
        keys = sorted(entries.features_of(record))
    except Unusable:
        raise UserError('its records are not of type tf.train.Example.') from None
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
        features = entries.features_of(record)
        named, identity = (entries.text(features, key) for key in (_NAME, _ID))
        if named or identity:
            place = f'{place} (image {shown(named or identity)})'
        image = entries.image_header(features, IMAGE)
        stated = tuple((entries.values(features, key, 'int64_list') or [-1])[0] for key in (_HEIGHT, _WIDTH))
        size = stated if min(stated) > 0 and max(stated) < 1 << 31 else (image.height, image.width)
        label = _label(features) if labels else None
        instances = None if labels else _instances(features, size, threshold)
    except Unusable as error:
        return Fault(error.kind, f'{place}: {error}. {error.remedy or "Make the records again"}.')
    name = _inside(named) or _inside(identity)
    identity = int(identity) if entries.is_whole(identity) else identity
    return Entry(number, offset, name, identity, image, size, label, instances)


def _inside(name: str) -> str:
    """A name without its ending; of a path that is absolute or leads out of its folder, the last part alone."""
    name = posixpath.splitext(name.replace('\\', '/').strip())[0]
    parts = [part for part in name.split('/') if part not in ('', '.')]
    outside = name.startswith('/') or '..' in parts or ':' in name
    name = ''.join(parts[-1:]) if outside else '/'.join(parts)
    return '' if name == '..' else name.replace('\0', '')


def _label(features: Mapping) -> ImageHeader:
    if LABEL not in features:
        raise Unusable('missing_label', f'it has no {LABEL!r}, as records of a test split', 'Leave its file out')
    if entries.text(features, LABEL_FORMAT) == 'raw':
        raise Unusable(
            'wrong_format',
            'its label is raw, the panoptic form of DeepLab2 (class * divisor + instance), which is not read',
            'Make records for semantic segmentation, with PNG labels',
        )
    return entries.label_header(features, LABEL)


def _instances(features: Mapping, size: tuple[int, int], threshold: int) -> RecordInstances:
    labels = entries.values(features, _CLASS, 'int64_list')
    sides = [entries.values(features, key, 'float_list') for key in _SIDES]
    masks, names = (entries.values(features, key, 'bytes_list') for key in (_MASK, _TEXT))
    crowds, areas = entries.values(features, _CROWD, 'int64_list'), entries.values(features, _AREA, 'float_list')
    if labels and not masks:
        raise Unusable(
            'no_masks',
            f'it has {len(labels)} boxes and no {_MASK!r}',
            'Make the records again with masks (--include_masks of create_coco_tf_record.py)',
        )
    needed = dict(zip(_SIDES, sides, strict=True)) | {_MASK: masks}
    optional = {key: values for key, values in ((_CROWD, crowds), (_AREA, areas)) if values}
    entries.check_lengths(_CLASS, len(labels), {key: len(values) for key, values in (needed | optional).items()})
    return RecordInstances(
        labels=labels,
        names=[name.decode('utf-8', 'replace') for name in names] if len(names) == len(labels) else [],
        crowds=[bool(crowd) for crowd in crowds] or [False] * len(labels),
        areas=[area if math.isfinite(area) else 0.0 for area in areas],
        boxes=[_box(box, size) for box in zip(*sides, strict=True)],
        masks=[entries.mask(f'value {n} of {_MASK!r}', png, size, threshold) for n, png in enumerate(masks)],
    )


def _box(fractions: Sequence[float], size: tuple[int, int]) -> tuple[float, ...]:
    """A box in pixels; zeros for one that is not finite.

    A fraction in float32 is not exact. To a thousandth of a pixel, it gives back the numbers of COCO's files, which
    have two decimals.
    """
    if not all(map(math.isfinite, fractions)):
        return (0.0,) * 4
    return tuple(round(fraction * side, 3) for fraction, side in zip(fractions, (*size, *size), strict=True))
