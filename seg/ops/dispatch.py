"""The only place where model code uses a backend's own kernels, where these are faster.

Each function is defined by its docstring and tested against plain `keras.ops`, which it uses if a backend has no faster
kernel. The kernels, and their timings, are in `seg/ops/cpu_kernels.py`. Within `portable()` it always uses `keras.ops`.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import keras
from keras import ops

_PORTABLE: contextvars.ContextVar[bool] = contextvars.ContextVar('portable', default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Context in which functions are traced for other runtimes: without operations that only TensorFlow has.

    It must also be on while a traced function is saved, because saving may trace it again. Dilated convolutions then
    have the form that converters join into one operation, which is no slower than the kernels for inference.
    """
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)


def _on_tensorflow() -> bool:
    return keras.backend.backend() == 'tensorflow' and not _PORTABLE.get()


def _kernels() -> ModuleType:
    """Imported late, because it loads TensorFlow, which other backends do not need."""
    from seg.ops import cpu_kernels

    return cpu_kernels


def _on_cpu(x: Any = None) -> bool:
    """Whether TensorFlow has only the CPU, and, for a map `x`, its height and width are known."""
    known = x is None or None not in x.shape[1:3]
    return known and _on_tensorflow() and not _kernels().has_accelerator()


def has_fused_batch_norm(dtype: str) -> bool:
    """Whether `fused_batch_norm` takes maps of this dtype (no kernel has float64)."""
    return _on_tensorflow() and dtype in ('float32', 'bfloat16', 'float16')


def fused_batch_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, training: bool) -> tuple:
    """Batch normalisation in one kernel.

    Args:
      x: [B, H, W, C], static shape, float32 or a half precision.
      gamma: [C] float32.
      beta: [C] float32.
      mean: [C] float32, used unless training.
      variance: [C] float32, used unless training.
      epsilon: added to the variance.
      training: whether to use the batch's own statistics.

    Returns:
      `(y [B, H, W, C] in x's dtype, mean [C], variance [C])`. When training, the last two are the batch's, the variance
      being the unbiased one (the sum of squares divided by the count minus 1); `y` is made with the biased one.
    """
    return _kernels().fused_batch_norm(x, gamma, beta, mean, variance, epsilon, training)


def argmax(x: Any) -> Any:
    """Returns the index of the largest value along the last axis, int32; of equal values the first."""
    if keras.backend.backend() == 'tensorflow':  # Also where it must be portable: Keras' own reads the bits of floats.
        return _kernels().argmax(x)
    return ops.cast(ops.argmax(x, -1), 'int32')


def relu6(x: Any) -> Any:
    """Returns min(max(x, 0), 6)."""
    if keras.backend.standardize_dtype(x.dtype) == 'bfloat16' and _on_cpu():
        return _kernels().relu6(x)
    return ops.relu6(x)


def interpolate(x: Any, size: tuple[int, int], neutral: Callable[[Any], Any]) -> Any:
    """Returns `neutral(x)`, which reads [B, h, w, C] bilinearly at row `i * h / height` and column `j * w / width`."""
    if keras.backend.standardize_dtype(x.dtype) == 'float32' and _on_cpu(x):
        return _kernels().interpolate(x, size, neutral)
    return neutral(x)


def atrous_conv(x: Any, kernel: Any, rate: int) -> Any:
    """Convolves with a dilated odd kernel, zero padding and stride 1: [B, H, W, C] -> [B, H, W, K]."""
    if _on_cpu(x):
        return _kernels().atrous_conv(x, kernel, rate)
    return ops.conv(x, kernel, strides=1, padding='same', dilation_rate=rate)


def grouped_conv(x: Any, kernel: Any, stride: int, rate: int) -> Any:
    """Convolves groups of channels separately: [B, H, W, C] with [k, k, C / g, K] -> [B, ceil(H / s), ceil(W / s), K].

    The kernel is odd, its taps are `rate` cells apart (1 if the stride is not 1, which `ops.conv` checks), and the map
    has (k // 2) * rate zeros around it.
    """
    if _on_cpu(x):
        return _kernels().grouped_conv(x, kernel, stride, rate)
    if stride == 1:
        return ops.conv(x, kernel, strides=1, padding='same', dilation_rate=rate)
    rows, columns = (int(side) // 2 for side in kernel.shape[:2])
    x = ops.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    return ops.conv(x, kernel, strides=stride, padding='valid')


def depthwise_conv(x: Any, kernel: Any, stride: int, rate: int) -> Any:
    """Convolves every channel separately: [B, H, W, C] with [k, k, C, 1] -> [B, ceil(H / stride), ceil(W / stride), C].

    The kernel is odd, its taps are `rate` cells apart (1 if the stride is not 1, which `ops.conv` checks), and the map
    has (k // 2) * rate zeros around it.
    """
    if _on_cpu(x):
        return _kernels().depthwise_conv(x, kernel, stride, rate)
    if stride == 1:
        return ops.depthwise_conv(x, kernel, strides=1, padding='same', dilation_rate=rate)
    rows, columns = ((int(side) // 2) * rate for side in kernel.shape[:2])
    x = ops.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    return ops.depthwise_conv(x, kernel, strides=stride, padding='valid', dilation_rate=rate)


def weighted_rows(cells: Any, index: Any, weight: Any, neutral: Callable[[Any, Any, Any], Any]) -> Any:
    """Returns `neutral(cells, index, weight)`: sum over t of weight[k, t] * cells[index[k, t]].

    Args:
      cells: [M, C]; the gradient flows to it only.
      index: int32 [K, T].
      weight: [K, T] in a precision of at least float32.
      neutral: the same with `keras.ops`.

    Returns:
      [K, C] in the dtype of `cells`, summed in that of `weight`.
    """
    if _on_cpu() and not _kernels().within_xla():
        return _kernels().weighted_rows(cells, index, weight)
    return neutral(cells, index, weight)
