"""Mask R-CNN: backbone, feature pyramid, region proposals, boxes and masks wired together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from seg.errors import UserError, shown
from seg.heads.box import BoxHead
from seg.heads.instance_mask import MaskHead
from seg.heads.roi_sampler import Rois, Truth
from seg.heads.rpn import RPN
from seg.layers.norm import NormFactory
from seg.models.base import SegmentationModel
from seg.models.parts import build_backbone, call_decoder
from seg.ops import boxes as boxes_lib
from seg.ops.masks import crop_masks
from seg.registry import Factory, decoders, heads, models
from seg.structures import SYMBOLIC_SIDE, BackboneSpec

# Levels that the features of boxes are pooled from. The RPN has one more.
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
    """Mask R-CNN: instance segmentation by region proposals, each with class, box and mask.

    He et al., "Mask R-CNN", ICCV 2017.

    Args:
      num_classes: classes, without background.
      backbone: reference to a backbone.
      decoder: reference to a decoder that makes a feature pyramid p2 to p6.
      rpn: reference to the head that proposes boxes.
      box_head: reference to the head that classifies them.
      mask_head: reference to the head that predicts their masks.
      norm: 'sync', 'frozen' or 'group', see `seg.layers.norm`. Scale and offset are trained even where 'frozen'.
      norm_momentum: momentum of the moving statistics; 'sync' only.
      norm_epsilon: added to variances. torchvision's Mask R-CNN weights of 2019 (COCO_V1) were trained with 0, to which
        1e-12 is close enough.
      frozen_stages: number of the map up to which the backbone is not trained: the recipe has 2, for c2 and all layers
        before it; 0 trains everything.

    Returns:
      The model, built: see `MaskRCNN`.

    Raises:
      UserError: if a setting is out of range, or a reference is of another kind.
    """
    slot = 'models.mask_rcnn'
    factory = NormFactory(norm, momentum=norm_momentum, epsilon=norm_epsilon, slot=slot)
    decoder_factory = decoders.check(decoder, f'{slot}.decoder')
    net, neck, spec = build_backbone_and_decoder(slot, backbone, decoder_factory, factory, frozen_stages)
    supplied = {'num_classes': num_classes, 'norm': factory}
    return MaskRCNN(
        net,
        neck,
        heads.check(rpn, f'{slot}.rpn').make(RPN, **supplied),
        [heads.check(box_head, f'{slot}.box_head').make(BoxHead, **supplied)],
        heads.check(mask_head, f'{slot}.mask_head').make(MaskHead, **supplied),
        spec,
        decoder_factory,
        name='mask_rcnn',
    )


def build_backbone_and_decoder(
    slot: str, backbone: Callable, decoder: Factory, norm: NormFactory, frozen_stages: int
) -> tuple[keras.Model, keras.layers.Layer, BackboneSpec]:
    """Builds backbone and decoder, and freezes the first stages.

    Args:
      slot: gin key of the model.
      backbone: reference to a backbone.
      decoder: builds the decoder.
      norm: makes the normalisation layers.
      frozen_stages: see `mask_rcnn`.

    Returns:
      Backbone, decoder, and the shapes of the backbone's maps.

    Raises:
      UserError: see `mask_rcnn`.
    """
    net, spec = build_backbone(backbone, f'{slot}.backbone', output_stride=32, norm=norm)
    freeze(net, frozen_stages, f'{slot}.frozen_stages')
    neck = decoder.make(keras.layers.Layer, backbone=spec, output_stride=32, norm=norm)
    return net, neck, spec


def freeze(backbone: keras.Model, stages: int, slot: str) -> None:
    """Makes all layers untrainable that compute a backbone's map c<stages>; none for 0.

    Raises:
      UserError: if there is no such map, or the backbone is not a functional model.
    """
    if stages == 0:
        return
    maps = getattr(backbone, 'output', None)
    if not isinstance(maps, dict):
        raise UserError(f'{slot} = {shown(stages)}: {backbone.name} is not a functional Keras model: set 0.')
    if f'c{stages}' not in maps:
        raise UserError(
            f'{slot} = {shown(stages)}: expected 0, or the number of a map of {backbone.name}: {sorted(maps)}.'
        )
    for layer in keras.Model(backbone.input, maps[f'c{stages}']).layers:
        layer.trainable = False


class MaskRCNN(SegmentationModel):
    """From a batch of images to detections, or, in training, to the inputs of its losses.

    With several box heads it is Cascade R-CNN: each head starts from the boxes that the previous one has moved. The
    first head samples the regions for all, the last one makes the detections.

    Padding goes through the layers like the image, as in torchvision and detectron2: detections near an image's right
    and lower edges depend a little on the size of the canvas.

    Attributes:
      parts: backbone, decoder, rpn, box_head (box_head_2, …) and mask_head, by name.
      stage_weights: coefficients of the losses of each box head.
      output_stride: stride of the backbone's coarsest map. Sides of a canvas are best multiples of it; others work.
    """

    def __init__(
        self,
        backbone: keras.Model,
        decoder: keras.layers.Layer,
        rpn: RPN,
        box_heads: Sequence[BoxHead],
        mask_head: MaskHead,
        spec: BackboneSpec,
        decoder_factory: Factory,
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
        self.output_stride = spec['c5'].stride
        self.strides = self._build_parts(spec, decoder_factory)
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

    @property
    def instance_limits(self) -> dict[str, int]:
        """Largest number of instances of an image that each setting leaves room for."""
        return {
            'heads.rpn.train_proposals': self.rpn.train_limits.proposals,
            'heads.rpn.eval_proposals': self.rpn.eval_limits.proposals,
            'heads.box.max_detections': self.box_heads[-1].detector.max_detections,
        }

    def call(self, batch: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Detects instances.

        Boxes are (y0, x0, y1, x1) in pixels of the canvas.

        Args:
          batch: `image` [B, H, W, 3] RGB float 0..255; `size` int32 [B, 2], height and width of each image within its
            padding. When training also `seed` int32 [B, 2], `boxes` [B, N, 4], `classes` int32 [B, N] (0 to K - 1, and
            -1 for padding), and `masks` uint8 [B, N, M, M], each instance's over its box, 255 inside and 0 outside.
          training: whether to sample anchors and regions to train on, and use the batch's statistics.

        Returns:
          When training, float32 or better unless said otherwise:
          `rpn`: `logits` [B, A], `deltas` [B, A, 4], `labels` int32 [B, A] (1, 0, or -1 for anchors that do not count),
            `targets` [B, A, 4], and `matched` int32 [B], number of anchors that reach the RPN's `positive_iou`.
          `boxes`: for each box head a dict of `class_logits` [B, R, K + 1], `deltas` [B, R, C, 4] (C is K or 1),
            `classes` int32 [B, R] (0 for background, class + 1, or -1 in empty rows), `targets` [B, R, 4], and the
            scalar `weight` of its losses.
          `masks`, for the positive regions of the first box head: `logits` [B, P, m, m, 1] of the true class, `targets`
            [B, P, m, m] in {0, 1}, and `classes` int32 [B, P], class + 1, or -1 in empty rows.

          Otherwise `boxes` [B, D, 4], `scores` [B, D], `classes` int32 [B, D] (-1 in empty rows) and `masks`
          [B, D, m, m], probabilities over each box; by decreasing score.
        """
        size = batch['size']
        maps, anchors, logits, deltas = self.score_anchors(batch, training)
        proposals = self.rpn.propose(anchors, logits, deltas, size, training)
        if not training:
            boxes, probabilities, deltas = self.classify(maps, proposals.boxes, size)
            last = self.box_heads[-1]
            found = last.detector.detect(boxes, proposals.valid, probabilities, deltas, last.code_weights, size)
            return {**found, 'masks': self.segment(maps, found['boxes'], found['classes'])}
        truth = _truth(batch, self.exact)
        outputs = {
            'rpn': {
                'logits': ops.concatenate(logits, axis=1),
                'deltas': ops.concatenate(deltas, axis=1),
                **self.rpn.targets(anchors, truth.boxes, truth.valid, batch['seed']),
            }
        }
        rois = self.box_heads[0].sampler.sample(proposals.boxes, proposals.valid, truth, batch['seed'])
        outputs['boxes'] = self._train_boxes(maps, rois, truth, size)
        outputs['masks'] = self._train_masks(maps, rois, truth, batch['masks'])
        return outputs

    def score_anchors(self, batch: dict[str, Any], training: bool = False) -> tuple[list, list, list, list]:
        """The first stage, before boxes are selected; arguments as for `call`.

        Returns:
          The maps that the features of boxes are pooled from, `ROI_LEVELS`, [B, h, w, C] each; and for each map of the
          pyramid the anchors [h * w * a, 4], their logits [B, h * w * a] and their deltas [B, h * w * a, 4].
        """
        image = batch['image']
        features = self.backbone(image, training=training)
        pyramid = self.decoder(features, size=batch['size'], seed=batch.get('seed'), training=training)
        anchors = self.rpn.anchors(tuple(image.shape[1:3]), [self.strides[name] for name in pyramid])
        logits, deltas = self.rpn(list(pyramid.values()), training=training)
        return [pyramid[name] for name in ROI_LEVELS], anchors, logits, deltas

    def classify(self, maps: Sequence[Any], boxes: Any, size: Any) -> tuple[Any, Any, Any]:
        """The box heads in evaluation, before detections are selected.

        Args:
          maps: from `score_anchors`.
          boxes: [B, R, 4], regions.
          size: int32 [B, 2], height and width of each image.

        Returns:
          The regions that the last head starts from [B, R, 4]; probabilities [B, R, K + 1], background first, the mean
          over the heads; and the last head's deltas [B, R, C, 4], C = K or 1.
        """
        probabilities, deltas = [], None
        for i, head in enumerate(self.box_heads):
            if i > 0:
                boxes = self.box_heads[i - 1].refine(boxes, deltas, size)
            logits, deltas = head(head.crop(maps, self._roi_strides, boxes), training=False)
            probabilities.append(ops.softmax(logits, axis=-1))
        return boxes, sum(probabilities) / len(probabilities), deltas

    def segment(self, maps: Sequence[Any], boxes: Any, classes: Any) -> Any:
        """Masks of detections, [B, D, m, m], probabilities over each box; 0 in empty rows.

        Args:
          maps: from `score_anchors`.
          boxes: [B, D, 4].
          classes: int32 [B, D], -1 in empty rows.
        """
        crops = self.mask_head.crop(maps, self._roi_strides, boxes)
        masks = ops.sigmoid(self.mask_head(crops, classes, training=False))
        there = ops.cast(classes >= 0, masks.dtype)
        return masks * there[..., None, None]

    def _train_boxes(self, maps: Sequence[Any], rois: Rois, truth: Truth, size: Any) -> list[dict[str, Any]]:
        """Returns the outputs and targets of each box head; the regions move from head to head."""
        stages, deltas = [], None
        for i, (head, weight) in enumerate(zip(self.box_heads, self.stage_weights, strict=True)):
            if i > 0:
                rois = head.sampler.relabel(self.box_heads[i - 1].refine(rois.boxes, deltas, size), rois, truth)
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
        """Returns mask logits and targets of the positive regions."""
        head = self.mask_head
        rois = self.box_heads[0].sampler.positives(rois)
        targets = crop_masks(masks, truth.boxes, rois.index, rois.boxes, head.size)
        logits = head(head.crop(maps, self._roi_strides, rois.boxes), rois.classes - 1, training=True)
        return {'logits': logits[..., None], 'targets': ops.stop_gradient(targets), 'classes': rois.classes}

    @property
    def _roi_strides(self) -> list[int]:
        return [self.strides[name] for name in ROI_LEVELS]

    def _build_parts(self, spec: BackboneSpec, factory: Factory) -> dict[str, int]:
        """Creates the variables of decoder and heads; returns the strides of the pyramid's maps, the finest first."""
        features = spec.symbolic(self.backbone.compute_dtype)
        pyramid = call_decoder(factory, self.decoder, features, ROI_LEVELS)
        for head in (self.rpn, *self.box_heads, self.mask_head):
            head.build(tuple(pyramid['p2'].shape))
        return {name: SYMBOLIC_SIDE // x.shape[1] for name, x in pyramid.items()}


def _truth(batch: dict[str, Any], dtype: str) -> Truth:
    boxes = boxes_lib.at_least_float32(batch['boxes'])
    boxes = ops.cast(boxes, dtype)
    # Boxes without area cannot serve as targets.
    valid = ops.logical_and(batch['classes'] >= 0, boxes_lib.area(boxes) > 0)
    return Truth(boxes, batch['classes'], valid)
