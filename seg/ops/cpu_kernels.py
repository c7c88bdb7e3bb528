"""TensorFlow kernels that are faster on a CPU. Loaded by `seg.ops.dispatch` only, and under TensorFlow only.

`dispatch` documents each function, and tests compare it with `keras.ops`. Timings are for two Zen 5 cores under
TensorFlow 2.21 with oneDNN, forward and backward together.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops as framework
from tensorflow.python.ops import control_flow_util


@functools.cache
def has_accelerator() -> bool:
    """Whether there is a device other than the CPU."""
    return any(device.device_type in ('GPU', 'TPU') for device in tf.config.list_logical_devices())


def within_xla() -> bool:
    """Whether a function is being traced under jit_compile=True; TensorFlow has no public API for it."""
    return bool(control_flow_util.GraphOrParentsInXlaContext(framework.get_default_graph()))


def _custom_gradient(function: Callable[..., tuple]) -> Callable[..., Any]:
    """As `tf.custom_gradient`, but a graph with such a function can be freed.

    TensorFlow registers the gradient of each call in a graph, and never removes it. The gradient refers to the graph,
    so every graph stays in memory with its constants. Here the graph holds the gradient, and the registry a weak
    reference.
    """

    def call(*tensors: Any) -> Any:
        result = tf.custom_gradient(function)(*tensors)
        if not tf.executing_eagerly():
            registered = framework.gradient_registry._registry[result.op.get_attr('_gradient_op_type').decode()]
            result.graph.get_collection_ref('custom_gradients').append(registered['type'])
            reference = weakref.ref(registered['type'])
            registered['type'] = lambda operation, *dy: reference()(operation, *dy)
        return result

    return call


def fused_batch_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, training: bool) -> tuple:
    """As `dispatch.fused_batch_norm`: 10 ms against 30 ms on [2, 128, 128, 256], and 8 against 31 in bfloat16."""
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
    return (y, batch_mean, batch_variance) if training else (y, mean, variance)


def argmax(x: Any) -> Any:
    """As `dispatch.argmax`.

    `keras.ops.argmax` searches for negative zeros first: 334 ms of CPU time against 94, together with the maximum
    itself, on [4, 513, 513, 21].
    """
    return tf.argmax(x, -1, output_type=tf.int32)


def relu6(x: Any) -> Any:
    """As `dispatch.relu6`.

    In bfloat16 TensorFlow's own kernel is slow. A minimum after a ReLU that is fused with the preceding normalisation
    takes, with it, 13 ms instead of 17 on [4, 184, 240, 96].
    """

    @_custom_gradient
    def limited(x: Any) -> tuple:
        y = tf.minimum(tf.nn.relu(x), tf.constant(6, x.dtype))
        return y, lambda dy: tf.raw_ops.Relu6Grad(gradients=dy, features=y)

    return limited(tf.convert_to_tensor(x))


def interpolate(x: Any, size: tuple[int, int], neutral: Callable[[Any], Any]) -> Any:
    """As `dispatch.interpolate`: 4 ms against 20 for two matrix products on [2, 128, 128, 21] -> 512 x 512, in float32.

    The gradient is computed by the products, which are as fast, and deterministic on every device.
    """

    @_custom_gradient
    def resize(x: Any) -> tuple:
        def gradient(dy: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = neutral(x)
            return tape.gradient(y, x, dy)

        return tf.raw_ops.ResizeBilinear(images=x, size=size), gradient

    return resize(tf.convert_to_tensor(x))


def atrous_conv(x: Any, kernel: Any, rate: int) -> Any:
    """As `dispatch.atrous_conv`.

    On the CPU, TensorFlow copies the map into rate x rate small maps. Its plain kernel, which reads with strides, is 3
    to 7 times faster (rate 12 on [2, 32, 32, 2048] -> 256: 92 ms against 334), but has no gradient there. So the
    gradient is written out: for the input, the same convolution with the flipped kernel; for the kernel, one product
    per tap, without the taps that lie outside of the map.
    """

    def correlate(values: Any, weights: Any) -> Any:
        return tf.nn.conv2d(values, weights, strides=1, padding='SAME', dilations=rate)

    @_custom_gradient
    def convolve(x: Any, kernel: Any) -> tuple:
        def gradient(dy: Any) -> tuple:
            flipped = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
            return correlate(dy, flipped), _kernel_gradient(x, dy, kernel.shape, rate)

        return correlate(x, kernel), gradient

    return convolve(tf.convert_to_tensor(x), tf.convert_to_tensor(kernel))


def _kernel_gradient(x: Any, dy: Any, kernel_shape: tuple, rate: int) -> Any:
    """Returns, per tap, the product of the input shifted by the tap with the output's gradient."""
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


