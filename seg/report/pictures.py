"""The pictures of a run's last evaluation, small enough to stand in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import NamedTuple

from PIL import Image

from seg.report.event_files import StoredPicture

# Kept as stored unless JPEG takes less than this share: flat drawings are sharper, and no larger, as PNG.
_JPEG_BELOW = 0.6
# JPEG quality and largest width in pixels, tried in turn until all pictures fit.
_LEVELS = ((88, 2000), (80, 1600), (70, 1280), (60, 960))
_BUDGET = 3_900_000  # Bytes of all pictures; base64 makes them a third larger.
_MOST_PIXELS = 50_000_000
_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class Embedded(NamedTuple):
    """A picture for the page: its tag and step, the data URI, and its width and height in pixels."""

    tag: str
    step: int
    uri: str
    width: int
    height: int


def embed(stored: Iterable[StoredPicture], notes: list[str]) -> list[Embedded]:
    """Encodes pictures as data URIs that together stay within the budget; tells in `notes` what was left out."""
    readable = []
    for picture in stored:
        try:
            _open(picture).verify()
            readable.append(picture)
        except _ERRORS as error:
            notes.append(f'The picture {picture.tag} cannot be read and is left out: {error}.')
    for quality, width in _LEVELS:
        made, size = [], 0
        for picture in readable:
            embedded, length = _encode(picture, quality, width)
            size += length
            if size > _BUDGET:
                break
            made.append(embedded)
        if len(made) == len(readable):
            return made
    notes.append(f'Pictures left out to keep this page small: {len(readable) - len(made)}.')
    return made


def _open(picture: StoredPicture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.read()), formats=('PNG', 'JPEG'))
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f'{image.width} x {image.height} pixels')
    return image


def _encode(picture: StoredPicture, quality: int, width: int) -> tuple[Embedded, int]:
    """Returns the picture and its encoded bytes' number."""
    data, image = picture.read(), _open(picture)
    kind = image.format.lower()
    drawn = image.convert('RGB')
    if drawn.width > width:
        drawn = drawn.resize((width, max(1, round(drawn.height * width / drawn.width))), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    drawn.save(file, 'JPEG', quality=quality, subsampling=0)
    if file.tell() < _JPEG_BELOW * len(data):
        data, kind = file.getvalue(), 'jpeg'
    else:
        drawn = image
    uri = f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
    return Embedded(picture.tag, picture.step, uri, drawn.width, drawn.height), len(data)
