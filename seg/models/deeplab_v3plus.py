"""DeepLab v3+: backbone, decoder and heads wired together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from seg.errors import UserError
from seg.layers.norm import NormFactory
from seg.models.base import SegmentationModel
from seg.models.parts import build_backbone, call_decoder, call_head
from seg.ops.resize import upsample_bilinear
from seg.ops.valid_cells import images_on_canvas
from seg.registry import Factory, backbones, decoders, heads, models
from seg.structures import SYMBOLIC_SIDE, BackboneSpec


@models.register('deeplab_v3plus')
def deeplab_v3plus(
    *,
    num_classes: int,
    backbone: Callable,
    decoder: Callable,
    head: Callable,
    aux_head: Callable | None = None,
    output_stride: int = 16,
    norm: str = 'sync',
    norm_momentum: float = 0.99,
    norm_epsilon: float = 1e-5,
    multi_grid: tuple[int, ...] | None = None,
) -> keras.Model:
    """DeepLab v3+: semantic segmentation by a dilated backbone, a pyramid and a light decoder.

    Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018.

    Args:
      num_classes: channels of the logits.
      backbone: reference to a backbone.
      decoder: reference to a decoder that returns a map named `features`.
      head: reference to a head on that map.
      aux_head: reference to an auxiliary head on c4, used in training only, or None.
      output_stride: stride of the backbone's last map, in pixels.
      norm: 'sync', 'frozen' or 'group', see `seg.layers.norm`.
      norm_momentum: momentum of the moving statistics; 0.9 for runs of a few hundred steps.
      norm_epsilon: added to variances.
      multi_grid: dilation factors of the blocks of the backbone's last stage, such as (1, 2, 4), or None.

    Returns:
      The model, built: see `DeepLabV3Plus`.

    Raises:
      UserError: if a setting is out of range, or a reference is of another kind.
    """
    slot = 'models.deeplab_v3plus'
    norm_factory = NormFactory(norm, momentum=norm_momentum, epsilon=norm_epsilon, slot=slot)
    settings = {'output_stride': output_stride, 'norm': norm_factory}
    if multi_grid is not None:
        settings['multi_grid'] = tuple(multi_grid)
        entry = backbones.check(backbone, f'{slot}.backbone').entry
        if 'multi_grid' not in entry.supplied:
            raise UserError(
                f'{slot}.multi_grid = {multi_grid!r}: {entry.reference} has no multi-grid; remove the setting.'
            )
    net, spec = build_backbone(backbone, f'{slot}.backbone', **settings)
    factories = {'decoder': decoders.check(decoder, f'{slot}.decoder'), 'head': heads.check(head, f'{slot}.head')}
    if aux_head is not None:
        factories['aux_head'] = heads.check(aux_head, f'{slot}.aux_head')
    of_decoder, of_head = {'backbone': spec, 'output_stride': output_stride}, {'num_classes': num_classes}
    made = {
        name: factory.make(keras.layers.Layer, norm=norm_factory, **(of_decoder if name == 'decoder' else of_head))
        for name, factory in factories.items()
    }
    return DeepLabV3Plus(net, **made, spec=spec, num_classes=num_classes, factories=factories)


class DeepLabV3Plus(SegmentationModel):
    """From a batch of images to logits at their resolution.

    Attributes:
      parts: backbone, decoder, head and, if there is one, aux_head, by name.
      output_stride: stride of the backbone's coarsest map; images are padded to its multiples.
    """

    def __init__(
        self,
        backbone: keras.Model,
        decoder: keras.layers.Layer,
        head: keras.layers.Layer,
        aux_head: keras.layers.Layer | None = None,
        *,
        spec: BackboneSpec,
        num_classes: int,
        factories: Mapping[str, Factory],
    ):
        # Without autocast: the backbone normalises pixels in full precision.
        super().__init__(name='deeplab_v3plus', autocast=False)
        self.backbone = backbone
        self.decoder = decoder
        self.head = head
        self.aux_head = aux_head
        self.aux_stride = spec['c4'].stride
        self.output_stride = spec['c5'].stride
        self._logits_stride = self._build_parts(spec, num_classes, factories)
        self.built = True

    @property
    def parts(self) -> dict[str, keras.layers.Layer]:
        parts = {'backbone': self.backbone, 'decoder': self.decoder, 'head': self.head}
        return parts if self.aux_head is None else {**parts, 'aux_head': self.aux_head}

    def call(self, batch: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Computes logits.

        Args:
          batch: `image` [B, H, W, 3] RGB float 0..255; `size` [B, 2] int32, height and width of each image within its
            padding; when training also `seed` [B, 2] int32.
          training: whether to use dropout, the batch's statistics and the auxiliary head.

        Returns:
          `{'logits': [B, H, W, num_classes]}`, float32 or better; in training with an auxiliary head also
          `aux_logits`, of the same shape.
        """
        seed = batch.get('seed')
        resolution = tuple(batch['image'].shape[1:3])
        with images_on_canvas(batch['size'], resolution):
            return self._outputs(batch, resolution, seed, training)

    def _outputs(self, batch: dict[str, Any], resolution: tuple[int, int], seed: Any, training: bool) -> dict[str, Any]:
        features = self.backbone(batch['image'], training=training)
        maps = self.decoder(features, size=batch['size'], seed=seed, training=training)
        logits = self.head(maps['features'], seed=seed, training=training)
        outputs = {'logits': upsample_bilinear(logits, resolution, self._logits_stride)}
        if training and self.aux_head is not None:
            logits = self.aux_head(features['c4'], seed=seed, training=training)
            outputs['aux_logits'] = upsample_bilinear(logits, resolution, self.aux_stride)
        return outputs

    def _build_parts(self, spec: BackboneSpec, num_classes: int, factories: Mapping[str, Factory]) -> int:
        """Creates the variables of decoder and heads on symbolic maps; returns the stride of the decoder's map."""
        features = spec.symbolic(self.backbone.compute_dtype)
        maps = call_decoder(factories['decoder'], self.decoder, features, ['features'])
        call_head(factories['head'], self.head, maps['features'], num_classes)
        if self.aux_head is not None:
            call_head(factories['aux_head'], self.aux_head, features['c4'], num_classes)
        return SYMBOLIC_SIDE // maps['features'].shape[1]
