"""The outputs of instance segmentation: overlays, and one list of all detections."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from seg import drawing, files
from seg.drawing.instance_colors import vivid
from seg.drawing.instances import above, overlay
from seg.masks import paste
from seg.prediction.canvas import OneCanvas, Plan, Size
from seg.prediction.outputs import Outputs
from seg.prediction.settings import PredictSettings
from seg.prediction.sources import DETECTIONS, OVERLAY, Source
from seg.structures import DatasetInfo, Detections

# Bytes per pixel of the image while an instance that fills it is pasted, encoded and drawn.
_BYTES_PER_PIXEL = 24
_COMFORTABLE, _MOST_ENLARGED = 640, 4  # Longer side in pixels of an enlarged overlay, and the largest factor.


class InstanceOutputs(Outputs):
    """Writes an overlay of each image, and one `detections.json` of all: a list in COCO's results format.

    The list is written image by image, and appears when the run ends without an error. So it always matches the
    `predictions.jsonl` in the same folder.
    """

    def __init__(
        self,
        folder: str,
        info: DatasetInfo,
        colors: Sequence[drawing.Color],
        settings: PredictSettings,
        fits_canvas: bool,
    ):
        """Takes the settings that all images share.

        Args:
          folder: see `Outputs`.
          info: see `Outputs`.
          colors: one (r, g, b) per class.
          settings: settings of the mode.
          fits_canvas: whether smaller images are scaled up to fill the canvas. Larger ones are always scaled down.
        """
        super().__init__(folder, info, [vivid(color) for color in colors])
        self._instance_colors, self._settings, self._fits_canvas = colors, settings, fits_canvas
        self._path = os.path.join(folder, DETECTIONS)
        self._list: IO[bytes] | None = None
        self._separator = b'['

    def __enter__(self) -> InstanceOutputs:
        super().__enter__()
        try:
            with self._writing(self._path):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(self._path)
                self._list = open(os.path.join(self._scratch, DETECTIONS), 'wb')
        except BaseException:
            super().__exit__()
            raise
        return self

    def __exit__(self, kind=None, *error) -> None:
        try:
            if self._list and kind is None:
                with self._writing(self._path), files.atomically(self._path, self._list.name, sync=False):
                    self._list.write(b']\n' if self._separator == b',' else b'[]\n')
                    self._list.close()
        finally:
            if self._list:
                with contextlib.suppress(OSError):  # Closing writes to the full disk again.
                    self._list.close()
            super().__exit__(kind, *error)

    def plan(self, image: np.ndarray, canvas: Size) -> Plan:
        return Fitted(image, canvas, self._fits_canvas)

    def prediction_bytes(self, size: Size, canvas: Size) -> int:
        return size[0] * size[1] * _enlargement(*size) ** 2 * _BYTES_PER_PIXEL

    def write(self, source: Source, pixels: np.ndarray, prediction: Detections) -> dict[str, Any]:
        """Writes the overlay of one image, see `Outputs`; its part of the record also has the detections,
        and the numbers of those drawn."""
        found = self.found(prediction)
        drawn = self.found(above(prediction, self._settings.min_score))
        entries = [self.result(source.id, *one) for one in zip(*prediction, strict=True)]
        pixels = enlarged(pixels)
        self.draw(pixels, prediction, self._settings.min_score)
        with self.file(source.name + OVERLAY) as file:
            self.write_overlay(file, pixels)
        return {'image_id': source.id, **found, 'drawn': drawn, 'detections': entries}

    def draw(self, pixels: np.ndarray, prediction: Detections, min_score: float) -> None:
        """Draws the detections with at least a score over their image, uint8 [H, W, 3], in place."""
        overlay(
            pixels,
            prediction,
            class_names=self.info.class_names,
            colors=self._instance_colors,
            opacity=self._settings.opacity,
            min_score=min_score,
        )

    def line(self, record: dict[str, Any]) -> None:
        """Appends an image's detections to the list, and the rest of its record to `predictions.jsonl`.

        The page has the numbers of those drawn beside the overlay.
        """
        drawn = record.pop('drawn', {})
        with self._writing(self._path):
            for entry in record.pop('detections', ()):
                self._list.write(self._separator + json.dumps(entry, separators=(',', ':')).encode() + b'\n')
                self._separator = b','
        super().line(record, {**record, **drawn, 'found': record.get('count', 0)})

    def found(self, detections: Detections) -> dict[str, Any]:
        """The number of detections, and `classes`, the most frequent first."""
        scores, ids = (np.asarray(values) for values in (detections.scores, detections.classes))
        classes = [
            self.class_entry(c)
            | {'count': int(np.sum(ids == c)), 'mean_score': round(float(np.mean(scores[ids == c], dtype=float)), 6)}
            for c in sorted(set(ids.tolist()), key=lambda c: (-np.sum(ids == c), c))
        ]
        return {'count': len(ids), 'classes': classes}

    def result(self, image_id: int | str, box, score, class_id, mask: dict[str, Any]) -> dict[str, Any]:
        """A detection in COCO's results format."""
        ids = self.info.original_ids
        y0, x0, y1, x1 = (float(side) for side in box)
        return {
            'image_id': image_id,
            'category_id': ids[class_id] if ids else int(class_id),
            'bbox': [round(side, 3) for side in (x0, y0, x1 - x0, y1 - y0)],
            'score': round(float(score), 6),
            'segmentation': {'size': [int(side) for side in mask['size']], 'counts': mask['counts'].decode('ascii')},
        }


def enlarged(pixels: np.ndarray) -> np.ndarray:
    """Enlarges a small image, uint8 [H, W, 3], by a whole number: labels have a fixed size, and would hide much."""
    factor = _enlargement(*pixels.shape[:2])
    return np.repeat(np.repeat(pixels, factor, 0), factor, 1) if factor > 1 else pixels


def _enlargement(height: int, width: int) -> int:
    return max(1, min(_COMFORTABLE // max(height, width, 1), _MOST_ENLARGED))


class Fitted(OneCanvas):
    """An image on one canvas: unscaled, or scaled to fit."""

    def __init__(self, image: np.ndarray, canvas: Size, fills: bool):
        super().__init__(image, canvas, ('boxes', 'scores', 'classes', 'masks'), maps=False, fills=fills)
        self._size = image.shape[:2]

    def prediction(self, results: Iterator[dict[str, np.ndarray]]) -> Detections:
        """Returns the detections in the image's own pixels."""
        return paste.detections(next(results), self._pixels.shape[:2], self._size)
