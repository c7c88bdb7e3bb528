"""Mask head: the pixels of the instance within each box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from seg.heads import torchvision_weights
from seg.layers.conv_bias import ConvStack
from seg.layers.norm import NormFactory
from seg.number_checks import check_counts, check_widths
from seg.ops.roi_align import roi_align
from seg.registry import heads
from seg.structures import ClassRows, Published


@heads.register('mask')
def mask(
    *,
    num_classes: int,
    norm: NormFactory,
    convs: tuple[int, ...] = (256, 256, 256, 256),
    deconv: int = 256,
    use_norm: bool = False,
    roi_size: int = 14,
    sampling_ratio: int = 2,
    aligned: bool = False,
    class_agnostic: bool = False,
) -> keras.layers.Layer:
    """Mask head: a small mask for each box and class, by convolutions and one doubling of the resolution.

    He et al., "Mask R-CNN", ICCV 2017.

    Args:
      num_classes: classes, without background.
      norm: makes the normalisation layers.
      convs: channels of the 3x3 convolutions.
      deconv: channels of the transposed convolution that doubles the resolution.
      use_norm: whether the convolutions have a normalisation in place of a bias.
      roi_size: bins per side of a box's features; masks have twice as many cells.
      sampling_ratio: samples per side of a bin; 1 in the TPU release.
      aligned: whether ROIAlign takes a cell's value at its middle, half a cell further than where convolutions with
        symmetric padding centre it.
      class_agnostic: whether there is one mask for all classes instead of one for each.

    Returns:
      The layer, see `MaskHead`.

    Raises:
      UserError: if a setting is out of range.
    """
    check_counts('heads.mask', deconv=deconv, roi_size=roi_size, sampling_ratio=sampling_ratio)
    check_widths('heads.mask', convs=convs)
    fan_out = keras.initializers.VarianceScaling(2.0, 'fan_out')
    layer = MaskHead(
        num_classes,
        ConvStack(convs, norm if use_norm else None, kernel_initializer=fan_out, name='convs'),
        deconv=deconv,
        roi={'size': roi_size, 'sampling_ratio': sampling_ratio, 'aligned': aligned},
        class_agnostic=class_agnostic,
    )
    layer.published = Published(
        title='the mask head of a torchvision detector',
        convert=lambda tensors: torchvision_weights.mask_head(
            tensors, 1 if class_agnostic else num_classes, len(convs)
        ),
        class_names=lambda tensors: torchvision_weights.class_names(tensors, num_classes),
    )
    return layer


class MaskHead(keras.layers.Layer):
    """Convolutions, a 2x2 transposed convolution, and the mask of one class.

    Only the channel of the region's class is computed: with 90 classes that saves more than the transposed convolution
    costs.

    Attributes:
      size: cells per side of a mask.
    """

    def __init__(self, num_classes: int, convs: ConvStack, *, deconv: int, roi: dict[str, Any], class_agnostic: bool):
        # Without autocast: bfloat16 would round boxes.
        super().__init__(name='mask_head', autocast=False)
        self.exact = keras.backend.result_type(self.compute_dtype, 'float32')
        self.convs = convs
        self.roi = roi
        self.size = 2 * roi['size']
        self.deconv = Deconv(deconv, name='deconv')
        self.class_agnostic = class_agnostic
        self.classify = MaskLogits(1 if class_agnostic else num_classes, dtype=self.exact, name='mask_logits')

    def build(self, map_shape: tuple) -> None:
        """Makes the variables for maps of this shape, [B, h, w, C]."""
        shape = (None, self.roi['size'], self.roi['size'], map_shape[-1])
        self.convs.build(shape)
        self.deconv.build(self.convs.compute_output_shape(shape))
        self.classify.build((None, None, None, self.deconv.filters))

    def class_rows(self) -> dict[str, ClassRows]:
        return {} if self.class_agnostic else {v.path: ClassRows(axis=0) for v in self.classify.variables}

    def crop(self, maps: Sequence[Any], strides: Sequence[int], boxes: Any) -> Any:
        """Pools the features of boxes [B, R, 4] from maps p2, p3, …: [B, R, roi_size, roi_size, C]."""
        return roi_align(maps, boxes, strides, **self.roi)

    def call(self, crops: Any, classes: Any, training: bool = False) -> Any:
        """Predicts the masks of regions, each for one class.

        Args:
          crops: [B, R, roi_size, roi_size, C], as `crop` returns them.
          classes: int32 [B, R], 0 to K - 1; the mask of a negative class is undefined.
          training: whether to use the batch's statistics.

        Returns:
          Logits [B, R, size, size], float32 or better.
        """
        regions, side = crops.shape[1], self.roi['size']
        x = self.convs(ops.reshape(crops, (-1, *crops.shape[2:])), training=training)
        x = ops.reshape(self.deconv(x), (-1, regions, side * side * 4, self.deconv.filters))
        x = ops.reshape(self.classify(x, classes), (-1, regions, side, side, 2, 2))
        # Interleaved last, when a cell has one number instead of `deconv` many.
        return ops.reshape(ops.transpose(x, (0, 1, 2, 4, 3, 5)), (-1, regions, self.size, self.size))


class Deconv(keras.layers.Layer):
    """2x2 transposed convolution with stride 2 and ReLU, computed as one matrix product per cell.

    The four sub-pixels of a cell stay in the channel axis; `MaskHead.call` interleaves them.
    """

    def __init__(self, filters: int, *, name: str):
        super().__init__(name=name)
        self.filters = filters

    def build(self, x_shape: tuple) -> None:
        # He's initializer by fan out; units are (row, column, filter).
        initializer = keras.initializers.VarianceScaling(2.0, 'fan_out')
        self.kernel = self.add_weight(shape=(x_shape[-1], 4 * self.filters), initializer=initializer, name='kernel')
        self.bias = self.add_weight(shape=(self.filters,), initializer='zeros', name='bias')

    def call(self, x: Any) -> Any:
        """Maps [..., C] to [..., 4 * filters]: the cells (0, 0), (0, 1), (1, 0) and (1, 1) in place of each."""
        return ops.relu(ops.matmul(x, self.kernel) + ops.tile(self.bias, 4))


class MaskLogits(keras.layers.Layer):
    """A 1x1 convolution that computes, for each region, the channel of its class."""

    def __init__(self, channels: int, *, dtype: Any, name: str):
        super().__init__(dtype=dtype, name=name)
        self.channels = channels

    def build(self, x_shape: tuple) -> None:
        self.kernel = self.add_weight(
            shape=(self.channels, x_shape[-1]),
            # Small, so that training starts from masks of about 1/2.
            initializer=keras.initializers.RandomNormal(stddev=0.001),
            name='kernel',
        )
        self.bias = self.add_weight(shape=(self.channels,), initializer='zeros', name='bias')

    def call(self, x: Any, classes: Any) -> Any:
        """Maps [B, R, n, C], for classes int32 [B, R], to [B, R, n]."""
        if self.channels == 1:
            kernel, bias = self.kernel, self.bias
            return ops.einsum('brnc,c->brn', x, kernel[0]) + bias[0]
        # Products with one-hot rows: their gradients are sums in a fixed order, unlike the gradient of a gather.
        chosen = ops.one_hot(classes, self.channels, dtype=self.compute_dtype)
        kernel = ops.matmul(chosen, self.kernel)
        bias = ops.matmul(chosen, ops.expand_dims(self.bias, -1))
        return ops.matmul(x, ops.expand_dims(kernel, -1))[..., 0] + bias
