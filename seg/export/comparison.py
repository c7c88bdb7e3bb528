"""How far the outputs of an exported file are from those of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Outputs = Mapping[str, np.ndarray]

# Two detections are the same if their boxes and their masks overlap more than this, and their scores differ no more.
SAME_BOX, SAME_MASK, SAME_SCORE = 0.99, 0.95, 1e-3
_PAIR_BOX = 0.5  # Detections of one class with this overlap are compared.


class Comparison:
    """Counts over images.

    Attributes:
      differing: pixels with another class, or detections without an equal one on the other side.
      agreeing: pixels with the same class, or detections with one of their class on the other side that overlaps.
      total: pixels, or detections of both sides.
      largest: largest difference of each output: 'confidence' and, if the file has them, 'probabilities' of the pixels'
        classes; or 'boxes' in pixels, 'scores' and 'masks' of detections that overlap.
      finite: whether all numbers of the file are finite.
    """

    def __init__(self, kind: str):
        self._compare = _semantic if kind == 'semantic' else _instance
        self.differing = self.agreeing = self.total = 0
        self.largest: dict[str, float] = {}
        self.finite = True

    def add(self, before: Outputs, after: Outputs, size: Sequence[int]) -> None:
        """Adds an image.

        Args:
          before: outputs of the checkpoint for the image, without a batch axis.
          after: outputs of the file, likewise.
          size: (height, width) of the image within the canvas.
        """
        self.finite &= all(np.isfinite(value).all() for value in after.values())
        differing, agreeing, total, differences = self._compare(before, after, size)
        self.differing += differing
        self.agreeing += agreeing
        self.total += total
        for name, value in differences.items():
            self.largest[name] = max(self.largest.get(name, 0.0), float(value))


def _semantic(before: Outputs, after: Outputs, size: Sequence[int]) -> tuple[int, int, int, dict[str, float]]:
    place = slice(0, size[0]), slice(0, size[1])
    classes, confidence = before['classes'][place].astype(np.int64), before['confidence'][place].astype(np.float64)
    differing = classes != after['classes'][place]
    largest = {'confidence': np.abs(confidence - after['confidence'][place]).max()}
    if 'probabilities' in after:
        probabilities = after['probabilities'][place]
        differing |= classes != probabilities.argmax(-1)
        largest['probabilities'] = np.abs(confidence - probabilities.max(-1)).max()
    return int(differing.sum()), int((~differing).sum()), differing.size, largest


def _instance(before: Outputs, after: Outputs, size: Sequence[int]) -> tuple[int, int, int, dict[str, float]]:
    first, second = _rows(before), _rows(after)
    boxes = before['boxes'][first].astype(np.float64), after['boxes'][second].astype(np.float64)
    overlap = _iou(boxes[0][:, None], boxes[1][None])
    overlap[before['classes'][first][:, None] != after['classes'][second][None]] = -1
    pairs = same = 0
    largest = {'boxes': 0.0, 'scores': 0.0, 'masks': 0.0}
    while overlap.size and overlap.max() >= _PAIR_BOX:
        i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        masks = before['masks'][first[i]].astype(np.float64), after['masks'][second[j]].astype(np.float64)
        differences = {
            'boxes': np.abs(boxes[0][i] - boxes[1][j]).max(),
            'scores': abs(float(before['scores'][first[i]]) - float(after['scores'][second[j]])),
            'masks': np.abs(masks[0] - masks[1]).max(),
        }
        largest = {name: max(value, differences[name]) for name, value in largest.items()}
        alike = overlap[i, j] > SAME_BOX and _mask_iou(*masks) > SAME_MASK
        same += bool(alike and differences['scores'] <= SAME_SCORE)
        pairs += 1
        overlap[i], overlap[:, j] = -1, -1
    total = len(first) + len(second)
    return total - 2 * same, 2 * pairs, total, largest


def _rows(outputs: Outputs) -> np.ndarray:
    """The rows with detections: as many as the file says, if it does."""
    if 'num_detections' in outputs:
        return np.arange(min(outputs['num_detections'], len(outputs['classes'])))
    return np.flatnonzero(outputs['classes'] >= 0)


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of boxes [..., 4] that broadcast."""
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    area = sum(np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (one, other))
    return shared / np.maximum(area - shared, 1e-12)


def _mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one >= 0.5, other >= 0.5
    either = np.sum(one | other)
    return np.sum(one & other) / either if either else 1.0
