"""Images in the forms that a Python program has them in, as arrays of pixels."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image

from seg.errors import UserError, shown
from seg.prediction import reading

_EXPECTED = 'expected uint8 [height, width, 3], RGB from 0 to 255'


def pixels(image: Any, place: str) -> np.ndarray:
    """Returns an image as uint8 [H, W, 3], RGB, upright.

    Args:
      image: a path, a Pillow image, or an array uint8 [H, W, 3] or, for greyscale, [H, W] or [H, W, 1]. What other
        libraries can turn into an array of numpy counts as one, such as tensors.
      place: name of the image in messages.

    Raises:
      UserError: for anything else, or a file that cannot be read.
    """
    try:
        if isinstance(image, str | os.PathLike):
            place = f'{place} = {os.fspath(image)!r}'
            path = os.path.expanduser(os.fsdecode(image))
            if os.path.isdir(path):
                raise UserError(f'{place} is a folder; expected a file. --mode=predict takes folders.')
            return reading.read_image(path)
        if isinstance(image, Image.Image):
            return reading.from_pillow(image)
    except reading.ImageError as error:
        raise UserError(f'{place}: {error}.') from None
    if not hasattr(image, '__array__'):
        raise UserError(
            f'{place} is {shown(image)}; expected an array uint8 [height, width, 3], a path, a Pillow image, or a list '
            'of these.'
        )
    return _of_array(np.asarray(image), place)


def _of_array(array: np.ndarray, place: str) -> np.ndarray:
    if advice := _advice(array):
        raise UserError(f'{place} is an array {array.dtype} {list(array.shape)}; {_EXPECTED}. {advice}')
    if array.ndim == 2:
        array = array[..., None]
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _advice(array: np.ndarray) -> str:
    """What to do about an array that is no image; empty for an image."""
    shape = array.shape
    if array.ndim == 4:
        return 'Several images are a list of arrays: list(images).'
    if array.ndim not in (2, 3):
        return 'Pass one image.'
    if not array.size:
        return 'It has no pixels.'
    if array.ndim == 3 and shape[-1] not in (1, 3):
        if shape[0] in (1, 3):
            return 'Channels come last: image.transpose(1, 2, 0).'
        return 'Without alpha: image[..., :3].' if shape[-1] == 4 else 'Choose three channels: image[..., [0, 1, 2]].'
    return '' if array.dtype == np.uint8 else _advice_on_values(array)


def _advice_on_values(array: np.ndarray) -> str:
    if array.dtype == bool or not np.issubdtype(array.dtype, np.number):
        return 'It holds no brightness values.'
    low, high = float(array.min()), float(array.max())
    values = f'Its values are {low:.4g} to {high:.4g}:'
    if array.dtype == np.uint16 and high > 255:
        return f'{values} (image // 257).astype("uint8") if they use all 16 bits.'
    if np.isnan(low) or low < 0 or high > 255:
        return f'{values} pass the image as it was read. The model normalises it.'
    if np.issubdtype(array.dtype, np.floating):
        scaled = '(255 * image)' if high <= 1 else 'image'
        return f'{values} {scaled}.round().astype("uint8").'
    return f'{values} image.astype("uint8").'
