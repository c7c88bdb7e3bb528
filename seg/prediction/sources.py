"""Finds the images on disk to predict (files, folders, globs), and names their outputs."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seg.errors import UserError, did_you_mean
from seg.prediction import reading

EXTENSIONS = ('.bmp', '.gif', '.jfif', '.jpe', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.pnm', '.ppm', '.tif', '.tiff')
EXTENSIONS += ('.webp',)

# Endings of the outputs for an image, after its name.
CLASS_MAP, OVERLAY, PROBABILITIES = '.png', '.overlay.jpg', '.npz'
# Outputs for all images; no output of a single image ends like these.
LEGEND, DETECTIONS, INDEX = 'legend.jpg', 'detections.json', 'index.html'


class Source(NamedTuple):
    """An image to predict.

    Attributes:
      file: its path as found, or its name in the data set.
      name: name of its outputs, relative to the output folder and without an ending.
      size: returns (height, width) as stored, or an upper bound, at little cost.
      load: returns the image, uint8 [H, W, 3]. Both raise `reading.ImageError`.
      id: image id in the results: the id in the data set's own files, otherwise the position, counted from 1.
    """

    file: str
    name: str
    size: Callable[[], tuple[int, int]]
    load: Callable[[], np.ndarray]
    id: int | str = 0


def from_files(inputs: str | Sequence[str], output: str) -> list[Source]:
    """Finds images on disk, each once, sorted within each input.

    Args:
      inputs: paths of files, folders (searched with all their subfolders, for image extensions) and globs (`**` for any
        number of folders). A string may hold several, separated by commas; a comma in the name of an existing file does
        not separate. Hidden files are ignored unless they are named.
      output: the output folder, which is not searched.

    Returns:
      The images. Their names are their paths relative to the deepest folder that holds all inputs, without the
      extension if the names stay distinct. (For a folder this is the folder itself, for a glob the part before its
      first wildcard, for a file its folder.)

    Raises:
      UserError: if an input finds nothing, or an output would overwrite an image.
    """
    searches = [
        _Search(os.path.expanduser(pattern), os.path.realpath(output))
        for value in ([inputs] if isinstance(inputs, str) else inputs)
        for pattern in _split(value)
    ]
    if not searches:
        raise UserError(f'--input={inputs!r}: name a file, a folder or a glob.')
    files = {os.path.abspath(path): path for search in searches for path in search.paths()}
    base = os.path.commonpath([os.path.abspath(search.place) for search in searches])
    names = _names([os.path.relpath(path, base) for path in files])
    _check_overwriting(files, names, output)
    return [
        Source(file, name, lambda path=file: reading.read_size(path), lambda path=file: reading.read_image(path), i)
        for i, (file, name) in enumerate(zip(files.values(), names, strict=True), 1)
    ]


class _Search:
    """One path, folder or glob."""

    def __init__(self, pattern: str, output: str):
        self._pattern, self._output = pattern, output
        if os.path.isdir(pattern):
            self.place, self._found = pattern, self._walk
        elif os.path.lexists(pattern):
            self.place, self._found = os.path.dirname(pattern), lambda: [pattern]
        elif _is_glob(pattern):
            parts = pattern.split(os.sep)
            fixed = next(i for i, part in enumerate(parts) if _is_glob(part))
            self.place, self._found = os.sep.join(parts[:fixed]) or (os.sep if fixed else '.'), self._glob
        else:
            raise UserError(f'--input={pattern}: no such file or folder.{did_you_mean(pattern)}')

    def paths(self) -> list[str]:
        searched = self._found in (self._walk, self._glob)
        if searched and os.path.realpath(self.place) == self._output:
            raise UserError(
                f'--output={self.place} is searched for images as well (--input={self._pattern}): the next run would '
                f'take its own overlays for images. Choose another --output, such as '
                f'{os.path.join(self.place, "predicted")}.'
            )
        if found := sorted(self._found()):
            return found
        raise UserError(
            f'--input={self._pattern}: no image found. Looked for files that end in {", ".join(EXTENSIONS)}.'
        )

    def _walk(self) -> Iterator[str]:
        seen = set()
        for folder, subfolders, names in os.walk(self._pattern, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen or real == self._output:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith('.'))
            for name in names:
                path = os.path.join(folder, name)
                if _is_image(name) and not name.startswith('.') and os.path.isfile(path):
                    yield path

    def _glob(self) -> Iterator[str]:
        extension = os.path.splitext(self._pattern)[1]
        any_file = extension and not _is_glob(extension)  # `*.heic` names these files: unreadable ones are reported.
        inside = self._output + os.sep
        for path in glob.iglob(self._pattern, recursive=True):
            if (any_file or _is_image(path)) and os.path.isfile(path):
                if not os.path.realpath(path).startswith(inside):
                    yield path


def _is_glob(text: str) -> bool:
    return glob.escape(text) != text


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _exists(pattern: str) -> bool:
    pattern = os.path.expanduser(pattern)
    return os.path.lexists(pattern) or (
        _is_glob(pattern) and next(glob.iglob(pattern, recursive=True), None) is not None
    )


def _split(value: str) -> Iterator[str]:
    """Splits at commas, but not within the name of an existing file or folder."""
    if _exists(value):
        yield value
        return
    pieces = value.split(',')
    while pieces:
        counts = range(1, len(pieces) + 1)
        count = next((n for n in counts if _exists(','.join(pieces[:n]))), 1)
        if pattern := ','.join(pieces[:count]):
            yield pattern
        del pieces[:count]


def _names(paths: Sequence[str]) -> list[str]:
    """Paths without their extensions; with them if two names would be equal, such as those of a.jpg and a.png."""
    names = [os.path.splitext(path)[0] for path in paths]
    while True:
        counts = Counter(names)
        longer = [path if counts[name] > 1 else name for name, path in zip(names, paths, strict=True)]
        if longer == names:
            return names
        names = longer  # Now this name may equal the shortened name of another image.


def _check_overwriting(files: dict[str, str], names: Sequence[str], output: str) -> None:
    """Refuses outputs that would overwrite an input image.

    Links in folders are resolved. A link at the end of a path is not, because an output would replace the link itself.
    """
    places = {_place(path): file for path, file in files.items()}
    outputs = (name + ending for name in names for ending in (CLASS_MAP, OVERLAY, PROBABILITIES))
    for path in (_place(os.path.join(output, written)) for written in (LEGEND, DETECTIONS, INDEX, *outputs)):
        if path in places:
            raise UserError(f'--output={output}: {places[path]} would be overwritten. Choose another folder.')


def _place(path: str) -> str:
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)
