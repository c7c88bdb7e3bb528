"""Which cells of a feature map belong to the picture, where pictures of several sizes lie on one canvas.

A picture's result must not depend on how far its canvas is padded. Where a map ends with the picture, convolutions pad
with zeros. On a larger canvas, normalisation makes `beta - mean * scale` of these zeros, which the next convolution
would mix into the picture. So whatever mixes neighbouring cells asks here first: convolutions and pooling read zeros
outside of the picture (`zero_outside`), upsampling continues its last cells (`extended`), group statistics leave out
what is outside (`valid_cells`). What is computed there otherwise is never read.

The model tells the pictures' sizes once, `with pictures(size, canvas):` around its parts. Layers need no further input,
so backbones stay models of one image; without such a block, nothing is outside. Cell i of a stride-s map is centred on
pixel s * i (`seg.ops.conv`), and is valid if that pixel is in the picture. The stride of a map is found from its sides.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from keras import ops


class _Pictures:
    """Sizes [B, 2] int32 of pictures on a canvas; the masks are made once for each size of map and dtype."""

    def __init__(self, size: Any, canvas: tuple[int, int]):
        self.size, self.canvas = size, canvas
        self._masks: dict[tuple, Any] = {}

    def counts(self, x: Any) -> tuple[Any, Any] | None:
        """Valid rows and columns [B] of a map, or None where it is no grid over the canvas, or a single cell."""
        if len(x.shape) != 4 or None in x.shape[1:3] or tuple(x.shape[1:3]) == (1, 1):
            return None
        strides = [_stride(side, cells) for side, cells in zip(self.canvas, x.shape[1:3], strict=True)]
        if None in strides:
            return None
        size = ops.convert_to_tensor(self.size)
        return tuple((size[:, axis] + stride - 1) // stride for axis, stride in enumerate(strides))

    def mask(self, x: Any, dtype: Any) -> Any | None:
        """[B, h, w, 1]: 1 for valid cells, else 0; None as `counts`."""
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


_CURRENT: contextvars.ContextVar[_Pictures | None] = contextvars.ContextVar('pictures', default=None)


@contextlib.contextmanager
def pictures(size: Any, canvas: tuple[int, int]) -> Iterator[None]:
    """Within this block, maps are of pictures of these sizes, at the top left of a canvas.

    Args:
      size: [B, 2] int32, height and width of each picture in pixels.
      canvas: (height, width) of the canvas in pixels.
    """
    token = _CURRENT.set(_Pictures(size, tuple(canvas)))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def zero_outside(x: Any) -> Any:
    """Returns the map [B, h, w, C] with zeros in the cells outside of the pictures, as convolutions pad."""
    mask = valid_cells(x, x.dtype)
    return x if mask is None else x * mask


def valid_cells(x: Any, dtype: Any) -> Any | None:
    """Returns [B, h, w, 1], 1 for cells of the pictures and 0 outside; None where all cells of [B, h, w, C] count."""
    current = _CURRENT.get()
    return None if current is None else current.mask(x, dtype)


def extended(x: Any) -> Any:
    """Returns the map [B, h, w, C] with the pictures' last row and column once more in the cell after them.

    Bilinear interpolation up to a picture's last pixel then reads its last cells, as it does where the map ends there.
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
    """Pixels per cell, such that cells = ceil(side / stride): a power of two if there is one; None if nothing fits."""
    powers = [2**i for i in range(side.bit_length() + 1)]
    fitting = [stride for stride in (*powers, -(-side // cells)) if -(-side // stride) == cells]
    return fitting[0] if fitting else None
