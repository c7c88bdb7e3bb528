"""Right, wrong and missed instances at the best score threshold, for users of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seg.masks import matching
from seg.metrics.coco_evaluation import IouMatrix


class MatchedDetections(NamedTuple):
    """The detections of all images and classes, without those in crowd regions.

    Attributes:
      scores: float64 [D].
      right: bool [D], whether a detection matches an instance.
      labels: int [D], classes.
    """

    scores: np.ndarray
    right: np.ndarray
    labels: np.ndarray


class OperatingPoint(NamedTuple):
    """The score threshold with the highest F1, and its counts.

    Attributes:
      threshold: lowest score that counts; None without detections.
      right: number of detections that match an instance.
      wrong: number of detections that match none.
      missed: number of instances without a detection.
    """

    threshold: float | None
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float | None:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed)

    @property
    def f1(self) -> float:
        return 2 * self.right / (2 * self.right + self.wrong + self.missed)

    @property
    def threat_score(self) -> float:
        return self.right / (self.right + self.wrong + self.missed)


def match_all(matrices: Sequence[IouMatrix]) -> MatchedDetections:
    """Matches detections with instances at IoU .5, class by class. Detections in a crowd region are excluded."""
    matched = [matching.match(matrix.ious, matrix.crowd) for matrix in matrices]
    counts = [found != matching.CROWD for found in matched]
    scores = [matrix.scores[c] for matrix, c in zip(matrices, counts, strict=True)]
    right = [found[c] >= 0 for found, c in zip(matched, counts, strict=True)]
    labels = [np.full(np.sum(c), matrix.label) for matrix, c in zip(matrices, counts, strict=True)]
    return MatchedDetections(
        np.concatenate([np.zeros(0), *scores]),
        np.concatenate([np.zeros(0, bool), *right]),
        np.concatenate([np.zeros(0, np.int64), *labels]),
    )


def best_point(matched: MatchedDetections, instances: int) -> OperatingPoint:
    """Finds the threshold with the highest F1 over all classes together; of equal ones the highest threshold.

    Detections with equal scores are kept or dropped together.

    Args:
      matched: all detections.
      instances: number of instances that are not crowds, at least 1.
    """
    order = np.argsort(-matched.scores, kind='stable')
    scores, right = matched.scores[order], np.cumsum(matched.right[order])
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else []
    if not len(ends):
        return OperatingPoint(None, 0, 0, instances)
    best = ends[np.argmax(2 * right[ends] / (ends + 1 + instances))]
    return OperatingPoint(
        float(scores[best]), int(right[best]), int(best + 1 - right[best]), int(instances - right[best])
    )
