"""A backbone for tests that need any: it has few layers, as each takes time to trace and to compile.

`tests.executor.runs.build` takes it unless a test names another one.
"""

from __future__ import annotations

import keras

from seg.backbones import resnet
from seg.layers.conv import AlignedConv2D
from seg.layers.norm import NormFactory
from seg.layers.pixel_norm import PixelNorm
from seg.registry import backbones


@backbones.register('small')
def small(*, output_stride: int, norm: NormFactory, channels: int = 8) -> keras.Model:
    """Five stages of one 3x3 convolution each.

    Args:
      output_stride: stride of c5; stages beyond it dilate instead.
      norm: maker of the normalisation layers.
      channels: of the first stage; twice as many of the others.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (stride 2), c2 (4), c3, c4, c5.
    """
    image = keras.Input((None, None, 3), name='image')
    x = PixelNorm(name='pixel_norm')(image)
    outputs, stride, dilation = {}, 1, 1
    for stage in range(1, 6):
        step = 2 if stride < output_stride else 1
        name, stride = f'stage{stage}', stride * step
        width = channels * min(stage, 2)
        x = AlignedConv2D(width, 3, strides=step, dilation_rate=dilation, name=f'{name}_conv')(x)
        x = keras.layers.ReLU(name=f'{name}_relu')(norm(name=f'{name}_norm')(x))
        dilation *= 2 if step == 1 else 1  # This convolution still reads the finer grid.
        outputs[f'c{stage}'] = x
    return keras.Model(image, outputs, name='small')


@backbones.register('small_bottlenecks')
def small_bottlenecks(*, output_stride: int, norm: NormFactory, width: float = 0.125) -> keras.Model:
    """A ResNet of one bottleneck block in each stage.

    Args:
      output_stride: 8, 16 or 32, stride of c5.
      norm: maker of the normalisation layers.
      width: multiplies all channels.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (stride 2), c2 (4), c3, c4, c5.
    """
    return resnet._resnet('resnet50', (1, 1, 1, 1), 'torchvision', output_stride, norm, None, 'conv7', width)
