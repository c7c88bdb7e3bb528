"""What is written for a picture: class map, overlay, probabilities on request, and its line in `predictions.jsonl`."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
from PIL import Image

from seg import drawing
from seg.errors import UserError
from seg.prediction.canvas import Band
from seg.prediction.reading import PictureError
from seg.prediction.sources import CLASS_MAP, LEGEND, OVERLAY, PROBABILITIES
from seg.structures import DatasetInfo

_JPEG_LONGEST = 65500  # Pixels; more cannot be said in the format.
_JPEG = {'quality': 90, 'subsampling': 0}  # Colours at full resolution: those of the classes have sharp edges.
_BAND_ROWS = 64  # Of an overlay: blending takes many bytes a pixel.


class Outputs:
    """Writes into one folder; every file whole or not at all. `picture` may be called from several threads.

    As a context it makes the folder with a legend of the colours, and in the end removes what is half written.

    Attributes:
      folder: the folder.
      num_classes: of the predictions.
      probabilities: whether class probabilities are written.
    """

    def __init__(self, folder: str, info: DatasetInfo, colors: Any, opacity: float, probabilities: bool):
        """Takes what all pictures have in common.

        Args:
          folder: for everything; what earlier runs left in it stays, unless it has the same name.
          info: of the training data: class names, and original ids if there are some.
          colors: one (r, g, b) per class.
          opacity: of the colours in overlays.
          probabilities: whether to write class probabilities.

        Raises:
          UserError: for more classes than a palette has.
        """
        if info.num_classes > 256:
            raise UserError(f'{info.name} has {info.num_classes} classes; a palette PNG holds 256 at most.')
        self.folder, self.num_classes, self.probabilities = folder, info.num_classes, probabilities
        self._info, self._colors, self._opacity = info, colors, opacity
        self._numbers = itertools.count()
        # Half-written files live here; being in the folder, they can be moved into place without being copied.
        self._scratch = os.path.join(folder, f'.partial-{socket.gethostname()}-{os.getpid()}')
        self._lines: IO[str] | None = None

    def __enter__(self) -> Outputs:
        try:
            with self._writing(self.folder):
                os.makedirs(self.folder, exist_ok=True)
                self._sweep()
                os.makedirs(self._scratch, exist_ok=True)
                # A name that is no text in the file system's encoding has half characters, which JSON can escape.
                self._lines = open(
                    os.path.join(self.folder, 'predictions.jsonl'), 'w', encoding='utf-8', errors='backslashreplace'
                )
            with self._file(LEGEND) as file:
                legend = Image.fromarray(drawing.legend(self._info.class_names, self._colors))
                file.write(_encoded(legend, 'JPEG', **_JPEG))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if self._lines:
            with contextlib.suppress(OSError):  # A full disk, again.
                self._lines.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def line(self, record: Mapping[str, Any]) -> None:
        """Appends a picture's line to `predictions.jsonl`."""
        with self._writing(self._lines.name):
            self._lines.write(json.dumps(record, ensure_ascii=False) + '\n')
            self._lines.flush()

    def picture(self, name: str, pixels: np.ndarray, bands: Iterable[Band]) -> dict[str, Any]:
        """Writes the files of one picture.

        Args:
          name: of the files, without their endings.
          pixels: uint8 [H, W, 3], the picture; becomes its overlay.
          bands: the prediction, top to bottom.

        Returns:
          The part of its record that tells what was found.

        Raises:
          PictureError: if the name cannot be one of files.
          UserError: if nothing can be written any more.
        """
        info = self._info
        classes = np.empty(pixels.shape[:2], np.uint8)
        count, confidence = np.zeros(info.num_classes, np.int64), np.zeros(info.num_classes)
        with contextlib.ExitStack() as files:  # Put into their places when all of them are whole.
            keep = None
            if self.probabilities:
                file = files.enter_context(self._file(name + PROBABILITIES))
                keep = files.enter_context(_probability_file(file, info.class_names, pixels.shape[:2]))
            for band in bands:
                classes[band.top : band.top + len(band.classes)] = band.classes
                found = band.classes.ravel()
                count += np.bincount(found, minlength=info.num_classes)
                confidence += np.bincount(found, band.confidence.ravel(), minlength=info.num_classes)
                if keep:
                    keep(band)
            files.enter_context(self._file(name + CLASS_MAP)).write(
                _encoded(drawing.palette_png(classes, self._colors), 'PNG')
            )
            for top in range(0, len(pixels), _BAND_ROWS):
                rows = slice(top, top + _BAND_ROWS)
                pixels[rows] = drawing.overlay(pixels[rows], classes[rows], self._colors, self._opacity)
            files.enter_context(self._file(name + OVERLAY)).write(_encoded(_drawable(pixels), 'JPEG', **_JPEG))
        return self._found(count, confidence)

    def _found(self, count: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
        total = int(count.sum())
        classes = []
        for i in sorted(np.flatnonzero(count), key=lambda i: -count[i]):
            entry = {'id': int(i), 'name': self._info.class_names[i]}
            if self._info.original_ids:
                entry['original_id'] = self._info.original_ids[i]
            entry |= {
                'pixels': int(count[i]),
                'share': round(count[i] / total, 6),
                'mean_confidence': round(confidence[i] / count[i], 6),
            }
            classes.append(entry)
        return {'mean_confidence': round(confidence.sum() / total, 6), 'classes': classes}

    @contextlib.contextmanager
    def _file(self, name: str) -> Iterator[IO[bytes]]:
        """A file that takes its place when the context ends well."""
        path = os.path.join(self.folder, name)
        temporary = os.path.join(self._scratch, str(next(self._numbers)))
        with self._writing(path):
            try:
                with open(temporary, 'wb') as file:
                    yield file
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(temporary, path)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                raise PictureError('its name is too long for the names of its outputs') from None
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(temporary)

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f'--output={self.folder}: cannot write {path}: {error.strerror or error}. Make room there, or choose '
                'another --output.'
            ) from None

    def _sweep(self) -> None:
        """Removes what processes of this machine left that were killed in the middle of their writing."""
        prefix = f'.partial-{socket.gethostname()}-'
        for name in os.listdir(self.folder):
            process = name.removeprefix(prefix)
            if name.startswith(prefix) and process.isdigit() and not _is_running(int(process)):
                shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)


