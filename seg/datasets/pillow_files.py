"""Images that Pillow reads, in the formats that TensorFlow's decoders lack or as files of unknown origin."""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np
from PIL import Image

# No other formats: Pillow passes EPS files to another program, which is unsafe for images of unknown origin.
FORMATS = ('JPEG', 'MPO', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'PPM')


class Refused(ValueError):
    """A file that is not a usable image; the text is the reason."""


def opened(file: str | BinaryIO) -> Image.Image:
    """Opens an image, by its path or as bytes in memory, and reads its header.

    Raises:
      Refused: if it is not a regular file, or is empty.
      Exception: Pillow's, of many types, if the file is damaged or has another format.
    """
    if isinstance(file, str):
        if os.path.exists(file) and not os.path.isfile(file):
            raise Refused('it is not a regular file')
        if os.path.getsize(file) == 0:
            raise Refused('the file is empty')
    Image.init()
    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])


def rgb(image: Image.Image) -> np.ndarray:
    """Converts a loaded image to uint8 [H, W, 3].

    Greyscale is repeated over the channels, after a division by 257 if it has 16 bits. CMYK and palettes become RGB.
    Alpha is dropped.

    Raises:
      Refused: for values of 32 bits.
    """
    if image.mode.startswith('I;16') or (image.mode == 'I' and image.format == 'PNG'):
        grey = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode in ('I', 'F'):
        raise Refused('its 32-bit values have no known range; save it with 8 or 16 bits')
    return np.array(image if image.mode == 'RGB' else image.convert('RGB'))
