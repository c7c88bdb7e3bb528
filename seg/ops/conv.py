"""Convolution on a grid that does not depend on the size of the image."""

from __future__ import annotations

from typing import Any

from keras import ops

from seg.ops import dispatch


def conv2d(x: Any, kernel: Any, stride: int = 1, dilation: int = 1) -> Any:
    """Convolves with an odd kernel after padding both ends with equally many zeros.

    Output cell i is centred on input cell `stride * i` for every size. TensorFlow's SAME pads an even-sized map at its
    end only, which shifts that centre by half a stride between sizes. Published ImageNet weights (torchvision's and
    Keras') were trained with symmetric padding. With stride 1 the two are the same.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C / g, K] with odd k, for g groups of channels, each of which makes K / g channels of its own.
      stride: 1, or more with dilation 1.
      dilation: distance of the kernel's taps in cells.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), K].
    """
    if dilation > 1 and stride > 1:
        raise ValueError(f'A convolution strides or dilates, not both: stride {stride}, dilation {dilation}.')
    if kernel.shape[2] != x.shape[3]:
        return dispatch.grouped_conv(x, kernel, stride, dilation)
    if dilation > 1:
        return dispatch.atrous_conv(x, kernel, dilation)
    if stride == 1:
        return ops.conv(x, kernel, strides=1, padding='same')
    pad = (int(kernel.shape[0]) // 2, int(kernel.shape[1]) // 2)
    if any(pad):
        x = ops.pad(x, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0)))
    return ops.conv(x, kernel, strides=stride, padding='valid')


def depthwise_conv2d(x: Any, kernel: Any, stride: int = 1, dilation: int = 1) -> Any:
    """Convolves every channel separately, on the grid of `conv2d`.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C, 1] with odd k.
      stride: 1, or more with dilation 1.
      dilation: distance of the kernel's taps in cells.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C].
    """
    if dilation > 1 and stride > 1:
        raise ValueError(f'A convolution strides or dilates, not both: stride {stride}, dilation {dilation}.')
    return dispatch.depthwise_conv(x, kernel, stride, dilation)
