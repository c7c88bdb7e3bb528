"""Facts about each image of a data set, from which all checks follow: nothing else decodes images."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from seg.datasets import checking, contract
from seg.datasets.base import Dataset
from seg.errors import UserError, reason, shown
from seg.executor.progress import Progress
from seg.inspection import thumbnails

_VALUES = 2**16  # Label values from 0 up to this are counted one by one.
_ORIENTATION = 0x0112  # The tag of EXIF.
_SOUND_BOX = 1.0  # Pixels: shortest side of a box, and how far a box may reach out of its image (rounding).


class File(NamedTuple):
    """The header of an image file.

    Attributes:
      format: Pillow's name, such as 'JPEG'; empty for a file that Pillow does not know.
      mode: Pillow's mode, such as 'RGB' or 'CMYK'.
      bits: bits per sample.
      orientation: of EXIF, 1 (upright) to 8.
    """

    format: str
    mode: str = ''
    bits: int = 8
    orientation: int = 1


class Instances(NamedTuple):
    """The instances of an image, [N] each.

    Attributes:
      classes: int32.
      is_crowd: bool.
      sides: float32, the square root of the box's area, in pixels.
      area: float32, in pixels.
      repeated: bool, whether class, box and area are those of an earlier instance.
      thin: bool, whether a side of the box is shorter than a pixel.
      outside: bool, whether the box reaches out of the image by more than a pixel, or is not finite.
    """

    classes: np.ndarray
    is_crowd: np.ndarray
    sides: np.ndarray
    area: np.ndarray
    repeated: np.ndarray
    thin: np.ndarray
    outside: np.ndarray


class Facts(NamedTuple):
    """Facts about one image and its annotations.

    Attributes:
      failure: why the example cannot be loaded; empty if it can. Then all below but `file` are defaults.
      file: header of the image's file; None if the data set gives no file.
      height: in pixels, as loaded.
      width: likewise.
      greatest: largest value of the image, 0 to 255.
      thumbnail: uint8 [16, 16], see `thumbnails`.
      label_size: (height, width) of the label map.
      values: pixels by value of the label map; negative values together as -1, values of 2^16 or more as 2^16.
      ignored: pixels of the label map with the ignore label.
      instances: the instances; None for another target.
    """

    failure: str = ''
    file: File | None = None
    height: int = 0
    width: int = 0
    greatest: int = 0
    thumbnail: np.ndarray | None = None
    label_size: tuple[int, int] | None = None
    values: Mapping[int, int] = {}
    ignored: int = 0
    instances: Instances | None = None


def read_all(dataset: Dataset, title: str) -> list[Facts]:
    """Facts about all images, read on all cores; memory holds a few images at a time.

    Args:
      dataset: a data set with a known number of examples.
      title: title of the progress line.

    Raises:
      UserError: if a plugin's `load` fails for another reason than an unreadable file.
    """
    count = dataset.info.num_examples
    reader, progress = _Reader(dataset), Progress(title, count, 'images', quiet=10.0)
    pool, found = ThreadPoolExecutor(os.cpu_count()), []
    try:
        for facts in pool.map(reader, range(count)):
            found.append(facts)
            progress.update(len(found))
    finally:
        pool.shutdown(cancel_futures=True)  # An interrupt does not wait for all images.
        progress.close()
    return found


class _Reader:
    """Function from a position to the facts about the image there."""

    def __init__(self, dataset: Dataset):
        self._dataset = dataset

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
        def load(index):
            return _reduced(dataset.load(index), dataset.info.ignore_label)

        self._load: Callable[[Any], dict[str, Any]] = load

    def __call__(self, index: int) -> Facts:
        path = self._dataset.image_path(index)
        file = None if path is None else read_file(path)
        try:
            with tf.device('CPU:0'):
                example = self._load(tf.constant(index, tf.int64))
        except UserError:
            raise
        except Exception as error:
            if not checking.unreadable(error):
                name = self._dataset.image_name(index)
                what = f'{self._dataset.info.name}, image {shown(name)}: load'
                raise contract.load_failed(self._dataset, what, error) from error
            return Facts(failure=reason(error), file=file)
        image = example['image'].numpy()
        facts = Facts('', file, *image.shape[:2], int(image.max()), thumbnails.of(image))
        if 'values' in example:
            values = example['values'].numpy()
            present = np.flatnonzero(values)
            facts = facts._replace(
                label_size=tuple(example['label_size'].numpy().tolist()),
                values={int(value) - 1: int(values[value]) for value in present},
                ignored=int(example['ignored']),
            )
        if 'boxes' in example:
            parts = [example[key].numpy() for key in ('boxes', 'classes', 'is_crowd', 'area')]
            facts = facts._replace(instances=_instances(*parts, image.shape[:2]))
        return facts


def _reduced(example: Mapping[str, Any], ignore_label: int) -> dict[str, Any]:
    """The parts of an example that the facts need; a label map as counts of its values, shifted by one."""
    found = {'image': example['image']}
    if 'label' in example:
        label = tf.cast(example['label'], tf.int32)
        shifted = tf.clip_by_value(label, -1, _VALUES) + 1
        found['values'] = tf.math.bincount(tf.reshape(shifted, [-1]), minlength=_VALUES + 2, dtype=tf.int64)
        found['ignored'] = tf.math.count_nonzero(label == ignore_label)
        found['label_size'] = tf.shape(label)
    if {'boxes', 'classes', 'is_crowd', 'area'} <= example.keys():
        found |= {key: example[key] for key in ('boxes', 'classes', 'is_crowd', 'area')}
    return found


def _instances(boxes, classes, is_crowd, area, size: tuple[int, int]) -> Instances:
    boxes = boxes.reshape(-1, 4)
    limits = np.asarray([*size, *size], np.float32)
    inside = np.isfinite(boxes) & (boxes >= -_SOUND_BOX) & (boxes <= limits + _SOUND_BOX)
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    rows = np.column_stack([classes, boxes, area]).astype(np.float64)
    repeated = np.ones(len(rows), bool)
    repeated[np.unique(rows, axis=0, return_index=True)[1]] = False
    return Instances(
        classes=classes,
        is_crowd=is_crowd,
        sides=np.sqrt(np.maximum(height, 0) * np.maximum(width, 0)),
        area=area,
        # Copies of a crowd, one for each class, cover what counts nowhere.
        repeated=repeated & ~is_crowd,
        thin=~(np.minimum(height, width) >= _SOUND_BOX),
        outside=~inside.all(axis=1),
    )


def read_file(path: str) -> File:
    """Reads the header of an image file."""
    try:
        with Image.open(path) as image:
            bits = 16 if image.mode.startswith('I') else 8
            if image.format == 'PNG':
                with open(path, 'rb') as file:
                    (bits,) = struct.unpack('24xB', file.read(25))
            return File(image.format or '', image.mode, bits, int(image.getexif().get(_ORIENTATION, 1) or 1))
    except Exception:  # Pillow raises exceptions of many types for damaged files; `load` gives the reason.
        return File('')
