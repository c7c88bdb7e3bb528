"""Cross-entropy of the hardest pixels only."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops

from seg.losses import class_weights as class_weights_lib
from seg.losses import pixels as pixels_lib
from seg.number_checks import check_number
from seg.registry import losses
from seg.structures import ClassHistogram, LossTerm


@losses.register('ohem_cross_entropy', target='label_map')
def ohem_cross_entropy(
    *,
    num_classes: int,
    ignore_label: int,
    class_histogram: Callable[[], ClassHistogram],
    weight: float = 1.0,
    hard_fraction: float = 0.25,
    anneal_steps: int = 0,
    class_weights: str | tuple[float, ...] | None = None,
    class_weight_cap: float = 10.0,
) -> Callable[..., LossTerm]:
    """Softmax cross-entropy of the hardest pixels of each image (online hard example mining).

    Of an image with n labelled pixels, the `k = round(fraction * n)` (at least one) with the largest loss count, and
    the divisor is k: the loss is the mean over all kept pixels of the batch. `fraction` falls linearly from 1 at step 0
    to `hard_fraction` at step `anneal_steps`. Class weights multiply a pixel's loss before the choice. Pixels that tie
    for the last places get equal weights there, so that the gradient does not depend on an order. An image without a
    labelled pixel has total 0 and weight 0.

    Paper: Shrivastava et al. 2016, 'Training region-based object detectors with online hard example mining'; per pixel
    as in the DeepLab recipes' top-k loss, but chosen within each image.

    Args:
      num_classes: supplied.
      ignore_label: supplied.
      class_histogram: supplied; counts the training set's pixels.
      weight: coefficient of this loss in the sum of losses.
      hard_fraction: fraction of the labelled pixels to keep, in (0, 1].
      anneal_steps: steps from keeping all pixels to keeping `hard_fraction`; 0 keeps `hard_fraction` from the start.
      class_weights: None; one number per class; or 'auto' (see softmax_cross_entropy).
      class_weight_cap: largest weight that 'auto' gives.

    Returns:
      loss(outputs, batch, step) -> LossTerm, of `outputs['logits']` [B, H, W, K] and `batch['label']` int [B, H, W].

    Raises:
      UserError: if a setting is out of its range.
    """
    slot = 'losses.ohem_cross_entropy'
    coefficient = check_number(f'{slot}.weight', weight, 0.0)
    check_number(f'{slot}.hard_fraction', hard_fraction, 0, 1, above=True)
    check_number(f'{slot}.anneal_steps', anneal_steps, 0.0)
    weights = class_weights_lib.resolve(
        class_weights, slot=slot, num_classes=num_classes, class_histogram=class_histogram, cap=class_weight_cap
    )

    def kept_fraction(step, dtype):
        if not anneal_steps:
            return ops.convert_to_tensor(hard_fraction, dtype)  # A cast would go through float32.
        progress = ops.minimum(ops.cast(step, dtype) / anneal_steps, 1.0)
        return 1.0 - (1.0 - hard_fraction) * progress

    def loss(outputs, batch, step) -> LossTerm:
        pixels = pixels_lib.read(outputs, batch, num_classes=num_classes, ignore_label=ignore_label)
        dtype = pixels.logits.dtype
        cross_entropy, target_weights = pixels_lib.cross_entropy(pixels, weights)
        losses_ = target_weights * cross_entropy

        kept = ops.maximum(ops.round(kept_fraction(step, dtype) * pixels.count), 1.0)
        kept = ops.minimum(kept, pixels.count)
        # Losses are never negative: -1 puts the ignored pixels last.
        rank_by = ops.stop_gradient(ops.where(pixels.valid, losses_, ops.cast(-1.0, dtype)))
        descending = -ops.sort(-rank_by, axis=-1)
        last = ops.maximum(ops.cast(kept, 'int32') - 1, 0)
        threshold = ops.take_along_axis(descending, last[:, None], axis=-1)

        above = ops.cast(rank_by > threshold, dtype)
        tied = ops.cast(ops.logical_and(rank_by == threshold, pixels.valid), dtype)
        places = kept - ops.sum(above, axis=-1)
        weight_of_tied = places / ops.maximum(ops.sum(tied, axis=-1), 1.0)
        total = ops.sum((above + weight_of_tied[:, None] * tied) * losses_, axis=-1)
        return pixels.term(total, kept, coefficient)

    return loss
