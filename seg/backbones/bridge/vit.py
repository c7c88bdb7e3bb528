"""The simple feature pyramid of ViTDet: maps of several strides from the last map of a plain transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from seg.backbones.bridge.rewrite import LEVELS, Source, Walk, check_stride, entry, finished, fresh_names
from seg.errors import UserError
from seg.layers.norm import NormFactory

NAME = 'pyramid_'  # Of the layers that are added.


def with_pyramid(
    source: Source, pixels: Callable[[Any], Any], output_stride: int, norm: NormFactory, patch: int, channels: int
) -> keras.Model:
    """Returns a backbone from [B, H, W, 3] RGB 0..255 to c2 to c5, none coarser than the output stride.

    Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022: the last map is scaled
    to each stride by transposed convolutions or pooling; then come a 1x1 and a 3x3 convolution, each with layer
    normalisation.

    Args:
      source: a transformer; its last output is [B, tokens, C], those of the patches last.
      pixels: scales the image as the model expects.
      output_stride: 8, 16 or 32.
      norm: makes the normalisation layers, if the transformer has any of a batch's statistics.
      patch: side of a patch in pixels, 16.
      channels: of each map.

    Raises:
      UserError: if the output stride is no such number.
    """
    check_stride(source, output_stride)
    rows, columns = (side // patch for side in source.model.inputs[0].shape[1:3])
    tokens = source.model.outputs[-1]
    if tokens.shape[1] < rows * columns:
        raise UserError(f'{source.slot}: the model gives {tokens.shape[1]} tokens for {rows} x {columns} patches.')
    with fresh_names():
        image, x = entry(source, pixels)
        walk = Walk(source, 32, norm)
        walk.run(x)
        x = walk.tensors[id(tokens)][:, tokens.shape[1] - rows * columns :]
        x = layers.Reshape((rows, columns, tokens.shape[-1]), name=f'{NAME}map')(x)
        maps = {level: _level(x, patch, min(stride, output_stride), channels, f'{NAME}{level}')
                for stride, level in LEVELS.items() if stride >= 4}  # fmt: skip
        return finished(source, image, maps)


def _level(x: Any, stride: int, wanted: int, channels: int, name: str) -> Any:
    step = 1
    while stride > wanted:
        x = layers.Conv2DTranspose(x.shape[-1] // 2, 2, strides=2, name=f'{name}_up{step}')(x)
        stride //= 2
        if stride > wanted:
            x = layers.LayerNormalization(epsilon=1e-6, name=f'{name}_up{step}_norm')(x)
            x = layers.Activation('gelu', name=f'{name}_up{step}_gelu')(x)
        step += 1
    if stride < wanted:
        x = layers.MaxPooling2D(wanted // stride, padding='same', name=f'{name}_pool')(x)
    x = layers.Conv2D(channels, 1, use_bias=False, name=f'{name}_conv1')(x)
    x = layers.LayerNormalization(epsilon=1e-6, name=f'{name}_norm1')(x)
    x = layers.Conv2D(channels, 3, padding='same', use_bias=False, name=f'{name}_conv2')(x)
    return layers.LayerNormalization(epsilon=1e-6, name=f'{name}_norm2')(x)
