"""The decoder of DeepLab v3+."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from seg.errors import UserError
from seg.layers.aspp import ASPP
from seg.layers.conv import ConvNorm, SeparableConvNorm
from seg.layers.norm import NormFactory
from seg.number_checks import check_counts, check_number, check_whole, check_widths
from seg.ops.resize import upsample_bilinear
from seg.registry import decoders
from seg.structures import BackboneSpec

RATES = {32: (3, 6, 9), 16: (6, 12, 18), 8: (12, 24, 36)}


@decoders.register('deeplab_v3plus')
def deeplab_v3plus(
    *,
    backbone: BackboneSpec,
    output_stride: int,
    norm: NormFactory,
    aspp_channels: int = 256,
    low_level_channels: int = 48,
    decoder_channels: int = 256,
    rates: tuple[int, ...] | None = None,
    separable: bool = False,
    dropout: float = 0.1,
    image_pooling: bool = True,
    detail_channels: int = 0,
) -> keras.layers.Layer:
    """DeepLab v3+ decoder: atrous spatial pyramid pooling, joined with a low-level map.

    Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018.

    Args:
      backbone: strides and channels of the backbone's maps; reads c5, and `low` or else c2.
      output_stride: stride of c5, in pixels.
      norm: makes the normalisation layers.
      aspp_channels: channels of each pyramid branch and of their projection.
      low_level_channels: channels that the low-level map is reduced to.
      decoder_channels: channels of the two 3x3 convolutions after the concatenation.
      rates: dilation rates of the 3x3 branches; None for 3, 6, 9 at output stride 32, twice that at 16, four times that
        at 8.
      separable: whether all 3x3 convolutions are depthwise separable.
      dropout: dropout rate after the pyramid's projection.
      image_pooling: whether the pyramid has a branch for the mean over the image.
      detail_channels: not in the paper: above 0, the result is reduced to this many channels, concatenated with as many
        from c1 at stride 2, and refined by one more 3x3 convolution, for poles and the like that are a few pixels wide.

    Returns:
      A layer from `(features, size, seed, training)` to `{'features': [B, H/4, W/4, decoder_channels]}`, or to
      `[B, H/2, W/2, detail_channels]` with details.

    Raises:
      UserError: if there are no rates for the output stride, or a setting is out of range.
    """
    slot = 'decoders.deeplab_v3plus'
    if rates is None:
        if output_stride not in RATES:
            known = ', '.join(map(str, sorted(RATES)))
            raise UserError(
                f'{slot}.rates = None: there are default rates for output strides {known}, not for {output_stride}; '
                'set them, or change the output stride.'
            )
        rates = RATES[output_stride]
    check_widths(slot, rates=rates)
    check_counts(
        slot,
        aspp_channels=aspp_channels,
        low_level_channels=low_level_channels,
        decoder_channels=decoder_channels,
    )
    check_number(f'{slot}.dropout', dropout, 0, 1, below=True)
    check_whole(f'{slot}.detail_channels', detail_channels, 0)
    if detail_channels and 'c1' not in backbone.features:
        raise UserError(
            f'{slot}.detail_channels = {detail_channels!r}: this backbone has no map c1; remove the setting.'
        )
    return DeepLabV3PlusDecoder(
        backbone,
        norm,
        aspp_channels=aspp_channels,
        low_level_channels=low_level_channels,
        decoder_channels=decoder_channels,
        rates=tuple(rates),
        separable=separable,
        dropout=dropout,
        image_pooling=image_pooling,
        detail_channels=detail_channels,
    )


class DeepLabV3PlusDecoder(keras.layers.Layer):
    """Concatenates the pyramid over c5 with a low-level map, at that map's stride, and on request with c1."""

    def __init__(
        self,
        backbone: BackboneSpec,
        norm: NormFactory,
        *,
        aspp_channels: int,
        low_level_channels: int,
        decoder_channels: int,
        rates: tuple[int, ...],
        separable: bool,
        dropout: float,
        image_pooling: bool,
        detail_channels: int,
    ):
        super().__init__(name='deeplab_v3plus_decoder')
        self.low = 'low' if 'low' in backbone.features else 'c2'
        self.factor = backbone['c5'].stride // backbone[self.low].stride
        self.aspp = ASPP(
            aspp_channels,
            rates,
            stride=backbone['c5'].stride,
            norm=norm,
            separable=separable,
            dropout=dropout,
            image_pooling=image_pooling,
            name='aspp',
        )
        self.low_level = ConvNorm(low_level_channels, 1, norm=norm, name='low_level')
        conv = SeparableConvNorm if separable else ConvNorm
        self.refine = [conv(decoder_channels, 3, norm=norm, name=f'refine{i}') for i in (1, 2)]
        self.has_detail = detail_channels > 0
        if self.has_detail:
            self.detail_factor = backbone[self.low].stride // backbone['c1'].stride
            self.reduce = ConvNorm(detail_channels, 1, norm=norm, name='reduce')
            self.detail = ConvNorm(detail_channels, 1, norm=norm, name='detail')
            self.refine_detail = conv(detail_channels, 3, norm=norm, name='refine_detail')

    def build(self, features_shape: dict[str, tuple]) -> None:
        high, low = features_shape['c5'], features_shape[self.low]
        self.aspp.build(high)
        self.low_level.build(low)
        joined = self.aspp.projection.conv.filters + self.low_level.conv.filters
        shape = (*low[:-1], joined)
        for conv in self.refine:
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
        if self.has_detail:
            self.reduce.build(shape)
            self.detail.build(features_shape['c1'])
            joined = self.detail.compute_output_shape(features_shape['c1'])
            self.refine_detail.build((*joined[:-1], 2 * joined[-1]))

    def call(self, features: dict[str, Any], size: Any, seed: Any = None, training: bool = False) -> dict[str, Any]:
        """Decodes.

        Args:
          features: the backbone's maps, [B, H/s, W/s, C] each.
          size: [B, 2] int32, height and width of the image within its padding, in pixels.
          seed: [B, 2] int32, seed of dropout; may be None when not training.
          training: whether to use dropout and the batch's statistics.

        Returns:
          `{'features': [B, H/4, W/4, decoder_channels]}`, or with details `[B, H/2, W/2, detail_channels]`.
        """
        low = self.low_level(features[self.low], training=training)
        high = self.aspp(features['c5'], size, seed=seed, training=training)
        x = ops.concatenate([upsample_bilinear(high, low.shape[1:3], self.factor), low], axis=-1)
        for conv in self.refine:
            x = conv(x, training=training)
        if self.has_detail:
            detail = self.detail(features['c1'], training=training)
            x = upsample_bilinear(self.reduce(x, training=training), detail.shape[1:3], self.detail_factor)
            x = self.refine_detail(ops.concatenate([x, detail], axis=-1), training=training)
        return {'features': x}