@contextlib.contextmanager
def _probability_file(
    file: IO[bytes], class_names: Sequence[str], size: tuple[int, int]
) -> Iterator[Callable[[Band], None]]:
    """An `.npz` file that takes its rows band by band: `probabilities` float16 [H, W, K] and `class_names` [K]."""
    header = {'descr': '<f2', 'fortran_order': False, 'shape': (*size, len(class_names))}
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open('probabilities.npy', 'w', force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, header)
            yield lambda band: entry.write(_half(band).tobytes())
        with archive.open('class_names.npy', 'w') as entry:
            np.lib.format.write_array(entry, np.asarray(class_names), allow_pickle=False)


def _half(band: Band) -> np.ndarray:
    """The probabilities in float16. Where rounding made a class that comes before the winner its equal, the winner is
    raised by one unit in the last place, so that the file's largest values name the same classes as the class map."""
    half = band.probabilities.astype('<f2')
    lost = half.argmax(-1) != band.classes
    rows, columns = np.nonzero(lost)
    winners = band.classes[rows, columns]
    half[rows, columns, winners] = np.nextafter(half[rows, columns, winners], np.float16(2))
    return half


def _drawable(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(pixels)
    if max(picture.size) > _JPEG_LONGEST:
        picture.thumbnail((_JPEG_LONGEST, _JPEG_LONGEST))
    return picture


def _encoded(picture: Image.Image, file_format: str, **settings) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **settings)
    return buffer.getvalue()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
