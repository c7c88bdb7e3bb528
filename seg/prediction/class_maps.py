"""The outputs of semantic segmentation: class map, overlay and probabilities of each image."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from seg import drawing
from seg.errors import UserError
from seg.prediction import canvas as canvas_module
from seg.prediction.canvas import Band, Plan, Size
from seg.prediction.outputs import Outputs, encoded
from seg.prediction.settings import PredictSettings
from seg.prediction.sources import CLASS_MAP, OVERLAY, PROBABILITIES, Source
from seg.structures import DatasetInfo

_BAND_ROWS = 64  # Rows of an overlay at a time: blending takes many bytes per pixel.


class ClassMaps(Outputs):
    """Writes class map, overlay and, on request, probabilities of each image."""

    def __init__(
        self,
        folder: str,
        info: DatasetInfo,
        colors: Sequence[drawing.Color],
        settings: PredictSettings,
        probabilities: bool,
        classes_only: bool = False,
    ):
        """Takes the settings that all images share.

        Args:
          folder: see `Outputs`.
          info: see `Outputs`.
          colors: one (r, g, b) per class.
          settings: settings of the mode.
          probabilities: whether to write class probabilities.
          classes_only: whether the model gives no probabilities.

        Raises:
          UserError: for more classes than a palette has.
        """
        if info.num_classes > 256:
            raise UserError(f'{info.name} has {info.num_classes} classes; a palette PNG holds 256 at most.')
        super().__init__(folder, info, colors)
        self._settings, self._probabilities, self._classes_only = settings, probabilities, classes_only
        self.one_canvas = settings.large_pictures == 'shrink'

    def plan(self, image: np.ndarray, canvas: Size) -> Plan:
        settings = self._settings
        return canvas_module.plan(
            image, canvas, settings.large_pictures, settings.tile_overlap, self._probabilities, self._classes_only
        )

    def prediction_bytes(self, size: Size, canvas: Size) -> int:
        maps = canvas[0] * canvas[1]
        if not self.one_canvas and size[1] > canvas[1]:
            maps += canvas[0] * size[1]
        return size[0] * size[1] + 4 * self.info.num_classes * maps

    def write(self, source: Source, pixels: np.ndarray, prediction: Iterable[Band]) -> dict[str, Any]:
        """Writes the files of one image, see `Outputs`; `prediction` are its bands, top to bottom."""
        with contextlib.ExitStack() as files:  # Moved into place when all of them are complete.
            keep = None
            if self._probabilities:
                file = files.enter_context(self.file(source.name + PROBABILITIES))
                keep = files.enter_context(_probability_file(file, self.info.class_names, pixels.shape[:2]))
            classes, found = self.assembled(pixels.shape[:2], prediction, keep)
            files.enter_context(self.file(source.name + CLASS_MAP)).write(self.class_map(classes))
            self.draw(pixels, classes)
            self.write_overlay(files.enter_context(self.file(source.name + OVERLAY)), pixels)
        return found

    def assembled(
        self, size: Size, prediction: Iterable[Band], keep: Callable[[Band], None] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Joins the bands of an image.

        Args:
          size: (height, width) of the image.
          prediction: its bands, top to bottom.
          keep: is called with each band.

        Returns:
          Class ids, uint8 [H, W], and the image's part of its record: `mean_confidence`, and `classes`, the most
          frequent first.
        """
        info = self.info
        classes = np.empty(size, np.uint8)
        count, confidence = np.zeros(info.num_classes, np.int64), np.zeros(info.num_classes)
        for band in prediction:
            classes[band.top : band.top + len(band.classes)] = band.classes
            found = band.classes.ravel()
            count += np.bincount(found, minlength=info.num_classes)
            confidence += np.bincount(found, band.confidence.ravel(), minlength=info.num_classes)
            if keep:
                keep(band)
        return classes, self._found(count, confidence)

    def class_map(self, classes: np.ndarray) -> bytes:
        """A palette PNG of class ids, uint8 [H, W]."""
        return encoded(drawing.palette_png(classes, self.colors), 'PNG')

    def draw(self, pixels: np.ndarray, classes: np.ndarray) -> None:
        """Blends an image, uint8 [H, W, 3], with the colours of its classes, in place."""
        for top in range(0, len(pixels), _BAND_ROWS):
            rows = slice(top, top + _BAND_ROWS)
            pixels[rows] = drawing.overlay(pixels[rows], classes[rows], self.colors, self._settings.opacity)

    def _found(self, count: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
        total = int(count.sum())
        classes = []
        for i in sorted(np.flatnonzero(count), key=lambda i: -count[i]):
            found = {
                'pixels': int(count[i]),
                'share': round(count[i] / total, 6),
                'mean_confidence': round(confidence[i] / count[i], 6),
            }
            classes.append(self.class_entry(i) | found)
        return {'mean_confidence': round(confidence.sum() / total, 6), 'classes': classes}


@contextlib.contextmanager
def _probability_file(
    file: IO[bytes], class_names: Sequence[str], size: tuple[int, int]
) -> Iterator[Callable[[Band], None]]:
    """An `.npz` file that is written band by band: `probabilities` float16 [H, W, K] and `class_names` [K]."""
    header = {'descr': '<f2', 'fortran_order': False, 'shape': (*size, len(class_names))}
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open('probabilities.npy', 'w', force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, header)
            yield lambda band: entry.write(_half(band).tobytes())
        with archive.open('class_names.npy', 'w') as entry:
            np.lib.format.write_array(entry, np.asarray(class_names), allow_pickle=False)


def _half(band: Band) -> np.ndarray:
    """Returns the probabilities in float16. If rounding makes an earlier class equal to the predicted one, the latter
    is raised by one unit in the last place, so that the file's largest values name the classes of the class map."""
    half = band.probabilities.astype('<f2')
    lost = half.argmax(-1) != band.classes
    rows, columns = np.nonzero(lost)
    winners = band.classes[rows, columns]
    half[rows, columns, winners] = np.nextafter(half[rows, columns, winners], np.float16(2))
    return half
