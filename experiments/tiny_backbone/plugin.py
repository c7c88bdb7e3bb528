"""A backbone in one file: plain 3x3 convolutions, no residuals. Loaded by `import experiments.tiny_backbone.plugin`."""

from __future__ import annotations

import keras

from seg.layers.conv import AlignedConv2D
from seg.layers.norm import NormFactory
from seg.layers.pixel_norm import PixelNorm
from seg.registry import backbones


@backbones.register('tiny')
def tiny(*, output_stride: int, norm: NormFactory, channels: int = 24) -> keras.Model:
    """Five stages of two 3x3 convolutions each: 1.3 M weights at 24 channels.

    Args:
      output_stride: stride of c5; stages beyond it dilate instead.
      norm: makes the normalisation layers.
      channels: channels of the first stage; doubled in each stage up to the fourth.

    Returns:
      A model from [B, H, W, 3] RGB float 0..255 to maps c1 (stride 2), c2 (4), c3, c4, c5.
    """
    image = keras.Input((None, None, 3), name='image')
    x = PixelNorm(name='pixel_norm')(image)
    outputs, stride, dilation = {}, 1, 1
    for stage in range(1, 6):
        step = 2 if stride < output_stride else 1
        stride, width = stride * step, channels * 2 ** min(stage - 1, 3)
        for i in (1, 2):
            name = f'stage{stage}_{i}'
            x = AlignedConv2D(width, 3, strides=step if i == 1 else 1, dilation_rate=dilation, name=f'{name}_conv')(x)
            x = keras.layers.ReLU(name=f'{name}_relu')(norm(name=f'{name}_norm')(x))
            dilation *= 2 if step == 1 and i == 1 else 1  # The first convolution still reads the finer grid.
        outputs[f'c{stage}'] = x
    return keras.Model(image, outputs, name='tiny')
