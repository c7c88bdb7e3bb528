"""Cascade R-CNN: Mask R-CNN whose boxes are corrected several times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from seg.errors import UserError
from seg.heads.box import BoxHead
from seg.heads.instance_mask import MaskHead
from seg.heads.rpn import RPN
from seg.layers.norm import Norm
from seg.models.mask_rcnn import MaskRCNN, body, part
from seg.registry import heads, models

CODE_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))


@models.register('cascade_rcnn')
def cascade_rcnn(
    *,
    num_classes: int,
    backbone: Callable,
    decoder: Callable,
    rpn: Callable,
    box_head: Callable,
    mask_head: Callable,
    ious: tuple[float, ...] = (0.5, 0.6, 0.7),
    code_weights: tuple[tuple[float, ...], ...] = CODE_WEIGHTS,
    norm: str = 'frozen',
    norm_momentum: float = 0.99,
    norm_epsilon: float = 1e-5,
    frozen_stages: int = 0,
) -> keras.Model:
    """Cascade Mask R-CNN: box heads one after the other, each trained to be more exact than the one before.

    Cai and Vasconcelos, "Cascade R-CNN: Delving into High Quality Object Detection", CVPR 2018. Every head is an own
    copy of `box_head`, which has to be class-agnostic. Proposals are chosen for the first head; the others get the same
    ones, moved and compared with the truth anew. Scores are means over the heads; masks are made for the boxes of the
    last one.

    Args:
      num_classes: classes, without background.
      backbone: reference of a backbone.
      decoder: reference of a decoder that makes a pyramid p2 to p6.
      rpn: reference of the head that proposes boxes.
      box_head: reference of the head that classifies them; its own positive_iou and code_weights do not count.
      mask_head: reference of the head that makes their masks.
      ious: overlap with a true box from which on a box is positive, for each box head.
      code_weights: factors of a box's code (dy, dx, dh, dw), for each box head.
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
    _check(slot, ious, code_weights)
    maker = Norm(norm, momentum=norm_momentum, epsilon=norm_epsilon)
    net, neck, spec = body(slot, backbone, decoder, maker, frozen_stages)
    supplied = {'num_classes': num_classes, 'norm': maker}
    box_heads = []
    for iou, weights in zip(ious, code_weights, strict=True):
        head = part(heads.build(box_head, f'{slot}.box_head', **supplied), BoxHead, f'{slot}.box_head')
        if not head.class_agnostic:
            raise UserError(f'{slot}.box_head: expected class-agnostic boxes; set heads.box.class_agnostic = True.')
        head.positive_iou, head.code_weights = iou, tuple(weights)
        box_heads.append(head)
    return MaskRCNN(
        net,
        neck,
        part(heads.build(rpn, f'{slot}.rpn', **supplied), RPN, f'{slot}.rpn'),
        box_heads,
        part(heads.build(mask_head, f'{slot}.mask_head', **supplied), MaskHead, f'{slot}.mask_head'),
        spec,
        name=slot,
    )


def _check(slot: str, ious: Sequence[float], code_weights: Sequence[Sequence[float]]) -> None:
    if not ious or not all(0 < iou < 1 for iou in ious):
        raise UserError(f'{slot}.ious = {ious!r}: expected numbers between 0 and 1, one for each box head.')
    if len(code_weights) != len(ious):
        raise UserError(
            f'{slot}.code_weights: expected one for each of the {len(ious)} box heads of {slot}.ious, received '
            f'{len(code_weights)}.'
        )
    if any(len(weights) != 4 or min(weights) <= 0 for weights in code_weights):
        raise UserError(f'{slot}.code_weights = {code_weights!r}: expected four numbers above 0 for each box head.')
