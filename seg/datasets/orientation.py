"""The setting `orientation`: whether images are turned as the EXIF block of their file says, in TensorFlow graphs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from seg.errors import UserError, shown

IGNORE, APPLY = 'ignore', 'apply'
_HEAD = 1 << 17  # Bytes at the beginning of a file in which the block is looked for; a block has at most 64 KiB.
_MOST_ENTRIES = 256
_NO_SEGMENTS = [*(0xC0 + i for i in range(16) if i not in (4, 8, 12)), 0xD9, 0xDA]  # Frame, end, scan.


def check(part: str, value: Any) -> bool:
    """Whether the setting of the data set `part`, such as 'datasets.coco', is 'apply'. None means 'ignore'.

    Raises:
      UserError: if it is neither 'apply' nor 'ignore'.
    """
    if value not in (None, IGNORE, APPLY):
        raise UserError(
            f'{part}.orientation = {shown(value)}: expected {IGNORE!r} (images as stored) or {APPLY!r} (images turned '
            'upright as their EXIF orientation says; labels must fit the turned images).'
        )
    return value == APPLY


def upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) of an image after it is turned."""
    return size[::-1] if orientation >= 5 else size


def turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image [H, W, C] upright.

    Args:
      image: as stored.
      orientation: scalar int32, the EXIF orientation, 1 (upright) to 8.
    """

    def swapped():
        return tf.transpose(image, [1, 0, 2])

    image = tf.cond(orientation >= 5, swapped, lambda: image)
    image = tf.cond(_is_one_of(orientation, (2, 3, 6, 7)), lambda: image[:, ::-1], lambda: image)
    return tf.cond(_is_one_of(orientation, (3, 4, 7, 8)), lambda: image[::-1], lambda: image)


def of_jpeg(contents: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG file, 1 to 8; 1 if it has none, or the block is damaged.

    Args:
      contents: scalar string, the bytes of the file.

    Returns:
      Scalar int32.
    """
    # With zeros after the end, every read is within the array.
    head = tf.strings.join([tf.strings.substr(contents, 0, _HEAD), bytes(16)])
    head = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32)
    last = tf.size(head) - 16

    def at(position):
        return tf.gather(head, tf.clip_by_value(position, 0, last + 15))

    def is_exif(position):
        name = at(position + 4 + tf.range(6))
        return (at(position + 1) == 0xE1) & tf.reduce_all(name == list(b'Exif\0\0'))

    def passes(position):
        segment = (at(position) == 0xFF) & ~_is_one_of(at(position + 1), _NO_SEGMENTS)
        return segment & ~is_exif(position) & (position < last)

    def after(position):
        length = 256 * at(position + 2) + at(position + 3)
        return [tf.where(at(position + 1) == 0xFF, position + 1, position + 2 + length)]  # Past a fill byte, or all.

    position = tf.while_loop(passes, after, [tf.constant(2)])[0]
    tiff, end = position + 10, tf.minimum(position + 2 + 256 * at(position + 2) + at(position + 3), last)
    little, big = ((at(tiff) == code) & (at(tiff + 1) == code) for code in b'IM')

    def two(place):
        low, high = at(place), at(place + 1)
        return tf.where(little, low + 256 * high, 256 * low + high)

    upper, lower = tf.where(little, 6, 4), tf.where(little, 4, 6)
    directory = tiff + tf.where(two(tiff + upper) == 0, two(tiff + lower), _HEAD)
    entries = directory + 2 + 12 * tf.range(_MOST_ENTRIES)
    entries = entries[: two(directory)]
    value = two(entries + 8)
    fits = (two(entries) == 0x0112) & (value >= 1) & (value <= 8) & (entries + 10 <= end)
    # The first one that fits.
    found = tf.boolean_mask(value, fits & is_exif(position) & (little | big))
    return tf.concat([found, [1]], 0)[0]


def _is_one_of(value: tf.Tensor, numbers: tuple[int, ...] | list[int]) -> tf.Tensor:
    return tf.reduce_any(value == list(numbers))
