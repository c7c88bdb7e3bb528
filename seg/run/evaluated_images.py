"""`eval/images-<split>.zip`: all images of the newest evaluation with their scores, and small pictures of them.

It holds `images.json`, and for each image with a picture `<number>.jpg`: the panels of its figure side by side, without
a gap. An evaluation replaces the file of the one before.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from seg import files
from seg.errors import UserError
from seg.run.values import number, string, whole

_INDEX = 'images.json'
_REMEDY = 'The next evaluation replaces it.'
_MOST_BYTES = 2**26  # Of a single file within.


class EvaluatedImage(NamedTuple):
    """An image of an evaluation.

    Attributes:
      name: its name in the data set.
      score: by which the worst and the best images are chosen; None without one.
      caption: numbers about it; empty without a figure.
      headings: of the panels, from left to right; empty without a picture.
      size: (height, width) of one panel in pixels.
      strip: the panels side by side, a JPEG; empty without a picture.
      chosen: why it is among the images that are drawn large, such as `worst 1`.
    """

    name: str
    score: float | None
    caption: str = ''
    headings: Sequence[str] = ()
    size: tuple[int, int] = (0, 0)
    strip: bytes = b''
    chosen: Sequence[str] = ()


def write(path: str, step: int, images: Sequence[EvaluatedImage]) -> None:
    """Writes the file atomically.

    Raises:
      UserError: if it cannot be written.
    """
    entries = [{key: value for key, value in image._asdict().items() if key != 'strip'} for image in images]
    with files.replacing(path) as temporary, zipfile.ZipFile(temporary, 'w') as archive:
        archive.writestr(_INDEX, json.dumps({'step': step, 'images': entries}))
        for place, image in enumerate(images):
            if image.strip:
                archive.writestr(_strip(place), image.strip)


def read(path: str) -> tuple[int, list[EvaluatedImage]]:
    """Reads what `write` wrote: the step and the images. A value of the wrong type counts as missing.

    Raises:
      UserError: if the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            values = files.parse_json(_bytes(archive, _INDEX))
            step, entries = whole(values['step']), values['images']
            if step is None or not isinstance(entries, list):
                raise ValueError('it has no step or no images')
            there = set(archive.namelist())
            return step, [
                _image(entry, _bytes(archive, _strip(place)) if _strip(place) in there else b'')
                for place, entry in enumerate(entries)
                if isinstance(entry, dict)
            ]
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError, NotImplementedError, EOFError) as error:
        raise UserError(f'{path!r} cannot be read: {error}. {_REMEDY}') from None


def newest(folder: str) -> list[str]:
    """The files of a folder `eval`, the newest first."""
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    paths = [os.path.join(folder, name) for name in names if name.startswith('images-') and name.endswith('.zip')]
    return sorted(paths, key=lambda path: (-os.path.getmtime(path), path))


def _strip(place: int) -> str:
    return f'{place}.jpg'


def _bytes(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MOST_BYTES:
        raise ValueError(f'{name} is larger than {_MOST_BYTES:,} bytes')
    return archive.read(name)


def _image(entry: dict[str, Any], strip: bytes) -> EvaluatedImage:
    texts = lambda value: [each for each in value if isinstance(each, str)] if isinstance(value, list) else []  # noqa: E731
    size = entry.get('size')
    sides = [side for side in size if whole(side)] if isinstance(size, list) else []
    headings = texts(entry.get('headings'))
    shown = bool(strip and headings and len(sides) == 2)
    return EvaluatedImage(
        name=string(entry.get('name')),
        score=number(entry.get('score')),
        caption=string(entry.get('caption')),
        headings=headings if shown else (),
        size=(sides[0], sides[1]) if shown else (0, 0),
        strip=strip if shown else b'',
        chosen=texts(entry.get('chosen')),
    )
