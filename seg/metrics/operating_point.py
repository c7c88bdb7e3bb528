"""Right, wrong and missed instances at one score threshold, the values for a user of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seg.masks import matching
from seg.metrics.coco_evaluation import Pair


class Judged(NamedTuple):
    """All detections of all images and classes that count.

    Attributes:
      scores: float64 [D].
      right: bool [D].
      labels: int [D], their classes.
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


def judge(pairs: Sequence[Pair]) -> Judged:
    """Decides which detections are right, at IoU .5, class by class. Those in a crowd region are excluded."""
    matched = [matching.match(pair.ious, pair.crowd) for pair in pairs]
    counts = [found != matching.CROWD for found in matched]
    scores = [pair.scores[c] for pair, c in zip(pairs, counts, strict=True)]
    right = [found[c] >= 0 for found, c in zip(matched, counts, strict=True)]
    labels = [np.full(np.sum(c), pair.label) for pair, c in zip(pairs, counts, strict=True)]
    return Judged(
        np.concatenate([np.zeros(0), *scores]),
        np.concatenate([np.zeros(0, bool), *right]),
        np.concatenate([np.zeros(0, np.int64), *labels]),
    )


def best_point(judged: Judged, objects: int) -> OperatingPoint:
    """Finds the threshold with the highest F1 over all classes together; the highest one of several.

    Detections with equal scores are kept or dropped together, so a threshold lies between two different scores.

    Args:
      judged: all detections.
      objects: number of instances that are not crowds, at least 1.
    """
    order = np.argsort(-judged.scores, kind='stable')
    scores, right = judged.scores[order], np.cumsum(judged.right[order])
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else []
    if not len(ends):
        return OperatingPoint(None, 0, 0, objects)
    best = ends[np.argmax(2 * right[ends] / (ends + 1 + objects))]
    return OperatingPoint(
        float(scores[best]), int(right[best]), int(best + 1 - right[best]), int(objects - right[best])
    )
