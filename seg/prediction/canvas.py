"""Places images of any size on a canvas of one size, and returns class maps at the images' own size.

An image that fits is placed on the canvas unscaled. A larger one is scaled down to fit, and the class probabilities are
scaled back; or it is cut into overlapping windows at its own scale, whose probabilities are averaged. The probabilities
of a whole large image are never in memory: they are computed in bands of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from seg.ops.sizes import fitted_size
from seg.structures import PAD_PIXEL

# Bytes of the probabilities of one band: about the cache of a core.
_BAND_BYTES = 4 * 2**20

Size = tuple[int, int]


class Band(NamedTuple):
    """Some rows of a finished prediction.

    Attributes:
      top: the first row.
      classes: [rows, W] integer class ids.
      confidence: [rows, W] float, the probability of that class.
      probabilities: [rows, W, K] float32, or None if they are not requested.
    """

    top: int
    classes: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None


class Plan(Protocol):
    """How one image is placed on the canvas.

    Attributes:
      scale: factor from the image's own scale to its scale on the canvas.
      windows: number of canvases.
      keys: outputs of the model that it needs, such as `probabilities`.
      maps: whether these are maps of the canvas; then only the part with the image is used.
    """

    scale: float
    windows: int
    keys: tuple[str, ...]
    maps: bool

    def window(self, number: int) -> np.ndarray:
        """Pixels of one window, uint8 [h, w, 3], no larger than the canvas."""

    def prediction(self, results: Iterator[dict[str, np.ndarray]]) -> Any:
        """Returns the prediction at the image's own size, from the outputs for its windows in their order.

        For class maps it is an iterator of `Band`, top to bottom.
        """


def plan(
    image: np.ndarray, canvas: Size, large: str, overlap: float, probabilities: bool, classes_only: bool = False
) -> Plan:
    """Plans how an image is placed on the canvas for a class map.

    Args:
      image: uint8 [H, W, 3].
      canvas: (height, width).
      large: `shrink` or `tile`, for images that do not fit.
      overlap: overlap of neighbouring windows, as a fraction of the window.
      probabilities: whether bands must have them.
      classes_only: whether the model gives no probabilities, so that `large` is `shrink`.
    """
    height, width = image.shape[:2]
    if height <= canvas[0] and width <= canvas[1]:
        return Whole(image, probabilities)
    if classes_only:
        return ShrunkClasses(image, canvas)
    return Shrunk(image, canvas) if large == 'shrink' else Tiled(image, canvas, overlap)


def fitted(image: np.ndarray, canvas: Size) -> tuple[np.ndarray, float]:
    """Scales an image, up or down, to the largest size that fits a canvas. Returns it and the scale."""
    size = image.shape[:2]
    scale = min(side / own for side, own in zip(canvas, size, strict=True))
    height, width = fitted_size(size, canvas)
    # Pillow's bilinear filter widens with the reduction, so that every pixel of the image counts.
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)), scale


def batch(windows: Sequence[np.ndarray | None], batch_size: int, canvas: Size, dtype: str) -> dict[str, np.ndarray]:
    """Places windows on the canvases of a batch.

    Args:
      windows: at most `batch_size` windows, uint8 [h, w, 3]; None for one that is no longer needed.
      batch_size: number of canvases; those without a window have one valid pixel.
      canvas: (height, width).
      dtype: type of the pixels; a whole one rounds `PAD_PIXEL` down.

    Returns:
      `image` [B, H, W, 3], padded with `PAD_PIXEL`, and `size` int32 [B, 2], height and width of each window.
    """
    image = np.empty((batch_size, *canvas, 3), dtype)
    image[:] = PAD_PIXEL
    size = np.ones((batch_size, 2), np.int32)
    for i, window in enumerate(windows):
        if window is not None:
            size[i] = window.shape[:2]
            image[i, : size[i, 0], : size[i, 1]] = window
    return {'image': image, 'size': size}


class OneCanvas:
    """An image on one canvas, unscaled or scaled to fit; its prediction is the output for the canvas.

    Args:
      image: uint8 [H, W, 3].
      canvas: (height, width).
      keys: outputs of the model, see `Plan`.
      maps: whether these are maps of the canvas, see `Plan`.
      fills: whether an image smaller than the canvas is scaled up.
    """

    windows = 1

    def __init__(self, image: np.ndarray, canvas: Size, keys: tuple[str, ...], maps: bool = True, fills: bool = False):
        self.keys, self.maps = keys, maps
        inside = all(own <= side for own, side in zip(image.shape[:2], canvas, strict=True))
        self._pixels, self.scale = (image, 1.0) if inside and not fills else fitted(image, canvas)

    def window(self, number: int) -> np.ndarray:
        return self._pixels

    def prediction(self, results: Iterator[dict[str, np.ndarray]]) -> Any:
        return next(results)


class Whole:
    """An image that fits."""

    scale, windows, maps = 1.0, 1, True

    def __init__(self, image: np.ndarray, probabilities: bool):
        self._image = image
        self.keys = ('probabilities',) if probabilities else ('classes', 'confidence')

    def window(self, number: int) -> np.ndarray:
        return self._image

    def prediction(self, results: Iterator[dict[str, np.ndarray]]) -> Iterator[Band]:
        result = next(results)
        if 'probabilities' in result:
            yield decided(0, result['probabilities'])
        else:
            yield Band(0, result['classes'], result['confidence'], None)


class Shrunk:
    """An image scaled down to fit, with antialiasing."""

    windows, keys, maps = 1, ('probabilities',), True

    def __init__(self, image: np.ndarray, canvas: Size):
        self._size = image.shape[:2]
        self._small, self.scale = fitted(image, canvas)

    def window(self, number: int) -> np.ndarray:
        return self._small

    def prediction(self, results: Iterator[dict[str, np.ndarray]]) -> Iterator[Band]:
        for top, probabilities in upscaled(next(results)['probabilities'], self._size):
            yield decided(top, probabilities)


class ShrunkClasses:
    """An image scaled down to fit, of which each pixel takes the class of the nearest pixel on the canvas.

    For models that do not return probabilities. Borders of classes are then as coarse as the canvas.
    """

    windows, keys, maps = 1, ('classes', 'confidence'), True

    def __init__(self, image: np.ndarray, canvas: Size):
        self._size = image.shape[:2]
        self._small, self.scale = fitted(image, canvas)

    def window(self, number: int) -> np.ndarray:
        return self._small

    def prediction(self, results: Iterator[dict[str, np.ndarray]]) -> Iterator[Band]:
        result = next(results)
        rows, columns = (
            (2 * np.arange(side) + 1) * small // (2 * side)  # Of each centre; whole numbers, as halves would round.
            for side, small in zip(self._size, self._small.shape[:2], strict=True)
        )
        yield Band(0, *(result[key][rows][:, columns] for key in self.keys), None)


class Tiled:
    """Overlapping windows at the image's own scale, evenly spread, row by row.

    The weight of a window's prediction falls linearly from its centre to its border, where the model sees little of the
    surroundings. Weights are products of one factor per axis. So they are normalised in advance, to a sum of one over
    all windows of a pixel, and only the rows of one row of windows are in memory.
    """

    scale, keys, maps = 1.0, ('probabilities',), True

    def __init__(self, image: np.ndarray, canvas: Size, overlap: float):
        self._image = image
        self._rows, self._columns = (
            _Axis(own, side, overlap) for own, side in zip(image.shape[:2], canvas, strict=True)
        )
        self.windows = len(self._rows.starts) * len(self._columns.starts)

    def window(self, number: int) -> np.ndarray:
        row, column = divmod(number, len(self._columns.starts))
        top, left = self._rows.starts[row], self._columns.starts[column]
        return self._image[top : top + self._rows.side, left : left + self._columns.side]

    def prediction(self, results: Iterator[dict[str, np.ndarray]]) -> Iterator[Band]:
        rows, columns = self._rows, self._columns
        sums = None
        for row, top in enumerate(rows.starts):
            for column, left in enumerate(columns.starts):
                probabilities = next(results)['probabilities']
                if sums is None:
                    sums = np.zeros((rows.side, columns.length, probabilities.shape[-1]), np.float32)
                weights = rows.weights[row][:, None] * columns.weights[column]
                sums[:, left : left + columns.side] += weights[..., None] * probabilities
            end = rows.starts[row + 1] if row + 1 < len(rows.starts) else rows.length
            done = end - top  # No later window reaches these rows.
            step = _rows_per_band(*sums.shape[1:])
            for first in range(0, done, step):
                yield decided(top + first, sums[first : min(first + step, done)])
            sums[: rows.side - done] = sums[done:].copy()
            sums[rows.side - done :] = 0


class _Axis:
    """Windows along one axis.

    Attributes:
      length: length of the image, in pixels.
      side: length of a window, in pixels.
      starts: first pixels of the windows.
      weights: [side] float32 per window; their sum over all windows of a pixel is one.
    """

    def __init__(self, length: int, side: int, overlap: float):
        self.length, self.side = length, min(side, length)
        step = max(1, int(self.side * (1 - overlap)))
        count = -(-(length - self.side) // step) + 1
        self.starts = [round(i * (length - self.side) / max(count - 1, 1)) for i in range(count)]
        ramp = 1 - np.abs(2 * (np.arange(self.side) + 0.5) / self.side - 1)
        sums = np.zeros(length)
        for start in self.starts:
            sums[start : start + self.side] += ramp
        self.weights = [(ramp / sums[start : start + self.side]).astype(np.float32) for start in self.starts]


def decided(top: int, probabilities: np.ndarray) -> Band:
    """Returns the band of given probabilities, [rows, W, K]."""
    classes = probabilities.argmax(-1)
    confidence = np.take_along_axis(probabilities, classes[..., None], -1)[..., 0]
    return Band(top, classes, confidence, probabilities)


def upscaled(values: np.ndarray, size: Size, rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Scales maps bilinearly, in bands of rows.

    Output pixel p reads the input at (p + 1/2) * in / out - 1/2, clipped to its ends. This inverts the reduction of the
    image, which also aligns the outer edges.

    Args:
      values: [h, w, K] float32.
      size: (height, width) of the result.
      rows: number of rows of a band; None for as many as fit in a cache.

    Yields:
      (first row, [rows, width, K] float32), top to bottom. The numbers do not depend on `rows`.
    """
    rows = rows or _rows_per_band(size[1], values.shape[-1])
    upper, lower, down = _neighbours(values.shape[0], size[0])
    left, right, across = _neighbours(values.shape[1], size[1])
    for top in range(0, size[0], rows):
        here = slice(top, top + rows)
        lines = _between(values[upper[here]], values[lower[here]], down[here, None, None])
        yield top, _between(np.take(lines, left, axis=1), np.take(lines, right, axis=1), across[:, None])


def _neighbours(length: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output, returns its two neighbouring inputs and its fraction of the way between them."""
    source = np.clip((np.arange(out) + 0.5) * (length / out) - 0.5, 0, length - 1)
    first = source.astype(np.intp)
    return first, np.minimum(first + 1, length - 1), (source - first).astype(np.float32)


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Computes first + share * (second - first) in the memory of `second`."""
    second -= first
    second *= share
    second += first
    return second


def _rows_per_band(width: int, classes: int) -> int:
    return max(1, _BAND_BYTES // (4 * width * classes))
