"""Losses of ROIs: class, box and mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from seg.losses import regions
from seg.number_checks import check_number
from seg.registry import losses
from seg.structures import LossTerm


@losses.register('box_class', target='instances')
def box_class(*, num_classes: int, weight: float = 1.0) -> Callable[..., LossTerm]:
    """Softmax cross-entropy of the sampled ROIs' classes, divided by their number.

    Args:
      num_classes: supplied.
      weight: coefficient of this loss in the sum of losses.

    Returns:
      loss(outputs, batch, step) -> LossTerm, where `outputs['boxes']` has for each box head `class_logits`
      [B, R, K + 1], `classes` int32 [B, R] (0 for background, class + 1, or -1 for empty rows, which are equal for all
      heads) and the scalar `weight` of its loss. It counts `rois_positive` and `rois_negative` of the
      first head.

    Raises:
      UserError: if a setting is out of range.
    """
    coefficient = check_number('losses.box_class.weight', weight, 0.0)

    def loss(outputs, batch, step) -> LossTerm:
        del batch, step
        total = 0
        for stage in outputs['boxes']:
            surprise = -ops.log_softmax(regions.exact(stage['class_logits']), axis=-1)
            # All zero in empty rows.
            chosen = ops.one_hot(stage['classes'], num_classes + 1, dtype=surprise.dtype)
            total = total + _weight(stage, surprise) * ops.sum(chosen * surprise, axis=(1, 2))
        classes = outputs['boxes'][0]['classes']
        positive, negative = (
            ops.sum(ops.cast(kind, total.dtype), axis=-1) for kind in (classes > 0, ops.equal(classes, 0))
        )
        counts = {'rois_positive': positive, 'rois_negative': negative}
        return LossTerm(coefficient * total, positive + negative, counts)

    return loss


@losses.register('box_regression', target='instances')
def box_regression(*, weight: float = 1.0, beta: float = 1.0) -> Callable[..., LossTerm]:
    """Smooth L1 of the positive ROIs' box codes, divided by the number of all sampled ROIs.

    Girshick, "Fast R-CNN", ICCV 2015, with its beta of 1, as in the Cloud TPU, Detectron and mmdetection recipes of
    Mask and Cascade R-CNN. torchvision trains with 1/9 and detectron2 with 0 (plain L1, which has a kink at 0):
    to fine-tune their weights, a small beta keeps their larger gradients of small errors.

    Args:
      weight: coefficient of this loss in the sum of losses.
      beta: difference at which the square changes to a line; see `seg.losses.regions.smooth_l1`.

    Returns:
      loss(outputs, batch, step) -> LossTerm, where `outputs['boxes']` has for each box head `deltas` [B, R, C, 4],
      C = K or 1, `targets` [B, R, 4], `classes` int32 [B, R] (0 for background, class + 1, or -1 for empty rows,
      which are equal for all heads) and the scalar `weight` of its loss.

    Raises:
      UserError: if a setting is out of range.
    """
    coefficient = check_number('losses.box_regression.weight', weight, 0.0)
    beta = check_number('losses.box_regression.beta', beta, above=True)

    def loss(outputs, batch, step) -> LossTerm:
        del batch, step
        total = 0
        for stage in outputs['boxes']:
            deltas = ops.transpose(regions.exact(stage['deltas']), (0, 1, 3, 2))
            positive = ops.cast(stage['classes'] > 0, deltas.dtype)
            difference = regions.of_class(deltas, stage['classes']) - ops.cast(stage['targets'], deltas.dtype)
            distance = ops.sum(regions.smooth_l1(difference, beta), axis=-1)
            total = total + _weight(stage, distance) * ops.sum(positive * distance, axis=-1)
        sampled = ops.sum(ops.cast(outputs['boxes'][0]['classes'] >= 0, total.dtype), axis=-1)
        return LossTerm(coefficient * total, sampled)

    return loss


@losses.register('mask', target='instances')
def mask(*, weight: float = 1.0) -> Callable[..., LossTerm]:
    """Sigmoid cross-entropy of the positive ROIs' masks: the mean over pixels and ROIs.

    Args:
      weight: coefficient of this loss in the sum of losses.

    Returns:
      loss(outputs, batch, step) -> LossTerm, where `outputs['masks']` has `logits` [B, P, m, m, C], of all classes
      or of the true one only (C = K or 1), `targets` [B, P, m, m] in {0, 1}, and `classes` int32 [B, P], class + 1, or
      -1 for empty rows.

    Raises:
      UserError: if the weight is out of range.
    """
    coefficient = check_number('losses.mask.weight', weight, 0.0)

    def loss(outputs, batch, step) -> LossTerm:
        del batch, step
        masks = outputs['masks']
        logits = regions.exact(masks['logits'])
        _, count, *sides, channels = logits.shape
        pixels = sides[0] * sides[1]
        logits = regions.of_class(ops.reshape(logits, (-1, count, pixels, channels)), masks['classes'])
        targets = ops.cast(ops.reshape(masks['targets'], (-1, count, pixels)), logits.dtype)
        positive = ops.cast(masks['classes'] > 0, logits.dtype)
        mean = ops.mean(regions.sigmoid_cross_entropy(logits, targets), axis=-1)
        return LossTerm(coefficient * ops.sum(positive * mean, axis=-1), ops.sum(positive, axis=-1))

    return loss


def _weight(stage: dict[str, Any], like: Any) -> Any:
    return ops.cast(stage['weight'], like.dtype)
