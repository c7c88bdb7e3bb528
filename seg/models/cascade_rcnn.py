"""Cascade R-CNN: Mask R-CNN whose boxes are corrected several times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras

from seg.errors import UserError, shown
from seg.heads.box import BoxHead
from seg.heads.instance_mask import MaskHead
from seg.heads.rpn import RPN
from seg.layers.norm import Norm
from seg.models.mask_rcnn import MaskRCNN, body, part
from seg.registry import heads, models

# What is done once for all box heads, with the regions or with the detections.
SHARED = ('sampled', 'positive_fraction', 'score_threshold', 'nms_iou', 'max_detections', 'pre_nms')


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
    """Cascade Mask R-CNN: box heads one after the other, each trained to be more exact than the one before.

    Cai and Vasconcelos, "Cascade R-CNN: Delving into High Quality Object Detection", CVPR 2018. Proposals are chosen
    for the first head; the others get the same ones, moved and compared with the truth anew. Scores are means over the
    heads; masks are made for the boxes of the last one. The three heads of the paper: `gin/common/cascade_rcnn.gin`.

    The losses of later heads weigh less, so that three heads do not pull three times as hard at the features that they
    share: 1, 1/2, 1/4, as in the paper's code, its authors' Detectron and mmdetection. (detectron2 adds the losses as
    they are and scales the gradient of the pooled features to 1/3.) The mask head learns from the regions of the first
    head, of which more overlap an object enough than of the last, as in the authors' Detectron and detectron2.

    Args:
      num_classes: classes, without background.
      backbone: reference of a backbone.
      decoder: reference of a decoder that makes a pyramid p2 to p6.
      rpn: reference of the head that proposes boxes.
      box_heads: references of the heads that classify them, each in a gin scope of its own, for its own positive_iou
        and code_weights. They have to be class-agnostic, and alike in how many regions are sampled and in how
        detections are chosen.
      mask_head: reference of the head that makes their masks.
      stage_weights: of the losses of the box heads, one number for each, in their order.
      norm: 'sync', 'frozen' or 'group', see `seg.layers.norm`. Of frozen ones scale and offset are trained.
      norm_momentum: of the moving statistics; 'sync' only.
      norm_epsilon: added to variances.
      frozen_stages: the backbone is not trained up to its map of this number: 2 is the recipe's, for c2 and all that it
        is made of; 0 trains everything.

    Returns:
      The model, built: see `seg.models.mask_rcnn.MaskRCNN`.

    Raises:
      UserError: if a setting is out of range, or a reference is of another kind.
    """
    slot = 'cascade_rcnn'
    factories = heads.check_each(box_heads, f'{slot}.box_heads')
    if not factories:
        raise UserError(f'{slot}.box_heads is empty: give at least one reference, such as [@heads.box].')
    maker = Norm(norm, momentum=norm_momentum, epsilon=norm_epsilon)
    net, neck, spec = body(slot, backbone, decoder, maker, frozen_stages)
    supplied = {'num_classes': num_classes, 'norm': maker}
    stages = []
    for factory in factories:
        stages.append(part(factory(**supplied), BoxHead, factory.slot))
        _check(stages[-1], stages[0], factory.slot)
    _check_weights(stage_weights, len(stages), f'{slot}.stage_weights')
    return MaskRCNN(
        net,
        neck,
        part(heads.build(rpn, f'{slot}.rpn', **supplied), RPN, f'{slot}.rpn'),
        stages,
        part(heads.build(mask_head, f'{slot}.mask_head', **supplied), MaskHead, f'{slot}.mask_head'),
        spec,
        stage_weights=stage_weights,
        name=slot,
    )


def _check_weights(weights: Sequence[float], heads_: int, slot: str) -> None:
    numbers = isinstance(weights, Sequence) and all(
        isinstance(w, int | float) and not isinstance(w, bool) and math.isfinite(w) and w >= 0 for w in weights
    )
    if not numbers or len(weights) != heads_:
        raise UserError(
            f'{slot} = {shown(weights)}: expected a number of at least 0 for each entry of box_heads, {heads_} in all.'
        )


def _check(head: BoxHead, first: BoxHead, place: str) -> None:
    if not head.class_agnostic:
        raise UserError(f'{place}: expected class-agnostic boxes; set heads.box.class_agnostic = True.')
    for name in SHARED:
        if getattr(head, name) != getattr(first, name):
            raise UserError(
                f'{place}: {name} is {getattr(head, name)!r}, and {getattr(first, name)!r} in the first box head. It '
                f'holds for all of them: set it without a scope, heads.box.{name} = ...'
            )
