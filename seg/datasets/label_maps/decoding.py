"""Headers and stored values of image and label files of any format.

JPEG and PNG are decoded by TensorFlow's operations, without Python in the graph. Files of other formats are read by
Pillow or numpy in `tf.numpy_function`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from seg.datasets import image_files, pillow_files
from seg.datasets.image_files import ImageHeader
from seg.datasets.label_maps.legend import COLORED
from seg.errors import UserError, reason
from seg.files import irregular

IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png', '.webp', '.tif', '.tiff', '.bmp', '.gif')
LABEL_ENDINGS = ('.png', '.tif', '.tiff', '.bmp', '.npy', '.jpg', '.jpeg')  # JPEG is refused.
NATIVE = ('jpeg', 'png')
# Kinds of label files: PNG of one channel; PNG of grey and alpha; PNG of colours; what Python reads.
SAMPLES, GREY_ALPHA, COLORS, ARRAY = range(4)
_BITS_PER_SAMPLE = 258  # Tag of TIFF.
_KINDS = {0: SAMPLES, 3: SAMPLES, 4: GREY_ALPHA, 2: COLORS, 6: COLORS}  # By PNG's colour type.


class Header(NamedTuple):
    """Facts from the headers of one example.

    Attributes:
      height: of the image as stored, in pixels.
      width: likewise.
      orientation: EXIF orientation of the image, 1 to 8.
      native: whether TensorFlow decodes the image.
      kinds: kind of each label file.
    """

    height: int
    width: int
    orientation: int
    native: bool
    kinds: list[int]


# ---- Images ----------------------------------------------------------------------------------------------------------


def read_header(path: str) -> ImageHeader:
    """Reads the header of an image or of an array of any format that these data sets read.

    Raises:
      ValueError: if it has another format, or is damaged.
      tf.errors.OpError: if it cannot be read.
    """
    if kind := irregular(path):
        raise ValueError(f'it is {kind}, not a file')
    if path.lower().endswith('.npy'):
        height, width = _array_shape(path)
        return ImageHeader('npy', height, width)
    try:
        return image_files.read_header(path)
    except ValueError as error:
        if not _is_other_image(path):
            raise
        first = error
    try:
        with pillow_files.opened(path) as image:
            turn = image.getexif().get(0x0112, 1)
            return ImageHeader(
                image.format.lower(), image.height, image.width, None, turn if turn in range(1, 9) else 1
            )
    except Exception as error:
        raise ValueError(f'{first}; {_text(error)}') from None


def decode_image(path: tf.Tensor, native: tf.Tensor | bool, upright: bool) -> tf.Tensor:
    """Reads an image, uint8 [H, W, 3].

    Args:
      path: scalar string.
      native: whether it is a JPEG or PNG file; a Python bool if this holds for all files.
      upright: whether the EXIF orientation is applied.
    """

    def by_tensorflow():
        return image_files.decode_image(tf.io.read_file(path), upright)

    def by_pillow():
        return tf.ensure_shape(tf.numpy_function(functools.partial(_image, upright), [path], tf.uint8), [None, None, 3])

    if isinstance(native, bool):
        return by_tensorflow() if native else by_pillow()
    return tf.cond(native, by_tensorflow, by_pillow)


def _image(upright: bool, path: bytes | np.ndarray) -> np.ndarray:
    name = _name(path)
    with _damage(name), pillow_files.opened(name) as image:
        image.load()
        return pillow_files.rgb(ImageOps.exif_transpose(image) if upright else image)


# ---- Labels ----------------------------------------------------------------------------------------------------------


def label_kind(header: ImageHeader) -> int:
    """The kind of a label file."""
    return _KINDS.get(header.color_type, SAMPLES) if header.format == 'png' else ARRAY


def decode_label(path: tf.Tensor, kind: tf.Tensor | int, kinds: Collection[int], by_color: bool) -> tf.Tensor:
    """Reads the stored values of a label file, int32 [H, W].

    Args:
      path: scalar string.
      kind: the file's kind.
      kinds: all kinds that occur.
      by_color: whether colours are wanted (65536 red + 256 green + blue) instead of samples and palette indices. As
        samples, colours of three equal channels are that number, and others are above `COLORED`.
    """
    readers: dict[int, Callable[[], tf.Tensor]] = {
        SAMPLES: lambda: _colors(path) if by_color else image_files.decode_label(tf.io.read_file(path)),
        GREY_ALPHA: lambda: _colors(path) if by_color else _grey(path),
        COLORS: lambda: _colors(path) if by_color else _grey_of_colors(path),
        ARRAY: lambda: tf.ensure_shape(
            tf.numpy_function(functools.partial(_array, by_color), [path], tf.int32), [None, None]
        ),
    }
    present = sorted(kinds)
    if len(present) == 1:
        return readers[present[0]]()
    place = tf.reduce_sum(tf.cast(tf.constant(present) < kind, tf.int32))
    return tf.switch_case(place, [readers[each] for each in present])


def _pixels(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Colours of a PNG, int32 [H, W, 3] of 16 bits, and whether the file has 16 bits."""
    contents = tf.io.read_file(path)
    pixels = tf.cast(tf.io.decode_png(contents, channels=3, dtype=tf.uint16), tf.int32)
    return pixels, image_files.label_bits(contents) == 16


