"""The entries of the index, one per record, and the values of the records' features."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from seg.datasets import image_files
from seg.datasets.image_files import PNG_COLOR_TYPES, ImageHeader
from seg.errors import reason


class RecordInstances(NamedTuple):
    """The instances of a record.

    Attributes:
      labels: the class id of each.
      names: the class name of each; empty without names.
      crowds: whether each is a crowd.
      areas: in pixels; empty for those of the masks.
      boxes: y0, x0, y1, x1 in pixels; empty for those of the masks.
      masks: COCO's compressed run lengths.
    """

    labels: list[int]
    names: list[str]
    crowds: list[bool]
    areas: list[float]
    boxes: list[tuple[float, float, float, float]]
    masks: list[str]


class Entry(NamedTuple):
    """The entry of a record in the index.

    Attributes:
      number: in its file, from 0.
      offset: byte at which it begins; 0 in files that find a record by its number.
      name: name of the image; empty if it has none.
      id: its id; empty if it has none.
      image: header of the image.
      size: (height, width) of the image as the record states it; or of the image as stored, if the record has none.
      label: header of the label map; None for instances.
      instances: the instances; None for label maps.
    """

    number: int
    offset: int
    name: str
    id: int | str
    image: ImageHeader
    size: tuple[int, int]
    label: ImageHeader | None
    instances: RecordInstances | None


class Unusable(ValueError):
    """A record that cannot be used.

    Args:
      kind: of the fault, as in `Finding`.
      text: a sentence without its period.
      remedy: likewise; empty for that of all records.
    """

    def __init__(self, kind: str, text: str, remedy: str = ''):
        super().__init__(text)
        self.kind, self.remedy = kind, remedy


def features_of(record: bytes) -> Mapping[str, Any]:
    """The features of a record, a serialised `tf.train.Example`.

    Raises:
      Unusable: if it is none.
    """
    try:
        return tf.train.Example.FromString(record).features.feature
    except Exception:  # protobuf's DecodeError.
        raise Unusable('damaged_record', 'not a tf.train.Example') from None


def values(features: Mapping, key: str, kind: str) -> list[Any]:
    """The values of a feature; none if it is missing or of another kind, such as 'int64_list'."""
    return list(getattr(features[key], kind).value) if key in features else []


def text(features: Mapping, key: str) -> str:
    return b''.join(values(features, key, 'bytes_list')[:1]).decode('utf-8', 'replace')


def image_header(features: Mapping, key: str, what: str = 'image') -> ImageHeader:
    """The header of an encoded image.

    Raises:
      Unusable: if there is none, or it is neither JPEG nor PNG.
    """
    found = values(features, key, 'bytes_list')
    try:
        if len(found) != 1:
            raise ValueError(f'{key!r} has {len(found)} values, expected one')
        header = image_files.parse_header(found[0])
        if not header.height or not header.width:
            raise ValueError(f'{key!r} is an image of {header.width}x{header.height} pixels')
    except EOFError:
        fault = f'{key!r} ends within the header of the image, after {len(found[0])} bytes'
    except ValueError as error:
        fault = str(error)
    else:
        return header
    raise Unusable('unreadable_file', f'no readable {what}: {fault}')


def label_header(features: Mapping, key: str) -> ImageHeader:
    """The header of a label map.

    Raises:
      Unusable: if there is none, or it is not a PNG of one channel.
    """
    header = image_header(features, key, 'label map')
    if header.format != 'png' or header.color_type not in (0, 3):
        kind = 'a JPEG, which blurs ids' if header.format == 'jpeg' else PNG_COLOR_TYPES.get(header.color_type, '?')
        raise Unusable(
            'wrong_format',
            f'its label map is {kind}. Expected a PNG of one channel, where each sample is an id',
            'Convert colours to ids, and make the records again',
        )
    return header


def check_lengths(key: str, count: int, lengths: Mapping[str, int]) -> None:
    """Refuses features that do not have one value for each instance.

    Args:
      key: of the classes.
      count: number of classes.
      lengths: for the keys of the others, how many instances they have values for.

    Raises:
      Unusable: names the first one that differs.
    """
    for other, length in lengths.items():
        if length != count:
            fault = f'{other!r} has {length} values, and {key!r} has {count}. Expected one for each instance'
            raise Unusable('wrong_lengths', fault)


def mask(place: str, png: bytes, size: tuple[int, int], threshold: int = 0) -> str:
    """The run lengths of a mask, in COCO's compressed form.

    Args:
      place: where it is in the record, for messages.
      png: the mask, an image of one channel.
      size: (height, width) of the image.
      threshold: a pixel belongs to the mask if its value is greater.

    Raises:
      Unusable: if it cannot be read, or has another size.
    """
    try:
        with Image.open(io.BytesIO(png), formats=['PNG']) as image:
            if (image.height, image.width) != tuple(size):
                raise Unusable(
                    'size_mismatch',
                    f'{place} is {image.width}x{image.height} pixels, the image {size[1]}x{size[0]} (width x height)',
                )
            pixels = np.asarray(image)
    except Unusable:
        raise
    except Exception as error:  # Pillow's are of many types.
        what = 'it is not a PNG' if isinstance(error, Image.UnidentifiedImageError) else reason(error)
        raise Unusable('unreadable_file', f'{place} is not a readable mask: {what}') from None
    if pixels.ndim != 2:
        raise Unusable('wrong_format', f'{place} has {pixels.shape[2]} channels, expected one')
    return coco_mask.encode(np.asfortranarray(pixels > threshold, np.uint8))['counts'].decode()


def is_whole(identity: str) -> bool:
    """Whether the text of an id is a whole number."""
    return identity.isascii() and identity.isdigit() and len(identity) < 19
