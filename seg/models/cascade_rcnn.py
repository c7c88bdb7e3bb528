"""Cascade R-CNN: Mask R-CNN whose boxes are refined several times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from seg.errors import UserError, shown
from seg.heads.box import BoxHead
from seg.heads.instance_mask import MaskHead
from seg.heads.rpn import RPN
from seg.layers.norm import NormFactory
from seg.models.mask_rcnn import MaskRCNN, build_backbone_and_decoder
from seg.number_checks import check_number
from seg.registry import decoders, heads, models


@models.register('cascade_rcnn')
def cascade_rcnn(
    *,
    num_classes: int,
    backbone: Callable,
    decoder: Callable,
    rpn: Callable,
    box_heads: Sequence[Callable],
    mask_head: Callable,
    stage_weights: Sequence[float] = (1.0, 0.5, 0.25),
    norm: str = 'frozen',
    norm_momentum: float = 0.99,
    norm_epsilon: float = 1e-5,
    frozen_stages: int = 0,
) -> keras.Model:
    """Cascade Mask R-CNN: box heads in sequence, each trained at a higher IoU than the previous one.

    Cai and Vasconcelos, "Cascade R-CNN: Delving into High Quality Object Detection", CVPR 2018. Proposals are sampled
    for the first head; each later head gets the same ones, moved by the head before and matched again with the ground
    truth. Scores are means over the heads; masks are predicted for the boxes of the last head. The paper's three heads:
    `gin/common/cascade_rcnn.gin`.

    The losses of later heads weigh less, so that three heads do not have three times the influence on the features that
    they share: 1, 1/2, 1/4, as in the paper's code, its authors' Detectron and mmdetection. (detectron2 adds the losses
    unweighted and scales the gradient of the pooled features by 1/3.) The mask head is trained on the regions of the
    first head, of which more are positive than of the last, as in the authors' Detectron and detectron2.

    Args:
      num_classes: classes, without background.
      backbone: reference to a backbone.
      decoder: reference to a decoder that makes a feature pyramid p2 to p6.
      rpn: reference to the head that proposes boxes.
      box_heads: references to the heads that classify them, each in its own gin scope, for its own positive_iou and
        code_weights. They have to be class-agnostic. Sampling and post-processing happen once, so that their settings
        have to be the same for all heads.
      mask_head: reference to the head that predicts their masks.
      stage_weights: coefficients of the losses of the box heads, one number for each, in their order.
      norm: 'sync', 'frozen' or 'group', see `seg.layers.norm`. Scale and offset are trained even where 'frozen'.
      norm_momentum: momentum of the moving statistics; 'sync' only.
      norm_epsilon: added to variances.
      frozen_stages: number of the map up to which the backbone is not trained: the recipe has 2, for c2 and all layers
        before it; 0 trains everything.

    Returns:
      The model, built: see `seg.models.mask_rcnn.MaskRCNN`.

    Raises:
      UserError: if a setting is out of range, or a reference is of another kind.
    """
    slot = 'models.cascade_rcnn'
    factories = heads.check_each(box_heads, f'{slot}.box_heads')
    if not factories:
        raise UserError(f'{slot}.box_heads = {box_heads!r}: expected at least one reference, such as [@heads.box].')
    norm_factory = NormFactory(norm, momentum=norm_momentum, epsilon=norm_epsilon, slot=slot)
    decoder_factory = decoders.check(decoder, f'{slot}.decoder')
    net, neck, spec = build_backbone_and_decoder(slot, backbone, decoder_factory, norm_factory, frozen_stages)
    supplied = {'num_classes': num_classes, 'norm': norm_factory}
    stages = []
    for factory in factories:
        stages.append(factory.make(BoxHead, **supplied))
        _check_stage(stages[-1], stages[0], factory.slot)
    _check_weights(stage_weights, len(stages), f'{slot}.stage_weights')
    return MaskRCNN(
        net,
        neck,
        heads.check(rpn, f'{slot}.rpn').make(RPN, **supplied),
        stages,
        heads.check(mask_head, f'{slot}.mask_head').make(MaskHead, **supplied),
        spec,
        decoder_factory,
        stage_weights=stage_weights,
        name='cascade_rcnn',
    )


def _check_weights(weights: Sequence[float], count: int, slot: str) -> None:
    if not isinstance(weights, tuple | list) or len(weights) != count:
        raise UserError(f'{slot} = {shown(weights)}: expected {count} numbers, one for each entry of box_heads.')
    for i, weight in enumerate(weights):
        check_number(f'{slot}[{i}]', weight)


def _check_stage(head: BoxHead, first: BoxHead, slot: str) -> None:
    """Refuses a head whose boxes cannot be refined, or with its own values of settings that all heads share."""
    if not head.class_agnostic:
        raise UserError(f'{slot}: expected class-agnostic boxes; set heads.box.class_agnostic = True.')
    own, shared = ({**vars(h.sampler), **vars(h.detector)} for h in (head, first))
    for name in own:
        if name != 'positive_iou' and own[name] != shared[name]:
            raise UserError(
                f'{slot}: {name} = {own[name]!r}, but {shared[name]!r} in the first box head. It applies once to all '
                f'heads: set it without a scope, heads.box.{name} = ...'
            )
