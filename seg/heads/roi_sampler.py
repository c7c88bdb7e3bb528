"""ROI sampler: selects the proposals that a detector's second stage is trained on, and their targets."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from keras import ops

from seg.ops import boxes as boxes_lib
from seg.ops import matching, sampling
from seg.ops.gathering import batched_gather

_SALT = 0xB0C5  # Makes the sampler's random numbers differ from others of the same seed.


class Truth(NamedTuple):
    """Ground-truth instances of a batch of images.

    Attributes:
      boxes: [B, N, 4] in pixels, float32 or better.
      classes: int32 [B, N], 0 to K - 1.
      valid: bool [B, N], false for padding.
    """

    boxes: Any
    classes: Any
    valid: Any


class Rois(NamedTuple):
    """Regions of interest: proposals to train on, positives first.

    Attributes:
      boxes: [B, R, 4] in pixels; 0 in empty rows.
      classes: int32 [B, R]: 0 for background, class + 1, or -1 in empty rows.
      index: int32 [B, R], the ground-truth instance that each overlaps most.
    """

    boxes: Any
    classes: Any
    index: Any


@dataclasses.dataclass(frozen=True)
class RoiSampler:
    """Samples proposals in a fixed proportion of positives and negatives, and matches regions with the ground truth.

    Attributes:
      sampled: proposals per image to train on.
      positive_fraction: largest fraction of positives among them.
      positive_iou: lowest IoU with a ground-truth box at which a region is positive; below it is background.
    """

    sampled: int
    positive_fraction: float
    positive_iou: float

    @property
    def max_positives(self) -> int:
        return int(self.sampled * self.positive_fraction)

    def sample(self, boxes: Any, valid: Any, truth: Truth, seed: Any) -> Rois:
        """Samples proposals to train on.

        Args:
          boxes: [B, R, 4], the proposals.
          valid: bool [B, R], false for empty rows.
          truth: ground truth; its boxes are candidates as well.
          seed: int32 [B, 2], seed of the random choice.
        """
        boxes = ops.concatenate([boxes, truth.boxes], axis=1)
        valid = ops.concatenate([valid, truth.valid], axis=1)
        index, positive = self._match(boxes, truth)
        negative = ops.logical_and(valid, ops.logical_not(positive))
        positive = ops.logical_and(valid, positive)
        chosen = sampling.balanced(positive, negative, seed, self.sampled, self.positive_fraction, salt=_SALT)
        places, kind = sampling.first(chosen, self.sampled)
        index = batched_gather(index, places)
        boxes = ops.where(ops.expand_dims(kind >= 0, -1), batched_gather(boxes, places), 0)
        classes = ops.where(ops.equal(kind, 1), batched_gather(truth.classes, index) + 1, kind)
        return Rois(boxes, classes, index)

    def relabel(self, boxes: Any, rois: Rois, truth: Truth) -> Rois:
        """Matches the same regions, whose boxes have moved to `boxes` [B, R, 4], with the ground truth again."""
        index, positive = self._match(boxes, truth)
        classes = ops.where(positive, batched_gather(truth.classes, index) + 1, 0)
        return Rois(boxes, ops.where(rois.classes < 0, -1, classes), index)

    def positives(self, rois: Rois) -> Rois:
        """Returns the positive regions alone, [B, max_positives, ...]."""
        places, kind = sampling.first(ops.where(rois.classes > 0, 1, -1), self.max_positives)
        chosen = ops.equal(kind, 1)
        boxes = ops.where(chosen[..., None], batched_gather(rois.boxes, places), 0)
        classes = ops.where(chosen, batched_gather(rois.classes, places), -1)
        return Rois(boxes, classes, batched_gather(rois.index, places))

    def _match(self, boxes: Any, truth: Truth) -> tuple[Any, Any]:
        """Returns the best instance of each box, int32 [B, R], and whether the box is positive, bool [B, R]."""
        overlap = boxes_lib.iou(boxes, truth.boxes)
        index, kind = matching.match(overlap, truth.valid, self.positive_iou, self.positive_iou, force_best=False)
        return index, ops.equal(kind, 1)