def _colors(path: tf.Tensor) -> tf.Tensor:
    """Codes of colours. Colours of 16 bits that 8 bits do not express are above `COLORED`."""
    pixels, deep = _pixels(path)
    high = pixels // 256
    exact = tf.reduce_all(pixels == 257 * high, -1) | ~deep
    return tf.where(exact, _code(high), _code(high) + COLORED)


def _grey_of_colors(path: tf.Tensor) -> tf.Tensor:
    """The number of three equal channels; codes of other colours above `COLORED`."""
    pixels, deep = _pixels(path)
    equal = tf.reduce_all(pixels == pixels[..., :1], -1)
    number = tf.where(deep, pixels, pixels // 256)[..., 0]
    return tf.where(equal, number, _code(pixels // 256) + COLORED)


def _code(pixels: Any) -> Any:
    """65536 red + 256 green + blue, of a tensor or an array [H, W, 3] of 8 bits."""
    return 65536 * pixels[..., 0] + 256 * pixels[..., 1] + pixels[..., 2]


def _grey(path: tf.Tensor) -> tf.Tensor:
    """Grey samples of a PNG with alpha, of 8 or 16 bits."""
    contents = tf.io.read_file(path)
    samples = tf.io.decode_png(contents, channels=4, dtype=tf.uint16)[..., 0]
    bits = tf.cast(image_files.label_bits(contents), tf.uint16)
    return tf.cast(tf.bitwise.right_shift(samples, tf.constant(16, tf.uint16) - bits), tf.int32)


def _array(by_color: bool, path: bytes | np.ndarray) -> np.ndarray:
    name = _name(path)
    with _damage(name):
        if name.lower().endswith('.npy'):
            _array_shape(name)
            return _whole(np.load(name, allow_pickle=False))
        with pillow_files.opened(name) as image:
            if getattr(image, 'n_frames', 1) > 1:
                raise pillow_files.Refused(f'it holds {image.n_frames} images, expected one')
            image.load()
            if image.mode in ('RGB', 'RGBA', 'CMYK', 'YCbCr', 'LAB') or by_color:
                if max(getattr(image, 'tag_v2', {}).get(_BITS_PER_SAMPLE, (8,))) > 8:
                    raise pillow_files.Refused('it has colours of 16 bits, which can be read from PNG files only')
                pixels = np.asarray(image.convert('RGB')).astype(np.int32)
                codes = _code(pixels)
                if by_color:
                    return codes
                return np.where((pixels == pixels[..., :1]).all(-1), pixels[..., 0], codes + COLORED).astype(np.int32)
            return _whole(np.asarray(image)[..., 0] if image.mode in ('LA', 'PA') else np.asarray(image))


def _whole(values: np.ndarray) -> np.ndarray:
    """Label values as int32 [H, W]; negative ones are kept."""
    sides = [side for side in values.shape if side != 1] if values.ndim == 3 else values.shape
    values = values.reshape(sides if len(sides) == 2 else values.shape)
    if values.ndim != 2 or values.dtype.kind not in 'buif':
        raise pillow_files.Refused(
            f'it holds {values.dtype} of shape {values.shape}, expected one number for each pixel'
        )
    with np.errstate(invalid='ignore'):
        stored = values.astype(np.int32)
    if not np.array_equal(stored, values):
        raise pillow_files.Refused('some of its values are not whole numbers of 32 bits')
    return stored


def _array_shape(path: str) -> tuple[int, int]:
    """(height, width) of a file of numpy, from its header."""
    try:
        shape = np.load(path, mmap_mode='r', allow_pickle=False).shape
    except Exception as error:
        raise ValueError(_text(error)) from None
    sides = [side for side in shape if side != 1] if len(shape) == 3 else list(shape)
    if len(sides) != 2 or 0 in sides:
        raise ValueError(f'it holds an array of shape {shape}, expected [height, width]')
    return sides[0], sides[1]


# ---- Both ------------------------------------------------------------------------------------------------------------


def _name(path: bytes | np.ndarray) -> str:
    """The path that a `tf.numpy_function` received: an array, if it is called outside of a graph."""
    return os.fsdecode(path if isinstance(path, bytes) else path.item())


@contextlib.contextmanager
def _damage(path: str) -> Iterator[None]:
    """Turns any exception of Pillow or numpy into an OSError: the file cannot be read."""
    try:
        yield
    except Exception as error:
        raise OSError(f'{path}: {_text(error)}') from None


def _text(error: Exception) -> str:
    if isinstance(error, pillow_files.Refused | UserError):
        return str(error)
    if isinstance(error, Image.UnidentifiedImageError):
        return 'it is not an image of a known format'
    return reason(error)


def _is_other_image(path: str) -> bool:
    """Whether a file begins like an image that Pillow reads. Thus damaged JPEG and PNG files are reported as such."""
    with tf.io.gfile.GFile(path, 'rb') as file:
        head = file.read(16)
    return head[:4] in (b'II*\0', b'MM\0*', b'GIF8', b'RIFF') or head[:2] == b'BM'


def natives(headers: Sequence[Header]) -> bool | list[bool]:
    """`Header.native` of all images; one bool if they agree."""
    each = [header.native for header in headers]
    return each[0] if len(set(each)) == 1 else each
