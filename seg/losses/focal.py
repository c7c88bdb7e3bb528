"""Focal loss."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops

from seg.losses import class_weights as class_weights_lib
from seg.losses import pixels as pixels_lib
from seg.number_checks import check_number
from seg.registry import losses
from seg.structures import ClassHistogram, LossTerm


@losses.register('focal', target='label_map')
def focal(
    *,
    num_classes: int,
    ignore_label: int,
    class_histogram: Callable[[], ClassHistogram],
    weight: float = 1.0,
    gamma: float = 2.0,
    class_weights: str | tuple[float, ...] | None = None,
    class_weight_cap: float = 10.0,
) -> Callable[..., LossTerm]:
    """Focal loss over the softmax: easy pixels have little weight.

    A pixel's loss is `w[y] * (1 - p[y]) ** gamma * -log p[y]`, and the sum is divided by the sum of `w[y]` over the
    labelled pixels, so that `gamma = 0` is softmax_cross_entropy. The class weights w are the paper's alpha, one per
    class. An image without a labelled pixel has total 0 and weight 0.

    Paper: Lin et al. 2017, 'Focal loss for dense object detection'. There it is a sigmoid per class, divided by the
    number of positives; here it is the multi-class form over a softmax.

    Args:
      num_classes: supplied.
      ignore_label: supplied.
      class_histogram: supplied; counts the training set's pixels.
      weight: coefficient of this loss in the sum of losses.
      gamma: exponent that reduces the weight of easy pixels, 0 or more.
      class_weights: None; one number per class; or 'auto' (see softmax_cross_entropy).
      class_weight_cap: largest weight that 'auto' gives.

    Returns:
      loss(outputs, batch, step) -> LossTerm, of `outputs['logits']` [B, H, W, K] and `batch['label']` int [B, H, W].

    Raises:
      UserError: if a setting is out of its range.
    """
    slot = 'losses.focal'
    coefficient = check_number(f'{slot}.weight', weight, 0.0)
    check_number(f'{slot}.gamma', gamma, 0.0)
    weights = class_weights_lib.resolve(
        class_weights, slot=slot, num_classes=num_classes, class_histogram=class_histogram, cap=class_weight_cap
    )

    def loss(outputs, batch, step) -> LossTerm:
        del step
        pixels = pixels_lib.read(outputs, batch, num_classes=num_classes, ignore_label=ignore_label)
        cross_entropy, target_weights = pixels_lib.cross_entropy(pixels, weights)
        # 1 - p, accurate for p near 1. The floor keeps the gradient of the power finite for gamma < 1 and p = 1.
        miss = ops.maximum(-ops.expm1(-cross_entropy), 1e-30)
        losses_ = target_weights * cross_entropy
        if gamma:
            losses_ = ops.power(miss, gamma) * losses_
        return pixels.term(ops.sum(losses_, axis=-1), ops.sum(target_weights, axis=-1), coefficient)

    return loss
