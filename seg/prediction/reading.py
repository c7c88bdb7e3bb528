"""Reads image files of many formats as upright RGB arrays, or gives the reason for a failure."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from seg.datasets import pillow_files


class ImageError(Exception):
    """The reason why one image has no prediction, in a few words. The other images are predicted."""


@contextlib.contextmanager
def limited(max_megapixels: float) -> Iterator[None]:
    """Context in which images with more pixels are refused, without warnings by Pillow."""
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', module='PIL')
        warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
        # Pillow warns above this number, and refuses above twice as many.
        Image.MAX_IMAGE_PIXELS = max(1, int(max_megapixels * 1e6 / 2))
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def read_size(file: str | BinaryIO) -> tuple[int, int]:
    """Reads (height, width) of an image, as stored, from its header.

    Raises:
      ImageError: if the header cannot be read.
    """
    with _reasons(), pillow_files.opened(file) as image:
        return image.height, image.width


def read_image(file: str | BinaryIO) -> np.ndarray:
    """Reads an image as upright RGB.

    It is rotated by its EXIF orientation. Greyscale is repeated over the channels, after a division by 257 if it has 16
    bits. CMYK and palettes become RGB. Alpha is dropped, as in training. Only the first frame is read.

    Args:
      file: a JPEG, PNG, BMP, TIFF, WebP, GIF or PNM file: its path, or its bytes.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      ImageError: if the file cannot be read, is damaged or truncated, or has too many pixels.
    """
    with _reasons(), pillow_files.opened(file) as image:
        return _upright(image)


def from_pillow(image: Image.Image) -> np.ndarray:
    """Returns an image of Pillow as `read_image` reads files; the image stays as it is.

    Raises:
      ImageError: as for `read_image`.
    """
    with _reasons():
        copied = image.copy()
        copied.format = image.format  # It decides what values of 32 bits mean.
        return _upright(copied)


def _upright(image: Image.Image) -> np.ndarray:
    """Turns an image by its EXIF orientation, in place, and returns its pixels."""
    image.load()
    with contextlib.suppress(Exception):  # Damaged EXIF data is ignored.
        ImageOps.exif_transpose(image, in_place=True)
    return pillow_files.rgb(image)


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turns any error of a file into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except pillow_files.Refused as refused:
        raise ImageError(str(refused)) from None
    except FileNotFoundError:
        raise ImageError('the file does not exist') from None
    except PermissionError:
        raise ImageError('no permission to read the file') from None
    except Image.UnidentifiedImageError:
        raise ImageError('its content is not an image of a known format') from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS / 1e6
        raise ImageError(
            f'it has more than {limit:g} million pixels (predict.max_megapixels), so it may be a decompression bomb'
        ) from None
    except MemoryError:
        raise ImageError('not enough memory to read it') from None
    except Exception as error:  # Pillow's decoders raise many kinds of exceptions on damaged files.
        text = getattr(error, 'strerror', None) or ' '.join(str(error).split()) or type(error).__name__
        if 'truncat' in text.lower():
            raise ImageError('the file is truncated') from None
        raise ImageError(f'the file cannot be read: {text.rstrip(".")}') from None
