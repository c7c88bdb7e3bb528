"""Lovász-softmax loss."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops

from seg.losses import pixels as pixels_lib
from seg.number_checks import check_number
from seg.registry import losses
from seg.structures import LossTerm


@losses.register('lovasz_softmax', target='label_map')
def lovasz_softmax(*, num_classes: int, ignore_label: int, weight: float = 1.0) -> Callable[..., LossTerm]:
    """Lovász-softmax loss per image: a convex surrogate of 1 - IoU, the mean over the classes present.

    For a class c the error of a labelled pixel is `1 - p[c]` if c is its true class, otherwise `p[c]`. With the errors
    m in decreasing order and J(i) = 1 - IoU if the i pixels with the largest errors are wrong, the loss of the class
    is `sum over i of m[i] * (J(i) - J(i - 1))`. For hard predictions that is 1 - IoU itself. An image's loss is
    the mean over the classes that it contains; it is divided by the number of images with a labelled pixel, and an
    image without one has total 0 and weight 0.

    It sorts all pixels once per class, which is slow on CPUs (seconds for a batch of 513 x 513), and trains badly from
    random weights: the authors fine-tune with it, or add it to cross-entropy.

    Paper: Berman et al. 2018, 'The Lovász-softmax loss' (there: per image, classes present).

    Args:
      num_classes: supplied.
      ignore_label: supplied.
      weight: coefficient of this loss in the sum of losses.

    Returns:
      loss(outputs, batch, step) -> LossTerm, of `outputs['logits']` [B, H, W, K] and `batch['label']` int [B, H, W].

    Raises:
      UserError: if `weight` is not a number of at least 0.
    """
    coefficient = check_number('losses.lovasz_softmax.weight', weight, 0.0)

    def loss(outputs, batch, step) -> LossTerm:
        del step
        pixels = pixels_lib.read(outputs, batch, num_classes=num_classes, ignore_label=ignore_label)
        dtype = pixels.logits.dtype
        truth = ops.transpose(pixels.one_hot(), (0, 2, 1))
        scores = ops.transpose(ops.softmax(pixels.logits, axis=-1), (0, 2, 1))
        valid = pixels.valid[:, None, :]

        errors = ops.where(valid, truth + scores * (1.0 - 2.0 * truth), ops.cast(0.0, dtype))  # [B, K, N]
        # Errors are never negative: ignored pixels come last, where their error of 0 adds nothing.
        order = ops.argsort(ops.where(valid, -ops.stop_gradient(errors), ops.cast(1.0, dtype)), axis=-1)
        errors = ops.take_along_axis(errors, order, axis=-1)
        truth = ops.take_along_axis(ops.cast(truth, 'int32'), order, axis=-1)

        # Integers, and the differences of J in closed form: subtraction of J itself loses half the digits of float32.
        truth_size = ops.sum(truth, axis=-1, keepdims=True)
        overlap = truth_size - ops.cumsum(truth, axis=-1)
        union = truth_size + ops.cumsum(1 - truth, axis=-1)
        overlap, union = ops.cast(overlap, dtype), ops.cast(union, dtype)
        step_if_truth = 1.0 / ops.maximum(union, 1.0)
        step_if_other = overlap / (ops.maximum(union, 1.0) * ops.maximum(union - 1.0, 1.0))
        steps = ops.stop_gradient(ops.where(truth == 1, step_if_truth, step_if_other))

        present = ops.cast(truth_size[..., 0] > 0, dtype)
        losses_ = present * ops.sum(errors * steps, axis=-1)
        total = ops.sum(losses_, axis=-1) / ops.maximum(ops.sum(present, axis=-1), 1.0)
        return pixels.term(total, ops.minimum(pixels.count, 1.0), coefficient)

    return loss
