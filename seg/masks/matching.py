"""Comparison of boxes and masks on the host: overlap, and matching of detections with instances."""

from __future__ import annotations

import numpy as np

NONE, CROWD = -1, -2


def match(ious: np.ndarray, crowd: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Assigns detections to instances as COCO does: by decreasing score, each to the free instance of highest IoU.

    Args:
      ious: [D, G], detections by decreasing score. For a crowd: the fraction of the detection that lies in it.
      crowd: bool [G]. A crowd matches any number of the detections that match no instance.
      threshold: lowest IoU of a match.

    Returns:
      int [D]: the matched instance, `CROWD` for a detection within a crowd, or `NONE`.
    """
    matched = np.full(len(ious), NONE)
    free = ~crowd
    for d in np.flatnonzero((ious >= threshold).any(axis=1)):
        row = ious[d]
        possible = np.flatnonzero(free & (row >= threshold))
        if len(possible):
            matched[d] = possible[row[possible] == row[possible].max()][-1]  # COCO takes the last of equals.
            free[matched[d]] = False
        elif (row[crowd] >= threshold).any():
            matched[d] = CROWD
    return matched


def paired_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [N, 4], row by row; 0 if one has no area or is not finite."""
    side = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    shared = np.where((side > 0).all(axis=1), side.prod(axis=1), 0)
    whole = sum((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (first, second)) - shared
    return np.where(shared > 0, shared / np.where(whole > 0, whole, 1), 0)
