"""The output folder: atomically written files, a legend, the lines of `predictions.jsonl`, and a page of all."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
from PIL import Image

from seg import drawing, files
from seg.errors import UserError, shown
from seg.prediction import index
from seg.prediction.canvas import Plan, Size
from seg.prediction.reading import ImageError
from seg.prediction.sources import INDEX, LEGEND, Source
from seg.structures import DatasetInfo

_JPEG_LONGEST = 65500  # Pixels; the format allows no more.
_JPEG = {'quality': 90, 'subsampling': 0}  # Colours at full resolution, because regions of a class have sharp edges.


class Outputs(ABC):
    """Writes predictions to one folder; every file is written atomically.

    As a context it makes the folder, with a legend of the colours if there are classes. At the end it writes a page
    that shows the images, and removes temporary files. A subclass for each kind of prediction plans how an image is
    placed on the canvas (`plan`, `prediction_bytes`) and writes its prediction (`write`).

    Attributes:
      folder: the folder.
      info: facts about the training data.
      colors: one (r, g, b) per class, as drawn.
      one_canvas: whether every image needs only one canvas.
    """

    one_canvas = True

    def __init__(self, folder: str, info: DatasetInfo, colors: Sequence[drawing.Color] = ()):
        """Takes the settings that all images share.

        Args:
          folder: for all files; files of earlier runs remain, except those of the same names.
          info: facts about the training data: class names, and original ids if there are any.
          colors: one (r, g, b) per class, as drawn.
        """
        self.folder = folder
        self.info, self.colors = info, colors
        self._numbers = itertools.count()
        # Temporary files are here, inside the output folder, so that they can be moved into place without a copy.
        self._scratch = os.path.join(folder, f'.partial-{socket.gethostname()}-{os.getpid()}')
        self._lines: IO[str] | None = None
        self._may_replace = True  # Whether existing files may be replaced.
        self._own: set[str] = set()  # Files of this run, if their names are needed.
        self._records: list[dict[str, Any]] = []  # Of the first images, for the page.
        self._number, self._failed = 0, []

    def __enter__(self) -> Outputs:
        try:
            with self._writing(self.folder):
                os.makedirs(self.folder, exist_ok=True)
                self._sweep()
                os.mkdir(self._scratch)
                lines = os.path.join(self.folder, 'predictions.jsonl')
                # Files that no earlier run wrote may be user data, such as the label maps of a data set.
                self._may_replace = os.path.lexists(lines)
                if os.path.islink(lines):
                    os.remove(lines)  # The target of the link stays.
                # A name that is invalid in the file system's encoding has lone surrogates, which JSON can escape.
                self._lines = open(lines, 'w', encoding='utf-8', errors='backslashreplace')
            with self._writing(page := self._path_of(INDEX)), contextlib.suppress(FileNotFoundError):
                os.remove(page)  # It shows an earlier run.
            if self.info.class_names:
                with self.file(LEGEND) as file:
                    legend = Image.fromarray(drawing.legend(self.info.class_names, self.colors))
                    file.write(encoded(legend, 'JPEG', **_JPEG))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, kind=None, *_) -> None:
        try:
            if kind is None and (self._number or self._failed):
                html = index.render(self.folder, self._records, self._number, self._failed, self.info, self.colors)
                with self.file(INDEX) as file:
                    file.write(html.encode('utf-8', 'backslashreplace'))
        finally:
            if self._lines:
                with contextlib.suppress(OSError):  # Closing writes to the full disk again.
                    self._lines.close()
            shutil.rmtree(self._scratch, ignore_errors=True)

    @abstractmethod
    def plan(self, image: np.ndarray, canvas: Size) -> Plan:
        """Plans how an image, uint8 [H, W, 3], is placed on a canvas of (height, width)."""

    @abstractmethod
    def prediction_bytes(self, size: Size, canvas: Size) -> int:
        """Estimates the bytes in memory of the prediction and the overlay of an image of a size."""

    @abstractmethod
    def write(self, source: Source, pixels: np.ndarray, prediction: Any) -> dict[str, Any]:
        """Writes the files of one image. May be called from several threads.

        Args:
          source: the image.
          pixels: uint8 [H, W, 3], its pixels; may be changed in place.
          prediction: the result of `Plan.prediction` for it.

        Returns:
          The part of its record with the predictions.

        Raises:
          ImageError: if its name is not a valid file name.
          UserError: if the output can no longer be written.
        """

    def line(self, record: dict[str, Any], card: Mapping[str, Any] | None = None) -> None:
        """Appends an image's line to `predictions.jsonl`. Called in the order of the sources.

        Args:
          record: the line.
          card: what the page shows; None for the line itself.
        """
        with self._writing(self._lines.name):
            self._lines.write(json.dumps(record, ensure_ascii=False) + '\n')
            self._lines.flush()
        if 'error' in record:
            self._failed.append((record['file'], record['error']))
        elif 'output' in record:
            self._number += 1
            if len(self._records) < index.MOST:
                self._records.append(record if card is None else card)

    def class_entry(self, class_id: int) -> dict[str, Any]:
        """The entry of a class in a line."""
        entry = {'id': int(class_id), 'name': self.info.class_names[class_id]}
        if self.info.original_ids:
            entry['original_id'] = self.info.original_ids[class_id]
        return entry

    def write_overlay(self, file: IO[bytes], pixels: np.ndarray) -> None:
        """Writes pixels, uint8 [H, W, 3], as a JPEG, see `overlay_jpeg`."""
        file.write(overlay_jpeg(pixels))

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[IO[bytes]]:
        """A file in the folder that appears when the context ends without an error.

        Args:
          name: its path within the folder, such as `f'{source.name}.png'`.

        Raises:
          ImageError: if the name leads out of the folder, or is too long.
          UserError: if the output can no longer be written, or a file that no prediction wrote would be overwritten.
        """
        path = self._path_of(name)
        temporary = os.path.join(self._scratch, str(next(self._numbers)))
        with self._writing(path):
            try:
                with files.atomically(path, temporary, sync=False):
                    with open(temporary, 'wb') as file:
                        yield file
                    os.makedirs(os.path.dirname(path), exist_ok=True)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                raise ImageError('the names of its outputs would be too long') from None
            if not self._may_replace:
                self._own.add(path)

    def _path_of(self, name: str) -> str:
        """Makes a path from the name of an image, which is not trusted. No other code makes such paths."""
        path = os.path.join(self.folder, name)
        inside = os.path.realpath(self.folder)
        if '\0' in name or os.path.commonpath([inside, os.path.realpath(os.path.dirname(path))]) != inside:
            raise ImageError(f'the name of its outputs, {shown(name)}, leads out of the output folder')
        if not self._may_replace and path not in self._own and os.path.lexists(path):
            # Otherwise the next run would take this file for a prediction of an earlier run.
            with contextlib.suppress(OSError):
                os.remove(self._lines.name)
            raise UserError(
                f'--output={self.folder}: {path} exists, and no earlier prediction wrote it. Choose another --output.'
            )
        return path

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f'--output={self.folder}: cannot write {path}: {error.strerror or error}. Free space there, check the '
                'permissions, or choose another --output.'
            ) from None

    def _sweep(self) -> None:
        """Removes temporary folders that killed processes of this machine left."""
        prefix = f'.partial-{socket.gethostname()}-'
        for name in os.listdir(self.folder):
            process = name.removeprefix(prefix)
            path = os.path.join(self.folder, name)
            if name.startswith(prefix) and files.is_left_over(process):
                os.remove(path) if os.path.islink(path) else shutil.rmtree(path, ignore_errors=True)


def overlay_jpeg(pixels: np.ndarray) -> bytes:
    """Encodes pixels, uint8 [H, W, 3], as a JPEG, scaled down if the format does not allow their size."""
    image = Image.fromarray(pixels)
    if max(image.size) > _JPEG_LONGEST:
        image.thumbnail((_JPEG_LONGEST, _JPEG_LONGEST))
    return encoded(image, 'JPEG', **_JPEG)


def encoded(image: Image.Image, file_format: str, **settings) -> bytes:
    """Encodes an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **settings)
    return buffer.getvalue()