def grouped_conv(x: Any, kernel: Any, stride: int, rate: int) -> Any:
    """As `dispatch.grouped_conv`.

    `keras.ops.conv` compiles groups with XLA: 32 groups on [2, 64, 64, 256] take 90 ms of CPU time and, with the
    gradient, 10,400; TensorFlow's kernel takes 10, but has no gradient without oneDNN or with dilation. Here the
    input's gradient is a grouped convolution of the output's, with zeros between its cells if there is a stride, and
    the kernel's is one product of all groups per tap: 46 ms together.
    """
    rows, columns, inputs, filters = kernel.shape
    height, width, channels = x.shape[1:]
    groups = channels // inputs
    outputs = filters // groups
    down, right = rows // 2 * rate, columns // 2 * rate

    def correlate(values: Any, weights: Any, stride: int) -> Any:
        if stride > 1:
            values = tf.pad(values, ((0, 0), (down, down), (right, right), (0, 0)))
        return tf.nn.conv2d(values, weights, stride, 'VALID' if stride > 1 else 'SAME', dilations=rate)

    def input_gradient(dy: Any, kernel: Any) -> Any:
        flipped = tf.reshape(tf.reverse(kernel, [0, 1]), [rows, columns, inputs, groups, outputs])
        flipped = tf.reshape(tf.transpose(flipped, [0, 1, 4, 3, 2]), [rows, columns, outputs, channels])
        if stride > 1:
            high, wide = dy.shape[1:3]
            apart = ((0, 0), (0, 0), (0, stride - 1), (0, 0), (0, stride - 1), (0, 0))
            dy = tf.pad(dy[:, :, None, :, None], apart)
            dy = tf.reshape(dy, [-1, high * stride, wide * stride, filters])[:, :height, :width]
        return correlate(dy, flipped, 1)

    def kernel_gradient(x: Any, dy: Any) -> Any:
        high, wide = dy.shape[1:3]
        # Maps of every stride-th cell, [groups, inputs, B, rows, columns], whose parts are contiguous.
        maps = tf.transpose(tf.reshape(x, [-1, height, width, groups, inputs]), [3, 4, 0, 1, 2])
        borders = (
            (before, before + -(side + 2 * before) % stride) for before, side in ((down, height), (right, width))
        )
        maps = tf.pad(maps, ((0, 0), (0, 0), (0, 0), *borders))
        maps = tf.reshape(maps, [groups, inputs, -1, maps.shape[3] // stride, stride, maps.shape[4] // stride, stride])
        made = tf.transpose(tf.reshape(dy, [-1, groups, outputs]), [1, 0, 2])
        taps = []
        for top in range(0, rows * rate, rate):
            for left in range(0, columns * rate, rate):
                part = maps[:, :, :, :, top % stride, :, left % stride]
                seen = part[:, :, :, top // stride : top // stride + high, left // stride : left // stride + wide]
                taps.append(tf.matmul(tf.reshape(seen, [groups, inputs, -1]), made))
        return tf.reshape(tf.transpose(tf.stack(taps), [0, 2, 1, 3]), kernel.shape)

    @_custom_gradient
    def convolve(x: Any, kernel: Any) -> tuple:
        return correlate(x, kernel, stride), lambda dy: (input_gradient(dy, kernel), kernel_gradient(x, dy))

    return convolve(tf.convert_to_tensor(x), tf.convert_to_tensor(kernel))


def depthwise_conv(x: Any, kernel: Any, stride: int, rate: int) -> Any:
    """As `dispatch.depthwise_conv`; dilated ones on the rate x rate maps of every rate-th cell.

    TensorFlow also does so, but pads before it splits the map: at rate 12 on [2, 32, 32, 2048], 60 x 60 cells instead
    of 36 x 36 (20 ms against 6, in bfloat16 10 against 3, forward). Taps that always lie outside of the map are
    omitted; at rate 36, one of nine remains, and the map is not split.
    """
    x, kernel = tf.convert_to_tensor(x), tf.convert_to_tensor(kernel)
    if rate == 1:
        return _depthwise_core(x, kernel, stride)
    height, width = x.shape[1:3]
    rows, columns = (
        slice(side // 2 - reach, side // 2 + reach + 1)
        for side, length in zip(kernel.shape[:2], (height, width), strict=True)
        for reach in [min(side // 2, (length - 1) // rate)]
    )
    kernel = kernel[rows, columns]
    if tuple(kernel.shape[:2]) == (1, 1):
        return _depthwise_core(x, kernel, stride)
    fill = [[0, -height % rate], [0, -width % rate]]
    maps = tf.space_to_batch(x, [rate, rate], fill)
    return tf.batch_to_space(_depthwise_core(maps, kernel, 1), [rate, rate], fill)


def _depthwise_core(x: Any, kernel: Any, stride: int) -> Any:
    """Depthwise convolution without dilation, with its gradient written out.

    Two parts of the kernels' own gradient are slow. The input's at stride 2 in bfloat16: 29 ms on [4, 180, 240, 96],
    against 5 here by 4 small convolutions for the even and odd rows and columns. The kernel's, if it has more than 3
    columns: 15 ms for 5 x 5 on [4, 23, 30, 672] in bfloat16 and 7 in float32, against 1.4 and 2.4 here by a 5 x 3 and
    a 5 x 2 kernel.

    The forward kernel also accepts explicit borders, but then TensorFlow 2.21 aborts the process with a failed check
    when it fuses the convolution with an added offset. In a gradient nothing is added.
    """
    height, width = x.shape[1:3]
    rows, columns = kernel.shape[:2]
    top, left = rows // 2, columns // 2
    borders = ((0, 0), (top, top), (left, left), (0, 0))

    def correlate(values: Any, weights: Any, stride: int, padding: str, **borders: list) -> Any:
        return tf.raw_ops.DepthwiseConv2dNative(
            input=values, filter=weights, strides=[1, stride, stride, 1], padding=padding, **borders
        )

    def kernel_gradient(x: Any, dy: Any) -> Any:
        """If the stride is 1, `x` has no borders."""

        def part(x: Any, count: int, padding: str) -> Any:
            return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=x,
                filter_sizes=[rows, count, *kernel.shape[2:]],
                out_backprop=dy,
                strides=[1, stride, stride, 1],
                padding=padding,
            )

        # The fast kernel needs a map at least as large as itself.
        if stride == 1 and columns <= 3 and height >= rows and width >= columns:
            return part(x, columns, 'SAME')
        if stride == 1:
            x = tf.pad(x, borders)
        high, wide = ((side - 1) * stride for side in dy.shape[1:3])
        starts = {first: min(3, columns - first) for first in range(0, columns, 3)}
        return tf.concat(
            [
                part(x[:, : high + rows, first : first + wide + count], count, 'VALID')
                for first, count in starts.items()
            ],
            1,
        )

    def input_gradient(dy: Any, kernel: Any) -> Any:
        if stride == 1:
            return correlate(dy, tf.reverse(kernel, [0, 1]), 1, 'SAME')
        if stride == 2 and dy.dtype.size == 2 and min(rows, columns) > 1:
            maps = [[phase(dy, kernel, row, column) for column in range(2)] for row in range(2)]
            # Columns next to each other, then rows: [B, h, 2, w, 2 * C].
            maps = tf.stack([tf.concat(pair, -1) for pair in maps], 2)
            maps = tf.reshape(maps, [-1, 2 * dy.shape[1], 2 * dy.shape[2], dy.shape[3]])
            return maps[:, :height, :width]
        padded = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
            input_sizes=[tf.shape(dy)[0], height + 2 * top, width + 2 * left, dy.shape[3]],
            filter=kernel,
            out_backprop=dy,
            strides=[1, stride, stride, 1],
            padding='VALID',
        )
        return padded[:, top : top + height, left : left + width]

    def phase(dy: Any, kernel: Any, row: int, column: int) -> Any:
        """Gradient of every second input cell: cell 2 i + row meets output i + (row + top - tap) / 2."""
        explicit = [0, 0]
        for centre, side in ((row + top, rows), (column + left, columns)):
            taps = range(centre % 2, side, 2)
            explicit += [(taps[-1] - centre) // 2, (centre - taps[0]) // 2]
        part = kernel[(row + top) % 2 :: 2, (column + left) % 2 :: 2]
        return correlate(dy, tf.reverse(part, [0, 1]), 1, 'EXPLICIT', explicit_paddings=[*explicit, 0, 0])

    @_custom_gradient
    def convolve(x: Any, kernel: Any) -> tuple:
        if stride > 1:
            x = tf.pad(x, borders)

        def gradient(dy: Any) -> tuple:
            return input_gradient(dy, kernel), kernel_gradient(x, dy)

        return correlate(x, kernel, stride, 'VALID' if stride > 1 else 'SAME'), gradient

    return convolve(x, kernel)


def weighted_rows(cells: Any, index: Any, weight: Any) -> Any:
    """As `dispatch.weighted_rows`: one product with a sparse matrix, whose gradient is the product with its transpose.

    Both are parallel over rows of their result, so the gradient has the same bits every time.
    (`tf.image.crop_and_resize`, which could do the same per map, loses updates in its gradient: two threads add to one
    cell without a lock.) Neither XLA nor other backends have these kernels.
    """
    dtype = tf.convert_to_tensor(cells).dtype
    rows, taps = index.shape[0] or tf.shape(index)[0], index.shape[1]
    places = tf.stack([tf.repeat(tf.range(rows), taps), tf.reshape(index, [-1])], axis=-1)
    matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.cast(places, tf.int64),
        values=tf.reshape(weight, [-1]),
        dense_shape=tf.cast([rows, tf.shape(cells)[0]], tf.int64),
    )

    @_custom_gradient
    def product(cells: Any) -> tuple:
        def gradient(dy: Any) -> Any:
            transposed = tf.raw_ops.SparseMatrixTranspose(input=matrix, type=weight.dtype)
            back = tf.raw_ops.SparseMatrixMatMul(a=transposed, b=tf.cast(dy, weight.dtype))
            return tf.ensure_shape(tf.cast(back, dtype), cells.shape)

        out = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=tf.cast(cells, weight.dtype))
        return tf.ensure_shape(tf.cast(out, dtype), [index.shape[0], cells.shape[1]]), gradient

    return product(tf.convert_to_tensor(cells))
