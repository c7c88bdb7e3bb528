"""The one door from model code to the backend: replicas, and kernels that pay for themselves.

Every function here has a neutral meaning, stated in its docstring and tested against plain `keras.ops`; what a backend
has no better way for is computed with `keras.ops`. Timings are of two Zen 5 cores under TensorFlow 2.21 with oneDNN,
forward and backward together.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops


def _on_tensorflow() -> bool:
    return keras.backend.backend() == 'tensorflow'


def num_replicas() -> int:
    """Returns how many replicas run the current step together; 1 outside of a replica's code.

    Under JAX it is 1 always: there a step is one program over the global batch, and its means are global by themselves.
    """
    if not _on_tensorflow():
        return 1
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context is not None else 1


def sum_over_replicas(x: Any) -> Any:
    """Returns the sum of `x` over all replicas; its gradient is summed over them likewise."""
    if num_replicas() == 1:
        return x
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def has_fused_batch_norm(dtype: str) -> bool:
    """Whether `fused_batch_norm` takes maps of this dtype (no kernel has float64)."""
    return _on_tensorflow() and dtype in ('float32', 'bfloat16', 'float16')


def fused_batch_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, training: bool) -> tuple:
    """Batch normalisation in one kernel: 10 ms against 30 ms on [2, 128, 128, 256], and 8 against 31 in bfloat16.

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
      being the biased one (the sum of squares divided by the count), which the kernel itself does not return.
    """
    import tensorflow as tf

    empty = tf.zeros([0], gamma.dtype)
    y, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=empty if training else mean,
        variance=empty if training else variance,
        epsilon=epsilon,
        is_training=training,
    )
    if not training:
        return y, mean, variance
    # The kernel's variance is sum / max(count - 1, 1), also for a single value per channel.
    count = tf.cast(tf.size(x) // tf.shape(x)[-1], gamma.dtype)
    return y, batch_mean, batch_variance * (tf.maximum(count - 1, 1) / count)


@functools.cache
def _has_accelerator() -> bool:
    import tensorflow as tf

    return any(device.device_type in ('GPU', 'TPU') for device in tf.config.list_logical_devices())


def atrous_conv(x: Any, kernel: Any, rate: int) -> Any:
    """Convolves with a dilated odd kernel, zero padding and stride 1: [B, H, W, C] -> [B, H, W, K].

    TensorFlow's own way on the CPU goes through a copy of the map into rate x rate small ones. Its plain kernel reads
    with strides and is 3 to 7 times faster (rate 12 on [2, 32, 32, 2048] -> 256: 92 ms against 334), but has no
    gradient of its own there. The gradient is therefore spelled out: that of the input is the same convolution with the
    flipped kernel, that of the kernel one product per tap, which also skips taps that lie outside of the map.
    """
    if _on_tensorflow() and None not in x.shape[1:3] and not _has_accelerator():
        return _atrous_conv_on_cpu(x, kernel, rate)
    return ops.conv(x, kernel, strides=1, padding='same', dilation_rate=rate)


def _atrous_conv_on_cpu(x: Any, kernel: Any, rate: int) -> Any:
    import tensorflow as tf

    def correlate(values: Any, weights: Any) -> Any:
        return tf.nn.conv2d(values, weights, strides=1, padding='SAME', dilations=rate)

    @tf.custom_gradient
    def convolve(x: Any, kernel: Any) -> tuple:
        def gradient(dy: Any) -> tuple:
            flipped = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
            return correlate(dy, flipped), _kernel_gradient(x, dy, kernel.shape, rate)

        return correlate(x, kernel), gradient

    return convolve(tf.convert_to_tensor(x), tf.convert_to_tensor(kernel))


def _kernel_gradient(x: Any, dy: Any, kernel_shape: tuple, rate: int) -> Any:
    """Returns, per tap, the product of the input shifted by the tap with the output's gradient."""
    import tensorflow as tf

    rows, columns, channels, filters = kernel_shape
    height, width = x.shape[1:3]
    taps = []
    for row in range(rows):
        for column in range(columns):
            down, right = (row - rows // 2) * rate, (column - columns // 2) * rate
            if abs(down) >= height or abs(right) >= width:
                taps.append(tf.zeros([channels, filters], x.dtype))
                continue
            seen = x[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
            made = dy[:, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
            seen, made = tf.reshape(seen, [-1, channels]), tf.reshape(made, [-1, filters])
            taps.append(tf.matmul(seen, made, transpose_a=True))
    return tf.reshape(tf.stack(taps), kernel_shape)


def depthwise_conv(x: Any, kernel: Any, stride: int, rate: int) -> Any:
    """Convolves every channel by itself with an odd kernel and symmetric zero padding, as `ops.conv.depthwise_conv2d`.

    TensorFlow's gradients on the CPU have slow corners: that of a strided input in bfloat16 (94 ms against 9 in float32
    on [8, 90, 120, 144], 5x5) and that of kernels above 3x3 (64 ms against 17 for four 3x3 pieces of it).
    """
    if _on_tensorflow() and None not in x.shape[1:3] and not _has_accelerator():
        return _atrous_depthwise_on_cpu(x, kernel, rate) if rate > 1 else _depthwise_on_cpu(x, kernel, stride)
    if stride > 1:
        rows, columns = (int(side) // 2 for side in kernel.shape[:2])
        x = ops.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
        return ops.depthwise_conv(x, kernel, strides=stride, padding='valid')
    return ops.depthwise_conv(x, kernel, strides=1, padding='same', dilation_rate=rate)


def _atrous_depthwise_on_cpu(x: Any, kernel: Any, rate: int) -> Any:
    """A dilated convolution is a plain one on each of the rate x rate interleaved grids of the map."""
    import tensorflow as tf

    height, width = x.shape[1:3]
    missing = [[0, -height % rate], [0, -width % rate]]
    grids = tf.space_to_batch(x, [rate, rate], missing)
    batch = tf.shape(grids)[0]
    grids = tf.ensure_shape(grids, [None, -(-height // rate), -(-width // rate), x.shape[3]])
    y = tf.reshape(_depthwise_on_cpu(grids, kernel, 1), [batch, *grids.shape[1:]])
    return tf.ensure_shape(tf.batch_to_space(y, [rate, rate], missing), x.shape)


def _depthwise_on_cpu(x: Any, kernel: Any, stride: int) -> Any:
    import tensorflow as tf

    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    borders = [[0, 0], [rows, rows], [columns, columns], [0, 0]]
    strides = [1, stride, stride, 1]
    if stride > 1:
        x = tf.pad(x, borders)
    padding = 'VALID' if stride > 1 else 'SAME'

    @tf.custom_gradient
    def convolve(x: Any, kernel: Any) -> tuple:
        def gradient(dy: Any) -> tuple:
            # The strided kernel has no fast form in half precision.
            exact = tf.float32 if stride > 1 and x.dtype.size < 4 else x.dtype
            dx = tf.nn.depthwise_conv2d_backprop_input(
                tf.shape(x), tf.cast(kernel, exact), tf.cast(dy, exact), strides, padding
            )
            seen = x if stride > 1 else tf.pad(x, borders)
            return tf.cast(dx, x.dtype), _depthwise_kernel_gradient(seen, dy, kernel.shape, stride)

        return tf.nn.depthwise_conv2d(x, kernel, strides, padding), gradient

    return convolve(tf.convert_to_tensor(x), tf.convert_to_tensor(kernel))


def _depthwise_kernel_gradient(padded: Any, dy: Any, kernel_shape: tuple, stride: int) -> Any:
    """Computes the gradient in pieces of at most 3x3 taps, for which there is a fast kernel."""
    import tensorflow as tf

    height, width = dy.shape[1:3]
    strides = [1, stride, stride, 1]

    def piece(row: int, column: int, rows: int, columns: int) -> Any:
        seen = padded[:, row : row + (height - 1) * stride + rows, column : column + (width - 1) * stride + columns]
        return tf.nn.depthwise_conv2d_backprop_filter(seen, [rows, columns, *kernel_shape[2:]], dy, strides, 'VALID')

    bands = []
    for row in range(0, kernel_shape[0], 3):
        rows = min(3, kernel_shape[0] - row)
        band = [piece(row, column, rows, min(3, kernel_shape[1] - column)) for column in range(0, kernel_shape[1], 3)]
        bands.append(tf.concat(band, axis=1))
    return tf.concat(bands, axis=0)
