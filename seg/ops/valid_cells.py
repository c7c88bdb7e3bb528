"""Cells of a feature map that belong to the image, where images of several sizes are padded to one canvas.

The result for an image must not depend on the padding of its canvas. If a map ends with the image, convolutions
pad with zeros. On a larger canvas, normalisation turns these zeros into `beta - mean * scale`, which the next
convolution would mix into the image. So layers that mix neighbouring cells handle the outside here: convolutions and
pooling read zeros outside of the image (`zero_outside`), upsampling repeats the last cells (`extended`), and group
statistics exclude the outside (`valid_cells`). Other values outside are never read.

The model sets the images' sizes once, `with images_on_canvas(size, canvas):` around its parts. Layers need no further
input, so backbones stay models of one image; without such a block, every cell is valid. Cell i of a stride-s map is
centred on pixel s * i (`seg.ops.conv`), and is valid if that pixel is in the image. The stride of a map follows from
its sides.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from keras import ops


class _ImagesOnCanvas:
    """Sizes [B, 2] int32 of images on a canvas; masks are made once for each size of map and dtype."""

    def __init__(self, size: Any, canvas: tuple[int, int]):
        self.size, self.canvas = size, canvas
        self._masks: dict[tuple, Any] = {}

    def counts(self, x: Any) -> tuple[Any, Any] | None:
        """Numbers of valid rows and columns [B] of a map; None for a single cell, or if no stride fits."""
        if len(x.shape) != 4 or None in x.shape[1:3] or tuple(x.shape[1:3]) == (1, 1):
            return None
        strides = [_stride(side, cells) for side, cells in zip(self.canvas, x.shape[1:3], strict=True)]
        if None in strides:
            return None
        size = ops.convert_to_tensor(self.size)
        return tuple((size[:, axis] + stride - 1) // stride for axis, stride in enumerate(strides))

    def mask(self, x: Any, dtype: Any) -> Any | None:
        """[B, h, w, 1]: 1 for valid cells, else 0; None if `counts` is."""
        key = (*x.shape[1:3], str(dtype))
        if key not in self._masks:
            self._masks[key] = None
            if (counts := self.counts(x)) is not None:
                rows, columns = (
                    ops.cast(ops.arange(side, dtype='int32') < count[:, None], dtype)
                    for side, count in zip(x.shape[1:3], counts, strict=True)
                )
                self._masks[key] = rows[:, :, None, None] * columns[:, None, :, None]
        return self._masks[key]


_CURRENT: contextvars.ContextVar[_ImagesOnCanvas | None] = contextvars.ContextVar('images_on_canvas', default=None)


@contextlib.contextmanager
def images_on_canvas(size: Any, canvas: tuple[int, int]) -> Iterator[None]:
    """Context in which maps belong to images of these sizes, at the top left of a canvas.

    Args:
      size: [B, 2] int32, height and width of each image in pixels.
      canvas: (height, width) of the canvas in pixels.
    """
    token = _CURRENT.set(_ImagesOnCanvas(size, tuple(canvas)))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def zero_outside(x: Any) -> Any:
    """Returns the map [B, h, w, C] with zeros in the cells outside of the images, as convolutions pad."""
    mask = valid_cells(x, x.dtype)
    return x if mask is None else x * mask


def valid_cells(x: Any, dtype: Any) -> Any | None:
    """Returns [B, h, w, 1], 1 for cells of the images and 0 outside; None if all cells of [B, h, w, C] are valid."""
    current = _CURRENT.get()
    return None if current is None else current.mask(x, dtype)


def extended(x: Any) -> Any:
    """Returns the map [B, h, w, C] with the images' last row and column repeated in the cell after them.

    Bilinear interpolation up to an image's last pixel then reads its last cells, as in a map that ends there.
    """
    current = _CURRENT.get()
    counts = None if current is None else current.counts(x)
    if counts is None:
        return x
    for axis, count in enumerate(counts, start=1):
        if x.shape[axis] > 1:
            cells = ops.reshape(ops.arange(x.shape[axis], dtype='int32'), (1, -1, 1, 1) if axis == 1 else (1, 1, -1, 1))
            before = ops.roll(x, 1, axis=axis)
            x = ops.where(cells == ops.reshape(count, (-1, 1, 1, 1)), before, x)
    return x


def _stride(side: int, cells: int) -> int | None:
    """Pixels per cell, so that cells = ceil(side / stride): a power of two if possible; None if no stride fits."""
    powers = [2**i for i in range(side.bit_length() + 1)]
    fitting = [stride for stride in (*powers, -(-side // cells)) if -(-side // stride) == cells]
    return fitting[0] if fitting else None
