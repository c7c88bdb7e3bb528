"""Soft Dice loss."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops

from seg.losses import pixels as pixels_lib
from seg.number_checks import check_number
from seg.registry import losses
from seg.structures import LossTerm


@losses.register('dice', target='label_map')
def dice(*, num_classes: int, ignore_label: int, weight: float = 1.0) -> Callable[..., LossTerm]:
    """Soft Dice loss per image, the mean over the classes that the image contains.

    With p the softmax and g the one-hot truth over an image's labelled pixels i,

        loss = mean over the classes c with a pixel in g of  1 - 2 * sum_i p[i,c] g[i,c] / sum_i (p[i,c]^2 + g[i,c])

    (g^2 = g). A class that the image does not contain is excluded: its Dice is always 0, and false predictions of it
    already lower the classes that the image contains. The loss is divided by the number of images with a labelled
    pixel; an image without one has total 0 and weight 0.

    Paper: Milletari et al. 2016, 'V-Net' (squares in the divisor); several classes with equal weight, unlike the
    volume weights of Sudre et al. 2017.

    Args:
      num_classes: supplied.
      ignore_label: supplied.
      weight: coefficient of this loss in the sum of losses.

    Returns:
      loss(outputs, batch, step) -> LossTerm, of `outputs['logits']` [B, H, W, K] and `batch['label']` int [B, H, W].

    Raises:
      UserError: if `weight` is not a number of at least 0.
    """
    coefficient = check_number('losses.dice.weight', weight, 0.0)

    def loss(outputs, batch, step) -> LossTerm:
        del step
        pixels = pixels_lib.read(outputs, batch, num_classes=num_classes, ignore_label=ignore_label)
        dtype = pixels.logits.dtype
        truth = pixels.one_hot()
        valid = ops.cast(pixels.valid, dtype)[..., None]
        scores = valid * ops.softmax(pixels.logits, axis=-1)
        truth_size = ops.sum(truth, axis=1)
        present = ops.cast(truth_size > 0, dtype)
        overlap = ops.sum(scores * truth, axis=1)
        size = ops.sum(scores * scores, axis=1) + truth_size
        # For a class that is present `size` is at least 1; the others are masked out.
        losses_ = present * (1.0 - 2.0 * overlap / ops.maximum(size, 1.0))
        total = ops.sum(losses_, axis=-1) / ops.maximum(ops.sum(present, axis=-1), 1.0)
        return pixels.term(total, ops.minimum(pixels.count, 1.0), coefficient)

    return loss
