"""Keras' layers that mix neighbouring cells, on the grid of this project.

Cell i of a stride-s map belongs to pixel s * i, and a side of n pixels has ceil(n / s) cells. Odd windows are therefore
centred on their cell, and windows that tile the map, such as patches, begin at it; what lies beyond the map or the
image (`seg.ops.valid_cells`) is padding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from seg.errors import UserError
from seg.layers.pixel_norm import PixelNorm
from seg.ops.conv import conv2d, depthwise_conv2d
from seg.ops.valid_cells import valid_cells, zero_outside


@dataclasses.dataclass(frozen=True)
class Window:
    """The window of a convolution or pooling layer, by axis.

    Attributes:
      size: cells of the window.
      strides: cells between two windows.
      dilation: cells between two taps of a window; 1 where the stride is not.
      tiles: whether the windows of the original layer tile the map.
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    tiles: bool

    @property
    def centred(self) -> bool:
        """Whether the window is one of `seg.ops.conv`: odd, and padded by equally many cells at both ends."""
        return not self.tiles and all(size % 2 for size in self.size)

    @property
    def alone(self) -> bool:
        """Whether a window is one cell, so that nothing is mixed."""
        return self.size == (1, 1)

    def cells(self, shape: tuple) -> tuple:
        """Height and width of the output."""
        return tuple(None if n is None else -(-n // s) for n, s in zip(shape, self.strides, strict=True))

    def pads(self, shape: tuple) -> tuple:
        """Cells before and after each axis of a map of this height and width."""
        return tuple(map(self._pads, shape, self.size, self.strides, self.dilation))

    def _pads(self, cells: int, size: int, stride: int, dilation: int) -> tuple[int, int]:
        reach = (size - 1) * dilation
        before = 0 if self.tiles else (size - 1) // 2 * dilation
        after = (-(-cells // stride) - 1) * stride + reach + 1 - cells - before
        return before, max(after, 0)

    def pad(self, x: Any, value: float = 0) -> Any:
        pads = self.pads(x.shape[1:3])
        if any(map(any, pads)):
            return ops.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)
        return x


class ReversedChannels(keras.layers.Layer):
    """RGB as BGR."""

    def call(self, x: Any) -> Any:
        return x[..., ::-1]

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape


def scaling(mean: Sequence[float], std: Sequence[float], reverse: bool = False) -> Callable[[Any], Any]:
    """Returns a function that scales an image as a model expects; `reverse` is for models that read BGR."""

    def scaled(image: Any) -> Any:
        x = PixelNorm(mean, std, name='pixel_norm')(image)
        return ReversedChannels(name='bgr')(x) if reverse else x

    return scaled


class FixedSize(keras.layers.Layer):
    """Refuses images of another size than the one that a model was made for."""

    def __init__(self, size: tuple[int, int], slot: str, name: str):
        super().__init__(name=name, autocast=False)
        self.size, self.slot = size, slot

    def call(self, image: Any) -> Any:
        if tuple(image.shape[1:3]) != self.size:
            raise UserError(
                f'{self.slot} was made for images of {self.size[0]} x {self.size[1]} pixels, and received '
                f'{tuple(image.shape[1:3])}. Set its image_size, the crops, and the sizes of evaluation and '
                'prediction to the same.'
            )
        return image

    def compute_output_shape(self, shape: tuple) -> tuple:
        return (shape[0], *self.size, shape[3])


class WindowPad(keras.layers.Layer):
    """Padding in front of a convolution that has none of its own."""

    def __init__(self, window: Window, name: str):
        super().__init__(name=name)
        self.window = window

    def call(self, x: Any) -> Any:
        return self.window.pad(zero_outside(x))

    def compute_output_shape(self, shape: tuple) -> tuple:
        if None in shape[1:3]:
            return (shape[0], None, None, shape[3])
        sides = (n + sum(pad) for n, pad in zip(shape[1:3], self.window.pads(shape[1:3]), strict=True))
        return (shape[0], *sides, shape[3])


class WindowConv2D(keras.layers.Conv2D):
    """Keras' convolution; `seg.ops.conv` computes it where it can."""

    def __init__(self, window: Window, **config: Any):
        super().__init__(**config)
        self.window = window

    def convolution_op(self, x: Any, kernel: Any) -> Any:
        x = x if self.window.alone else zero_outside(x)
        square = len({*zip(self.window.size, self.strides, self.dilation_rate, strict=True)}) == 1
        if self.window.centred and square and self.groups == self.filters == x.shape[-1]:
            return depthwise_conv2d(x, ops.swapaxes(kernel, 2, 3), self.strides[0], self.dilation_rate[0])
        if self.window.centred and square:
            return conv2d(x, kernel, self.strides[0], self.dilation_rate[0])
        if self.window.centred and self.strides == (1, 1):
            return ops.conv(x, kernel, strides=1, padding='same', dilation_rate=self.dilation_rate)
        return ops.conv(
            self.window.pad(x), kernel, strides=self.strides, padding='valid', dilation_rate=self.dilation_rate
        )

    def compute_output_shape(self, shape: tuple) -> tuple:
        return (shape[0], *self.window.cells(shape[1:3]), self.filters)


class WindowDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Keras' depthwise convolution; `seg.ops.conv` computes it where it can."""

    def __init__(self, window: Window, **config: Any):
        super().__init__(**config)
        self.window = window

    def call(self, x: Any) -> Any:
        x = x if self.window.alone else zero_outside(x)
        square = len({*zip(self.window.size, self.strides, self.dilation_rate, strict=True)}) == 1
        if self.window.centred and square and self.depth_multiplier == 1:
            x = depthwise_conv2d(x, ops.convert_to_tensor(self.kernel), self.strides[0], self.dilation_rate[0])
        elif self.window.centred and self.strides == (1, 1):
            x = ops.depthwise_conv(x, self.kernel, strides=1, padding='same', dilation_rate=self.dilation_rate)
        else:
            x = ops.depthwise_conv(
                self.window.pad(x),
                self.kernel,
                strides=self.strides,
                padding='valid',
                dilation_rate=self.dilation_rate,
            )
        x = ops.add(x, self.bias) if self.use_bias else x
        return x if self.activation is None else self.activation(x)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return (shape[0], *self.window.cells(shape[1:3]), self.depth_multiplier * shape[3])


class WindowPool2D(keras.layers.Layer):
    """Average or largest value of a window.

    An average counts the cells of the map and of the image only; unless the original layer had zeros put around its
    map, which count as cells.
    """

    def __init__(self, window: Window, kind: str, zeros: bool, name: str):
        super().__init__(name=name)
        self.window, self.kind, self.zeros = window, kind, zeros

    def call(self, x: Any) -> Any:
        if self.window.alone:
            return x[:, :: self.window.strides[0], :: self.window.strides[1]]
        mask = None if self.zeros else valid_cells(x, x.dtype)
        if self.kind == 'max':
            lowest = 0 if self.zeros else -1e30 if x.dtype != 'float16' else -6e4
            x = zero_outside(x) if self.zeros else x if mask is None else ops.where(mask > 0, x, lowest)
            return self._reduce(self.window.pad(x, lowest), 'max')
        total = self._reduce(self.window.pad(zero_outside(x)), 'average')
        if self.zeros or (mask is None and not any(map(any, self.window.pads(x.shape[1:3])))):
            return total
        cells = ops.ones_like(x[:, :, :, :1]) if mask is None else mask
        share = self._reduce(self.window.pad(cells), 'average')
        return total / ops.where(share > 0, share, ops.ones_like(share))

    def _reduce(self, x: Any, kind: str) -> Any:
        """Pools a padded map."""
        size, strides, dilation = self.window.size, self.window.strides, self.window.dilation
        if dilation == (1, 1):
            pool = ops.max_pool if kind == 'max' else ops.average_pool
            return pool(x, size, strides, padding='valid')
        height, width = (n - (k - 1) * d for n, k, d in zip(x.shape[1:3], size, dilation, strict=True))
        taps = [
            x[:, row : row + height : strides[0], column : column + width : strides[1]]
            for row in range(0, size[0] * dilation[0], dilation[0])
            for column in range(0, size[1] * dilation[1], dilation[1])
        ]
        combined = taps[0]
        for tap in taps[1:]:
            combined = ops.maximum(combined, tap) if kind == 'max' else combined + tap
        return combined if kind == 'max' else combined / len(taps)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return (shape[0], *self.window.cells(shape[1:3]), shape[3])


class GlobalPool2D(keras.layers.Layer):
    """Average over the cells of the image, in float32 or better."""

    def __init__(self, keepdims: bool, name: str):
        super().__init__(name=name)
        self.keepdims = keepdims

    def call(self, x: Any) -> Any:
        exact = keras.backend.result_type(x.dtype, 'float32')
        mask = valid_cells(x, exact)
        y = ops.cast(x, exact)
        if mask is None:
            y = ops.mean(y, axis=(1, 2), keepdims=self.keepdims)
        else:
            total = ops.sum(y * mask, axis=(1, 2), keepdims=self.keepdims)
            y = total / ops.sum(mask, axis=(1, 2), keepdims=self.keepdims)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return (shape[0], 1, 1, shape[3]) if self.keepdims else (shape[0], shape[3])
