"""Class weights: set by the user, or computed from the pixel counts of the data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from seg.errors import UserError
from seg.number_checks import check_number
from seg.structures import ClassHistogram

# Weight of a class without a labelled pixel.
ABSENT_CLASS_WEIGHT = 1.0


def resolve(
    setting: str | Sequence[float] | None,
    *,
    slot: str,
    num_classes: int,
    class_histogram: Callable[[], ClassHistogram],
    cap: float,
) -> np.ndarray | None:
    """Turns the setting `class_weights` into numbers.

    Args:
      setting: None, 'auto', or one number per class.
      slot: name of the loss, for messages.
      num_classes: number of classes.
      class_histogram: returns the pixel counts; called for 'auto' only, because counting reads the whole data set.
      cap: largest weight that 'auto' gives.

    Returns:
      [num_classes] float64, or None.

    Raises:
      UserError: if the setting is none of the three.
    """
    if setting is None:
        return None
    if isinstance(setting, str):
        if setting != 'auto':
            raise _wrong(slot, setting, num_classes)
        check_number(f'{slot}.class_weight_cap', cap, 1.0)
        histogram = class_histogram()
        weights = median_frequency(histogram, cap, slot)
        if len(weights) != num_classes:
            raise ValueError(f'{slot}: the class histogram has {len(weights)} classes, the loss {num_classes}.')
        logging.info('%s', table(histogram, weights, cap, slot))
        return weights
    try:
        weights = np.asarray(setting, np.float64)
    except (TypeError, ValueError):
        raise _wrong(slot, setting, num_classes) from None
    if weights.shape != (num_classes,) or not np.all(np.isfinite(weights)) or np.any(weights < 0) or not weights.any():
        raise _wrong(slot, setting, num_classes)
    return weights


def _wrong(slot: str, setting, num_classes: int) -> UserError:
    count = '' if isinstance(setting, str) or not isinstance(setting, Sequence) else f' ({len(setting)} values)'
    return UserError(
        f"{slot}.class_weights = {setting!r}{count}: expected None, 'auto' (median frequency of the training set) or "
        f'one number of at least 0 for each of the {num_classes} classes, not all of them 0.'
    )


def _frequencies(histogram: ClassHistogram) -> np.ndarray:
    pixels = np.asarray(histogram.pixels, np.float64)
    return pixels / np.maximum(np.asarray(histogram.present_pixels, np.float64), 1.0)


def median_frequency(histogram: ClassHistogram, cap: float, slot: str = 'class_weights') -> np.ndarray:
    """Median frequency balancing (Eigen and Fergus 2015, section 6.3.2).

    `freq[c]` = pixels of class c / labelled pixels of the images that contain c; `weight[c]` = median of all `freq` /
    `freq[c]`, at most `cap`. A class without pixels is excluded from the median and has the weight 1.

    Raises:
      UserError: if no pixel of the data set is labelled.
    """
    frequencies = _frequencies(histogram)
    present = frequencies > 0
    if not present.any():
        raise UserError(f"{slot}.class_weights = 'auto': the data set has no labelled pixel to count.")
    weights = np.full(frequencies.shape, ABSENT_CLASS_WEIGHT)
    weights[present] = np.minimum(np.median(frequencies[present]) / frequencies[present], cap)
    return weights


def table(histogram: ClassHistogram, weights: np.ndarray, cap: float, slot: str) -> str:
    """Returns a table of the weights and the pixel counts, one line per class."""
    pixels = np.asarray(histogram.pixels, np.int64)
    frequencies = _frequencies(histogram)
    lines = [
        f"{slot}.class_weights = 'auto': median frequency / frequency, at most {cap:g}; "
        'frequency = pixels of the class / labelled pixels of the images that contain it',
        f'{"class":>6} {"pixels":>16} {"percent":>8} {"frequency":>10} {"weight":>8}',
    ]
    for c, weight in enumerate(weights):
        if not pixels[c]:
            note = '  no pixels'
        else:
            note = '  capped' if math.isclose(weight, cap) else ''
        percent = 100 * pixels[c] / max(int(pixels.sum()), 1)
        lines.append(f'{c:>6} {pixels[c]:>16,} {percent:>7.2f}% {frequencies[c]:>10.5f} {weight:>8.3f}{note}')
    return '\n'.join(lines)
