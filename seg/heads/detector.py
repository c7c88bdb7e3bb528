"""Detector: from class probabilities and box deltas of regions to detections."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras import ops

from seg.ops import boxes as boxes_lib
from seg.ops.gathering import batched_gather
from seg.ops.nms import nms

MIN_SIDE = 0.01  # Detections of a smaller height or width, in pixels, are dropped.


@dataclasses.dataclass(frozen=True)
class Detector:
    """Post-processing: scores above a threshold, non-maximum suppression within each class, the best of all.

    Attributes:
      score_threshold: detections have a higher score.
      nms_iou: IoU above which, of two detections of one class, the one with the lower score is dropped.
      max_detections: detections per image.
      pre_nms: (region, class) pairs per image that enter the suppression, the best of those over the threshold.
    """

    score_threshold: float
    nms_iou: float
    max_detections: int
    pre_nms: int

    def detect(
        self, boxes: Any, valid: Any, probabilities: Any, deltas: Any, code_weights: Sequence[float], size: Any
    ) -> dict[str, Any]:
        """Turns regions into detections.

        Args:
          boxes: [B, R, 4], the regions.
          valid: bool [B, R], false for empty rows.
          probabilities: [B, R, K + 1], background first.
          deltas: [B, R, C, 4], box codes of each class (C = K) or of all (C = 1).
          code_weights: factors of the codes, see `seg.ops.boxes.decode`.
          size: int32 [B, 2], height and width of each image within its padding; boxes are clipped to it.

        Returns:
          `boxes` [B, D, 4] in pixels, `scores` [B, D] and `classes` int32 [B, D], by decreasing score; 0, 0 and -1 in
          empty rows.
        """
        regions, classes, codes = boxes.shape[1], probabilities.shape[-1] - 1, deltas.shape[2]
        scores = probabilities[..., 1:]
        wanted = ops.logical_and(valid[..., None], scores > self.score_threshold)
        scores = ops.reshape(ops.where(wanted, scores, -float('inf')), (-1, regions * classes))
        scores, pairs = ops.top_k(scores, min(self.pre_nms, regions * classes))
        pairs = ops.cast(pairs, 'int32')
        region, label = pairs // classes, pairs % classes
        deltas = ops.reshape(deltas, (-1, regions * codes, 4))
        delta = batched_gather(deltas, region if codes == 1 else pairs)
        moved = boxes_lib.clip(boxes_lib.decode(delta, batched_gather(boxes, region), code_weights), size)
        large = ops.all(moved[..., 2:] - moved[..., :2] >= MIN_SIDE, axis=-1)
        scores = ops.where(large, scores, -float('inf'))
        index, found = nms(moved, scores, self.nms_iou, self.max_detections, label)
        return {
            'boxes': ops.where(found[..., None], batched_gather(moved, index), 0),
            'scores': ops.where(found, batched_gather(scores, index), 0),
            'classes': ops.where(found, batched_gather(label, index), -1),
        }
