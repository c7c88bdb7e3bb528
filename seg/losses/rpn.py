"""Losses of the region proposal network."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops

from seg.losses import regions
from seg.number_checks import check_number
from seg.registry import losses
from seg.structures import LossTerm


@losses.register('rpn_score', target='instances')
def rpn_score(*, weight: float = 1.0) -> Callable[..., LossTerm]:
    """Sigmoid cross-entropy of the sampled anchors, divided by their number.

    The divisor is the number of anchors in the sample, as in Detectron and torchvision; detectron2 and the Cloud TPU
    recipe always divide by `heads.rpn.sampled`. The canvases of the recipes have enough anchors, so both numbers are
    equal there.

    Args:
      weight: coefficient of this loss in the sum of losses.

    Returns:
      loss(outputs, batch, step) -> LossTerm, where `outputs['rpn']` has `logits` [B, A], `labels` int32 [B, A] (1, 0,
      or -1 for anchors not in the sample) and `matched` int32 [B]. It counts `anchors_positive` and `anchors_negative`
      in the sample, and `anchors_matched`, the number of all anchors that reach the RPN's `positive_iou`.

    Raises:
      UserError: if the weight is out of range.
    """
    coefficient = check_number('losses.rpn_score.weight', weight, 0.0)

    def loss(outputs, batch, step) -> LossTerm:
        del batch, step
        rpn = outputs['rpn']
        logits = regions.exact(rpn['logits'])
        positive, negative = (ops.cast(ops.equal(rpn['labels'], kind), logits.dtype) for kind in (1, 0))
        total = ops.sum((positive + negative) * regions.sigmoid_cross_entropy(logits, positive), axis=-1)
        positive, negative = ops.sum(positive, axis=-1), ops.sum(negative, axis=-1)
        counts = {
            'anchors_positive': positive,
            'anchors_negative': negative,
            'anchors_matched': ops.cast(rpn['matched'], logits.dtype),
        }
        return LossTerm(coefficient * total, positive + negative, counts)

    return loss


@losses.register('rpn_box', target='instances')
def rpn_box(*, weight: float = 1.0, beta: float = 1 / 9) -> Callable[..., LossTerm]:
    """Smooth L1 of the positive sampled anchors' codes, divided by the number of sampled anchors.

    Args:
      weight: coefficient of this loss in the sum of losses.
      beta: difference at which the square changes to a line; see `seg.losses.regions.smooth_l1`.

    Returns:
      loss(outputs, batch, step) -> LossTerm, where `outputs['rpn']` has `deltas` and `targets` [B, A, 4], and `labels`
      int32 [B, A] (1, 0, or -1 for anchors not in the sample).

    Raises:
      UserError: if a setting is out of range.
    """
    coefficient = check_number('losses.rpn_box.weight', weight, 0.0)
    beta = check_number('losses.rpn_box.beta', beta, above=True)

    def loss(outputs, batch, step) -> LossTerm:
        del batch, step
        rpn = outputs['rpn']
        deltas = regions.exact(rpn['deltas'])
        positive = ops.cast(ops.equal(rpn['labels'], 1), deltas.dtype)
        sampled = ops.sum(ops.cast(rpn['labels'] >= 0, deltas.dtype), axis=-1)
        distance = regions.smooth_l1(deltas - ops.cast(rpn['targets'], deltas.dtype), beta)
        return LossTerm(coefficient * ops.sum(positive * ops.sum(distance, axis=-1), axis=-1), sampled)

    return loss
