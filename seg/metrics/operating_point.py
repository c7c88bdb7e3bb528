"""Right, wrong and missed objects at one score threshold: what a user of the model gets. AP is over all thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seg.metrics.coco_evaluation import Pair

_IOU = 0.5
RIGHT, WRONG, IGNORED = 1, 0, -1


class Judged(NamedTuple):
    """All detections of all pictures and classes that count.

    Attributes:
      scores: float64 [D].
      right: bool [D].
      labels: int [D], their classes.
    """

    scores: np.ndarray
    right: np.ndarray
    labels: np.ndarray


class OperatingPoint(NamedTuple):
    """The score threshold with the highest F1, and what it gives.

    Attributes:
      threshold: lowest score that counts; None without detections.
      right: detections that are an object's.
      wrong: detections that are none's.
      missed: objects without a detection.
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
    """Tells which detections are right, at IoU .5, each class by itself. Those that lie in a crowd are left out."""
    kinds = [match(pair.ious, pair.crowd) for pair in pairs]
    counts = [kind != IGNORED for kind in kinds]
    scores = [pair.scores[c] for pair, c in zip(pairs, counts, strict=True)]
    right = [kind[c] == RIGHT for kind, c in zip(kinds, counts, strict=True)]
    labels = [np.full(np.sum(c), pair.label) for pair, c in zip(pairs, counts, strict=True)]
    return Judged(
        np.concatenate([np.zeros(0), *scores]),
        np.concatenate([np.zeros(0, bool), *right]),
        np.concatenate([np.zeros(0, np.int64), *labels]),
    )


def match(ious: np.ndarray, crowd: np.ndarray, threshold: float = _IOU) -> np.ndarray:
    """Gives detections to objects as COCO does: by falling score, each to the free object with the highest IoU.

    Args:
      ious: [D, G], detections by falling score. With a crowd: the share of the detection that lies in it.
      crowd: bool [G]. A crowd takes any number of detections, of those that no object takes.
      threshold: lowest IoU of a match.

    Returns:
      [D] int8: `RIGHT`, `WRONG` or, in a crowd, `IGNORED`.
    """
    kinds = np.full(len(ious), WRONG, np.int8)
    free = ~crowd
    for d in np.flatnonzero((ious >= threshold).any(axis=1)):
        row = ious[d]
        possible = np.flatnonzero(free & (row >= threshold))
        if len(possible):
            best = possible[row[possible] == row[possible].max()][-1]  # Of equals the last one, as COCO takes it.
            free[best] = False
            kinds[d] = RIGHT
        elif (row[crowd] >= threshold).any():
            kinds[d] = IGNORED
    return kinds


def best_point(judged: Judged, objects: int) -> OperatingPoint:
    """The threshold with the highest F1 over all classes together; of several the highest.

    Detections of one score stand or fall together, so a threshold lies between two different scores only.

    Args:
      judged: all detections.
      objects: number of objects that are no crowd, at least 1.
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
