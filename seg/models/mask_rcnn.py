"""Mask R-CNN: backbone, pyramid, proposals, boxes and masks wired together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from seg.errors import UserError
from seg.heads.box import BoxHead, Rois, Truth
from seg.heads.instance_mask import MaskHead
from seg.heads.rpn import RPN
from seg.layers.norm import Norm
from seg.ops import boxes as boxes_lib
from seg.ops import sampling
from seg.ops.gathering import pick
from seg.ops.masks import crop_masks
from seg.registry import backbones, decoders, heads, models
from seg.structures import SYMBOLIC_SIDE, BackboneSpec

# Levels of the pyramid that boxes are read off; the RPN looks at one more.
ROI_LEVELS = ('p2', 'p3', 'p4', 'p5')


@models.register('mask_rcnn')
def mask_rcnn(
    *,
    num_classes: int,
    backbone: Callable,
    decoder: Callable,
    rpn: Callable,
    box_head: Callable,
    mask_head: Callable,
    norm: str = 'frozen',
    norm_momentum: float = 0.99,
    norm_epsilon: float = 1e-5,
    frozen_stages: int = 0,
) -> keras.Model:
    """Mask R-CNN: instance segmentation by proposals, a class and a box for each, and a mask in each box.

    He et al., "Mask R-CNN", ICCV 2017.

    Args:
      num_classes: classes, without background.
      backbone: reference of a backbone.
      decoder: reference of a decoder that makes a pyramid p2 to p6.
      rpn: reference of the head that proposes boxes.
      box_head: reference of the head that classifies them.
      mask_head: reference of the head that makes their masks.
      norm: 'sync', 'frozen' or 'group', see `seg.layers.norm`. Of frozen ones scale and offset are trained.
      norm_momentum: of the moving statistics; 'sync' only.
      norm_epsilon: added to variances. torchvision's Mask R-CNN weights of 2019 (COCO_V1) were trained with 0, which
        1e-12 comes close enough to.
      frozen_stages: the backbone is not trained up to its map of this number: 2 is the recipe's, for c2 and all that it
        is made of; 0 trains everything.

    Returns:
      The model, built: see `MaskRCNN`.

    Raises:
      UserError: if a setting is out of range, or a reference is of another kind.
    """
    slot = 'mask_rcnn'
    maker = Norm(norm, momentum=norm_momentum, epsilon=norm_epsilon)
    net, neck, spec = body(slot, backbone, decoder, maker, frozen_stages)
    supplied = {'num_classes': num_classes, 'norm': maker}
    return MaskRCNN(
        net,
        neck,
        part(heads.build(rpn, f'{slot}.rpn', **supplied), RPN, f'{slot}.rpn'),
        [part(heads.build(box_head, f'{slot}.box_head', **supplied), BoxHead, f'{slot}.box_head')],
        part(heads.build(mask_head, f'{slot}.mask_head', **supplied), MaskHead, f'{slot}.mask_head'),
        spec,
        name=slot,
    )


def body(
    slot: str, backbone: Callable, decoder: Callable, norm: Norm, frozen_stages: int
) -> tuple[keras.Model, keras.layers.Layer, BackboneSpec]:
    """Builds backbone and decoder, and freezes what is to be frozen.

    Returns:
      Backbone, decoder, and what the backbone's maps are.

    Raises:
      UserError: see `mask_rcnn`.
    """
    net = backbones.build(backbone, f'{slot}.backbone', output_stride=32, norm=norm)
    spec = BackboneSpec.of(net, f'{slot}.backbone')
    freeze(net, frozen_stages, f'{slot}.frozen_stages')
    neck = decoders.build(decoder, f'{slot}.decoder', backbone=spec, output_stride=32, norm=norm)
    return net, neck, spec


def freeze(backbone: keras.Model, stages: int, slot: str) -> None:
    """Makes everything untrainable that the map c<stages> of a backbone is computed by; nothing for 0.

    Raises:
      UserError: if there is no such map, or the backbone is no functional model.
    """
    if stages == 0:
        return
    maps = getattr(backbone, 'output', None)
    if not isinstance(maps, dict):
        raise UserError(
            f'{slot}: {backbone.name} is no functional Keras model, so its stages are unknown; set it to 0.'
        )
    if f'c{stages}' not in maps:
        raise UserError(f'{slot} = {stages!r}: expected 0, or the number of a map of {backbone.name}: {sorted(maps)}.')
    for layer in keras.Model(backbone.input, maps[f'c{stages}']).layers:
        layer.trainable = False


def part(layer: Any, kind: type, slot: str) -> Any:
    """Returns the layer if it is of the class.

    Raises:
      UserError: if not.
    """
    if not isinstance(layer, kind):
        raise UserError(f'{slot}: expected a head that builds a {kind.__name__}, received a {type(layer).__name__}.')
    return layer


class MaskRCNN(keras.Model):
    """From a batch of images to detections, or, when training, to what its losses compare.

    With several box heads it is Cascade R-CNN: each head starts from the boxes that the one before has moved.

    Padding goes through the layers like a picture, as in torchvision and detectron2, whose batches are padded so: what
    is found near a picture's right and lower ends depends a little on how far its canvas goes on.

    Attributes:
      parts: backbone, decoder, rpn, box_head (box_head_2, …) and mask_head, by name.
      stage_weights: of the losses of each box head.
      stride: what the sides of a canvas are best divided by. Other canvases work as well.
    """

    def __init__(
        self,
        backbone: keras.Model,
        decoder: keras.layers.Layer,
        rpn: RPN,
        box_heads: Sequence[BoxHead],
        mask_head: MaskHead,
        spec: BackboneSpec,
        *,
        stage_weights: Sequence[float] = (1.0,),
        name: str,
    ):
        # Without autocast: the backbone normalises pixels in full precision, and boxes stay exact.
        super().__init__(name=name, autocast=False)
        self.exact = keras.backend.result_type(self.compute_dtype, 'float32')
        self.backbone = backbone
        self.decoder = decoder
        self.rpn = rpn
        self.box_heads = list(box_heads)
        self.stage_weights = tuple(float(weight) for weight in stage_weights)
        self.mask_head = mask_head
        self.stride = spec['c5'].stride
        self.strides = self._build_parts(spec)
        self.built = True

    @property
    def parts(self) -> dict[str, keras.layers.Layer]:
        boxes = {f'box_head_{i}' if i > 1 else 'box_head': head for i, head in enumerate(self.box_heads, start=1)}
        return {
            'backbone': self.backbone,
            'decoder': self.decoder,
            'rpn': self.rpn,
            **boxes,
            'mask_head': self.mask_head,
        }

    @property
    def anchor_sizes(self) -> list[float]:
        """Sides of the square anchors, in pixels of the canvas, the smallest first."""
        scale, octaves = self.rpn.anchor_settings['scale'], self.rpn.anchor_settings['octaves']
        return [scale * stride * 2 ** (o / octaves) for stride in self.strides.values() for o in range(octaves)]

    def call(self, batch: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Finds objects.

        Boxes are (y0, x0, y1, x1) in pixels of the canvas.

        Args:
          batch: `image` [B, H, W, 3] RGB float 0..255; `size` int32 [B, 2], height and width of each image within its
            padding. When training also `seed` int32 [B, 2], `boxes` [B, N, 4], `classes` int32 [B, N] (0 to K - 1, and
            -1 for padding), and `masks` uint8 [B, N, M, M], each object's over its box, 255 where it is.
          training: whether to choose anchors and regions to learn from, and use the batch's statistics.

        Returns:
          When training, all of it float32 or better unless said otherwise:
          `rpn`: `logits` [B, A], `deltas` [B, A, 4], `labels` int32 [B, A] (1, 0, or -1 for anchors that do not count),
            `targets` [B, A, 4], and `matched` int32 [B], anchors over the overlap that is asked for.
          `boxes`: for each box head a dict of `class_logits` [B, R, K + 1], `deltas` [B, R, C, 4] (C is K or 1),
            `classes` int32 [B, R] (0 for background, class + 1, or -1 for empty places), `targets` [B, R, 4], and the
            scalar `weight` of its losses.
          `masks`: of the positive regions of the first box head: `logits` [B, P, m, m, 1], of the true class, `targets`
            [B, P, m, m] in {0, 1}, and `classes` int32 [B, P], class + 1, or -1 for empty places.

          Otherwise `boxes` [B, D, 4], `scores` [B, D], `classes` int32 [B, D] (-1 in empty places) and `masks`
          [B, D, m, m], probabilities over each box; by falling score.
        """
        image, size = batch['image'], batch['size']
        features = self.backbone(image, training=training)
        pyramid = self.decoder(features, size=size, seed=batch.get('seed'), training=training)
        anchors = self.rpn.anchors(tuple(image.shape[1:3]), [self.strides[name] for name in pyramid])
        logits, deltas = self.rpn(list(pyramid.values()), training=training)
        proposals = self.rpn.propose(anchors, logits, deltas, size, training)
        maps = [pyramid[name] for name in ROI_LEVELS]
        if not training:
            return self._detect(maps, proposals.boxes, proposals.valid, size)
        truth = _truth(batch, self.exact)
        outputs = {
            'rpn': {
                'logits': ops.concatenate(logits, axis=1),
                'deltas': ops.concatenate(deltas, axis=1),
                **self.rpn.targets(anchors, truth.boxes, truth.valid, batch['seed']),
            }
        }
        rois = self.box_heads[0].sample(proposals.boxes, proposals.valid, truth, batch['seed'])
        outputs['boxes'] = self._train_boxes(maps, rois, truth, size)
        outputs['masks'] = self._train_masks(maps, rois, truth, batch['masks'])
        return outputs

    def _train_boxes(self, maps: Sequence[Any], rois: Rois, truth: Truth, size: Any) -> list[dict[str, Any]]:
        """Returns what each box head makes of the regions, which move from head to head."""
        stages, deltas = [], None
        for i, (head, weight) in enumerate(zip(self.box_heads, self.stage_weights, strict=True)):
            if i > 0:
                rois = head.relabel(self.box_heads[i - 1].refine(rois.boxes, deltas, size), rois, truth)
            logits, deltas = head(head.crop(maps, self._roi_strides, rois.boxes), training=True)
            stages.append(
                {
                    'class_logits': logits,
                    'deltas': deltas,
                    'classes': rois.classes,
                    'targets': head.targets(rois, truth),
                    'weight': ops.convert_to_tensor(weight, dtype=self.exact),
                }
            )
        return stages

    def _train_masks(self, maps: Sequence[Any], rois: Rois, truth: Truth, masks: Any) -> dict[str, Any]:
        """Returns the masks of the positive regions, and what they should be."""
        head = self.mask_head
        places, kind = sampling.first(ops.where(rois.classes > 0, 1, -1), self.box_heads[0].max_positives)
        chosen = ops.equal(kind, 1)
        boxes = ops.where(chosen[..., None], pick(rois.boxes, places), 0)
        classes = ops.where(chosen, pick(rois.classes, places), -1)
        targets = crop_masks(masks, truth.boxes, pick(rois.index, places), boxes, head.size)
        logits = head(head.crop(maps, self._roi_strides, boxes), classes - 1, training=True)
        return {'logits': logits[..., None], 'targets': ops.stop_gradient(targets), 'classes': classes}

    def _detect(self, maps: Sequence[Any], boxes: Any, valid: Any, size: Any) -> dict[str, Any]:
        probabilities, deltas = [], None
        for i, head in enumerate(self.box_heads):
            if i > 0:
                boxes = self.box_heads[i - 1].refine(boxes, deltas, size)
            logits, deltas = head(head.crop(maps, self._roi_strides, boxes), training=False)
            probabilities.append(ops.softmax(logits, axis=-1))
        probabilities = sum(probabilities) / len(probabilities)
        found = head.detect(boxes, valid, probabilities, deltas, size)
        crops = self.mask_head.crop(maps, self._roi_strides, found['boxes'])
        masks = ops.sigmoid(self.mask_head(crops, found['classes'], training=False))
        there = ops.cast(found['classes'] >= 0, masks.dtype)
        return {**found, 'masks': masks * there[..., None, None]}

    @property
    def _roi_strides(self) -> list[int]:
        return [self.strides[name] for name in ROI_LEVELS]

    def _build_parts(self, spec: BackboneSpec) -> dict[str, int]:
        """Creates the variables of decoder and heads; returns the strides of the pyramid's maps, the finest first."""
        features = spec.symbolic(self.backbone.compute_dtype)
        pair = keras.KerasTensor((2, 2), dtype='int32')
        pyramid = self.decoder(features, size=pair, seed=pair, training=True)
        if not {*ROI_LEVELS} <= set(pyramid):
            raise UserError(
                f'{self.name}.decoder: expected one that makes maps p2, p3, p4 and p5, such as @decoders.fpn; '
                f'{self.decoder.name!r} makes {sorted(pyramid)}.'
            )
        for head in (self.rpn, *self.box_heads, self.mask_head):
            head.build(tuple(pyramid['p2'].shape))
        return {name: SYMBOLIC_SIDE // x.shape[1] for name, x in pyramid.items()}


def _truth(batch: dict[str, Any], dtype: str) -> Truth:
    boxes = boxes_lib.at_least_float32(batch['boxes'])
    boxes = ops.cast(boxes, dtype)
    # Boxes without area cannot serve as targets.
    valid = ops.logical_and(batch['classes'] >= 0, boxes_lib.area(boxes) > 0)
    return Truth(boxes, batch['classes'], valid)
