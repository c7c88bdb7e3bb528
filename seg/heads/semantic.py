"""Heads that classify every cell of a feature map."""

from __future__ import annotations

from typing import Any

import keras

from seg.layers.conv import ConvNorm
from seg.layers.dropout import Dropout
from seg.layers.norm import NormFactory
from seg.number_checks import check_counts, check_number
from seg.registry import heads
from seg.structures import ClassRows


@heads.register('semantic')
def semantic(*, num_classes: int) -> keras.layers.Layer:
    """Semantic logits by one 1x1 convolution.

    Args:
      num_classes: channels of the result.

    Returns:
      A layer from [B, h, w, C] to logits [B, h, w, num_classes], float32 or better.
    """
    return SemanticHead(num_classes, name='semantic_head')


@heads.register('fcn')
def fcn(*, num_classes: int, norm: NormFactory, channels: int = 256, dropout: float = 0.1) -> keras.layers.Layer:
    """Fully convolutional head: 3x3 convolution, dropout, logits; usual as an auxiliary head.

    Args:
      num_classes: channels of the result.
      norm: makes the normalisation layer.
      channels: channels of the 3x3 convolution.
      dropout: dropout rate before the logits.

    Returns:
      A layer from [B, h, w, C] to logits [B, h, w, num_classes], float32 or better.

    Raises:
      UserError: if a setting is out of range.
    """
    check_counts('heads.fcn', channels=channels)
    check_number('heads.fcn.dropout', dropout, 0, 1, below=True)
    return FCNHead(num_classes, norm, channels, dropout, name='fcn_head')


class SemanticHead(keras.layers.Layer):
    """A 1x1 convolution with a bias, computed in float32 or better."""

    def __init__(self, num_classes: int, *, name: str):
        super().__init__(name=name)
        exact = keras.backend.result_type(self.compute_dtype, 'float32')
        self.logits = keras.layers.Conv2D(
            num_classes,
            1,
            # Small, so that training starts from near-uniform probabilities.
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.01),
            dtype=exact,
            name='logits',
        )

    def build(self, x_shape: tuple) -> None:
        self.logits.build(x_shape)

    def class_rows(self) -> dict[str, ClassRows]:
        return {variable.path: ClassRows() for variable in self.logits.variables}

    def call(self, x: Any, seed: Any = None, training: bool = False) -> Any:
        """Maps [B, h, w, C] to logits [B, h, w, num_classes]; neither seed nor training matters."""
        return self.logits(x)


class FCNHead(keras.layers.Layer):
    """3x3 convolution, normalisation, ReLU, dropout, then logits."""

    def __init__(self, num_classes: int, norm: NormFactory, channels: int, dropout: float, *, name: str):
        super().__init__(name=name)
        self.conv = ConvNorm(channels, 3, norm=norm, name='conv')
        self.dropout = Dropout(dropout, name='fcn_head_dropout')
        self.classify = SemanticHead(num_classes, name='classify')

    def build(self, x_shape: tuple) -> None:
        self.conv.build(x_shape)
        self.classify.build(self.conv.compute_output_shape(x_shape))

    def class_rows(self) -> dict[str, ClassRows]:
        return self.classify.class_rows()

    def call(self, x: Any, seed: Any = None, training: bool = False) -> Any:
        """Maps [B, h, w, C] to logits [B, h, w, num_classes]; `seed` [B, 2] int32 is needed when training."""
        x = self.conv(x, training=training)
        return self.classify(self.dropout(x, seed=seed, training=training))
