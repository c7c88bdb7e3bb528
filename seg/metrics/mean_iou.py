"""Mean intersection over union from an integer confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from seg.drawing import charts
from seg.errors import UserError
from seg.metrics.base import SumMetric
from seg.registry import metrics
from seg.structures import ImageSummary

# Invalid class ids are counted by value, so that the message can name them: a bin for values below 0, one for each of 0
# to 255, one for values above.
_INVALID_BINS = 258


@metrics.register('mean_iou', target='label_map')
class MeanIoU(SumMetric):
    """Mean IoU, IoU of each class and pixel accuracy, from an exact confusion matrix.

    Only labelled pixels of readable images count: their label is not the ignore label, and the image's weight is not 0.
    With n[t, p] the number of pixels of true class t with prediction p,
    `IoU[c] = n[c, c] / (sum_p n[c, p] + sum_t n[t, c] - n[c, c])`. A class that occurs neither in the ground truth nor
    in the predictions has no IoU and is excluded from the mean; a class that is only predicted has IoU 0 and is
    included. The matrix is summed over the whole data set first, and does not depend on the division into batches and
    replicas.

    Attributes:
      confusion: [K, K] int64, pixels by (true class, predicted class), of all batches added so far.

    Args:
      num_classes: supplied; K.
      class_names: supplied; one per class.
      ignore_label: supplied; label value of ignored pixels.
    """

    def __init__(self, *, num_classes: int, class_names: Sequence[str], ignore_label: int):
        if len(class_names) != num_classes or len(set(class_names)) != num_classes:
            raise UserError(
                f'metrics.mean_iou: expected {num_classes} different class names, one per class; '
                f'received {len(class_names)}: {", ".join(class_names)}.'
            )
        self.num_classes = num_classes
        self.class_names = tuple(class_names)
        self.ignore_label = ignore_label
        self.reset()

    def reset(self) -> None:
        """Forgets all batches."""
        self.confusion = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, batch: Mapping[str, Any], predictions: Mapping[str, Any]) -> dict[str, Any]:
        """Counts one batch on the device. Pure; shapes are static; compiles with XLA.

        Args:
          batch: `label` int [B, H, W]; `weight` float [B], 0 for a padded or damaged example.
          predictions: `classes` int [B, H, W].

        Returns:
          `confusion` [K, K], `invalid_labels` [258] and `invalid_predictions` [258] (pixels whose id is not a class, by
          value: below 0, 0 to 255, above 255), all int32, for a sum over replicas. Exact if the batches that are summed
          before `add` have fewer than 2^31 pixels (5,000 images of 640 x 640).
        """
        k = self.num_classes
        labels = ops.cast(batch['label'], 'int32')
        classes = ops.cast(predictions['classes'], 'int32')
        if tuple(labels.shape) != tuple(classes.shape):
            raise ValueError(f'labels {labels.shape} and predicted classes {classes.shape} differ in shape.')

        counts = (labels != self.ignore_label) & (batch['weight'] > 0)[:, None, None]
        known_label = (labels >= 0) & (labels < k)
        known_class = (classes >= 0) & (classes < k)
        # One histogram for everything, in one pass over the pixels: K * K cells, invalid labels, invalid
        # predictions, and a last bin for the pixels that do not count.
        invalid_labels, invalid_classes, nowhere = k * k, k * k + _INVALID_BINS, k * k + 2 * _INVALID_BINS
        bins = ops.where(known_class, labels * k + classes, invalid_classes + ops.clip(classes, -1, 256) + 1)
        bins = ops.where(known_label, bins, invalid_labels + ops.clip(labels, -1, 256) + 1)
        bins = ops.reshape(ops.where(counts, bins, nowhere), (-1,))
        histogram = ops.segment_sum(ops.ones_like(bins), bins, num_segments=nowhere + 1)
        return {
            'confusion': ops.reshape(histogram[:invalid_labels], (k, k)),
            'invalid_labels': histogram[invalid_labels:invalid_classes],
            'invalid_predictions': histogram[invalid_classes:nowhere],
        }

    def add(self, values: Mapping[str, np.ndarray]) -> None:
        """Adds the counts of `update`, summed over replicas, on the host.

        Raises:
          UserError: if a label or a prediction is not a class id. Then nothing is added.
        """
        self._refuse_invalid(
            values['invalid_labels'],
            f'labels are neither a class (0 to {self.num_classes - 1}) nor the ignore label {self.ignore_label}',
            'Check the data set: its class names, its id mapping and its ignore label.',
        )
        self._refuse_invalid(
            values['invalid_predictions'],
            f'predicted ids are not a class (0 to {self.num_classes - 1})',
            "Check the model's number of output channels.",
        )
        self.confusion = self.confusion + np.asarray(values['confusion'], np.int64)

    @staticmethod
    def _refuse_invalid(counts: np.ndarray, problem: str, advice: str) -> None:
        counts = np.asarray(counts, np.int64)
        if not counts.any():
            return
        names = ['below 0', *(str(value) for value in range(_INVALID_BINS - 2)), f'above {_INVALID_BINS - 3}']
        found = ', '.join(f'{names[i]} ({counts[i]:,} pixels)' for i in np.flatnonzero(counts)[:8])
        raise UserError(f'metrics.mean_iou: {counts.sum():,} {problem}: {found}. {advice}')

    def names(self) -> list[str]:
        """All keys that `result` may have."""
        names = ['miou', 'miou_classes', 'pixel_accuracy', 'mean_accuracy', 'pixels']
        if self._has_background:
            names.append('miou_without_background')
        return names + [f'iou/{name}' for name in self.class_names]

    @property
    def _has_background(self) -> bool:
        return self.class_names[0].lower() == 'background'

    def result(self) -> dict[str, float]:
        """The scores of all batches added so far, as fractions.

        Returns:
          `miou`: mean IoU of the classes that occur in ground truth or prediction.
          `miou_classes`: number of these classes.
          `miou_without_background`: the same mean without class 0; only if class 0 is named 'background'.
          `pixel_accuracy`: fraction of the labelled pixels that are right.
          `mean_accuracy`: recall of a class, averaged over the classes that occur in the ground truth.
          `pixels`: labelled pixels counted.
          `iou/<class name>`: IoU of each class that occurs in truth or prediction. Others have no key: JSON
          has no NaN, and 0 or 1 would be wrong.

        Raises:
          UserError: if no labelled pixel was counted.
        """
        pixels = int(self.confusion.sum())
        if not pixels:
            raise UserError(
                'metrics.mean_iou: no labelled pixel was evaluated, so there is no score. '
                f'Either the split has no image, or all its labels are the ignore label {self.ignore_label}.'
            )
        right = np.diagonal(self.confusion).astype(np.float64)
        truth = self.confusion.sum(axis=1)
        ious = {c: float(iou) for c, iou in enumerate(self._ious()) if not np.isnan(iou)}

        scores = {'miou': float(np.mean(list(ious.values()))), 'miou_classes': len(ious)}
        others = [iou for c, iou in ious.items() if c]
        if self._has_background and others:
            scores['miou_without_background'] = float(np.mean(others))
        scores['pixel_accuracy'] = float(right.sum() / pixels)
        scores['mean_accuracy'] = float(np.mean(right[truth > 0] / truth[truth > 0]))
        scores['pixels'] = pixels
        return scores | {f'iou/{self.class_names[c]}': iou for c, iou in ious.items()}

    def charts(self) -> list[ImageSummary]:
        """Charts of all batches added so far: `confusion_matrix`, `class_iou` and `class_pixels`."""
        truth, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return [
            ImageSummary('confusion_matrix', charts.confusion_matrix(self.confusion, self.class_names)),
            ImageSummary('class_iou', charts.class_iou(self._ious(), self.class_names)),
            ImageSummary('class_pixels', charts.class_pixels(truth, predicted, self.class_names)),
        ]

    def details(self) -> dict[str, Any]:
        """`confusion`: the class names, and the pixels of each true class (row) by predicted class (column)."""
        return {'confusion': {'class_names': list(self.class_names), 'pixels': self.confusion.tolist()}}

    def _ious(self) -> np.ndarray:
        """[K] float64; NaN for a class that occurs neither in truth nor in prediction."""
        right = np.diagonal(self.confusion)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - right
        return np.divide(right, union, out=np.full(self.num_classes, np.nan), where=union > 0)


def image_mean_iou(labels, classes, num_classes: int, ignore_label: int) -> Any:
    """Mean IoU of each single image, over the classes that occur in its truth or its prediction.

    Args:
      labels: int [B, H, W]; ids that are neither a class nor the ignore label count as ignored.
      classes: int [B, H, W], all of them class ids.
      num_classes: K.
      ignore_label: label value of ignored pixels.

    Returns:
      float32 [B]; NaN for an image without a labelled pixel. Compiles with XLA.
    """
    batch, k = labels.shape[0], num_classes
    labels, classes = ops.cast(labels, 'int32'), ops.cast(classes, 'int32')
    counts = (labels != ignore_label) & (labels >= 0) & (labels < k)
    # One histogram for all images: K * K cells for each, and a last one for its pixels that do not count.
    cells = k * k + 1
    bins = ops.where(counts, labels * k + classes, cells - 1)
    bins = ops.reshape(bins + cells * ops.arange(batch, dtype='int32')[:, None, None], (-1,))
    histogram = ops.segment_sum(ops.ones_like(bins), bins, num_segments=batch * cells)
    confusion = ops.reshape(ops.reshape(histogram, (batch, cells))[:, :-1], (batch, k, k))
    right = ops.diagonal(confusion, axis1=1, axis2=2)
    union = ops.sum(confusion, 1) + ops.sum(confusion, 2) - right
    ious = ops.cast(right, 'float32') / ops.cast(ops.maximum(union, 1), 'float32')
    occurring = ops.sum(ops.cast(union > 0, 'float32'), 1)
    return ops.where(occurring > 0, ops.sum(ious, 1) / ops.maximum(occurring, 1), float('nan'))
