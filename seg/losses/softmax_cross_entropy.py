"""Cross-entropy of a softmax over the classes."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops

from seg.losses import class_weights as class_weights_lib
from seg.losses import pixels as pixels_lib
from seg.number_checks import check_number
from seg.registry import losses
from seg.structures import ClassHistogram, LossTerm


@losses.register('softmax_cross_entropy', target='label_map')
def softmax_cross_entropy(
    *,
    num_classes: int,
    ignore_label: int,
    class_histogram: Callable[[], ClassHistogram],
    weight: float = 1.0,
    class_weights: str | tuple[float, ...] | None = None,
    class_weight_cap: float = 10.0,
    label_smoothing: float = 0.0,
) -> Callable[..., LossTerm]:
    """Softmax cross-entropy, with optional class weights and label smoothing.

    With y the label of a pixel, w the class weights, K classes and smoothing e, a pixel's loss is

        (1 - e) * w[y] * -log p[y]  +  e / K * sum over c of w[c] * -log p[c]

    and the sum is divided by the sum of w[y]: a mean over the labelled pixels of the batch, weighted by class. An
    image without a labelled pixel has total 0 and weight 0.

    Args:
      num_classes: supplied.
      ignore_label: supplied.
      class_histogram: supplied; counts the training set's pixels.
      weight: coefficient of this loss in the sum of losses.
      class_weights: None; one number per class; or 'auto', median frequency balancing (Eigen and Fergus 2015) from the
        training set's pixel counts, printed as a table before training.
      class_weight_cap: largest weight that 'auto' gives.
      label_smoothing: fraction of the target that is spread evenly over all classes, in [0, 1) (Szegedy et al. 2016).

    Returns:
      loss(outputs, batch, step) -> LossTerm, of `outputs['logits']` [B, H, W, K] and `batch['label']` int [B, H, W].

    Raises:
      UserError: if a setting is out of its range.
    """
    slot = 'losses.softmax_cross_entropy'
    coefficient = check_number(f'{slot}.weight', weight, 0.0)
    smoothing = check_number(f'{slot}.label_smoothing', label_smoothing, 0.0, 1.0, below=True)
    weights = class_weights_lib.resolve(
        class_weights, slot=slot, num_classes=num_classes, class_histogram=class_histogram, cap=class_weight_cap
    )

    def loss(outputs, batch, step) -> LossTerm:
        del step
        pixels = pixels_lib.read(outputs, batch, num_classes=num_classes, ignore_label=ignore_label)
        cross_entropy, target_weights = pixels_lib.cross_entropy(pixels, weights)
        total = ops.sum(target_weights * cross_entropy, axis=-1)
        if smoothing:
            surprise = -ops.log_softmax(pixels.logits, axis=-1)
            if weights is not None:
                surprise = surprise * ops.convert_to_tensor(weights, pixels.logits.dtype)
            valid = ops.cast(pixels.valid, pixels.logits.dtype)
            spread = ops.sum(valid * ops.mean(surprise, axis=-1), axis=-1)
            total = (1.0 - smoothing) * total + smoothing * spread
        return pixels.term(total, ops.sum(target_weights, axis=-1), coefficient)

    return loss
