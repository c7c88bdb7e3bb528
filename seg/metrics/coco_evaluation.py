"""COCO's average precision and recall, over boxes or masks, through faster-coco-eval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from seg.structures import Annotations, Detections

AREAS = ('small', 'medium', 'large')  # Up to 32 x 32 pixels, up to 96 x 96, and above.
_ABSENT = -1.0  # The value in faster-coco-eval's arrays for a mean over no instance.


class ImageDetections(NamedTuple):
    """The detections of one image.

    Attributes:
      detections: in any order.
      areas: float64 [D], pixels of each mask.
    """

    detections: Detections
    areas: np.ndarray


class IouMatrix(NamedTuple):
    """The IoU of the detections and instances of one class in one image.

    Attributes:
      label: the class.
      scores: float64 [D], decreasing, at most as many as the limit.
      ious: float64 [D, G].
      crowd: bool [G].
    """

    label: int
    scores: np.ndarray
    ious: np.ndarray
    crowd: np.ndarray


class Curves:
    """Precision and recall of boxes or of masks, by IoU threshold, class, area range and limit of detections."""

    def __init__(self, engine: COCOeval_faster):
        self._iou = np.asarray(engine.params.iouThrs)
        self.limits = tuple(int(limit) for limit in engine.params.maxDets)
        self._precision = np.asarray(engine.eval['precision'])  # [T, R, K, A, M]
        self._recall = np.asarray(engine.eval['recall'])  # [T, K, A, M]

    def ap(self, *, iou: float | None = None, area: str = 'all', label: int | None = None) -> float | None:
        """Mean of the precision over 101 recalls, over the IoU thresholds .5 to .95 or at one, over classes or of one.

        Returns:
          None if there is no instance.
        """
        return _mean(self._precision[self._at(iou), :, _one(label), self._area(area), -1])

    def ar(self, limit: int, *, area: str = 'all') -> float | None:
        """Mean over IoU thresholds and classes of the highest recall with at most `limit` detections of a class in an
        image; None if there is no instance."""
        return _mean(self._recall[:, :, self._area(area), self.limits.index(limit)])

    def precisions(self, iou: float) -> np.ndarray:
        """[101] float64, precision at the recalls 0, 0.01, …, 1, mean over the classes that have instances."""
        curves = self._precision[self._at(iou), :, :, 0, -1][0]
        return curves[:, (curves > _ABSENT).all(axis=0)].mean(axis=1)

    def _at(self, iou: float | None) -> slice:
        if iou is None:
            return slice(None)
        position = int(np.argmin(np.abs(self._iou - iou)))
        return slice(position, position + 1)

    @staticmethod
    def _area(area: str) -> int:
        return ('all', *AREAS).index(area)


class Comparison:
    """The instances and detections of some images, in the form that faster-coco-eval needs.

    All ids are made here and begin at 1, because COCO's evaluators treat an annotation with id 0 as unmatched.
    """

    def __init__(
        self, truth: Sequence[Annotations], found: Sequence[ImageDetections], num_classes: int, max_detections: int
    ):
        """Converts the instances and detections.

        Args:
          truth: ground truth of each image.
          found: detections of each image.
          num_classes: K.
          max_detections: number of detections per class and image that count, those with the highest scores.
        """
        self._truth, self._found, self._num_classes = truth, found, num_classes
        self._limits = sorted({limit for limit in (1, 10) if limit < max_detections} | {max_detections})
        self._images = [{'id': i, 'height': t.height, 'width': t.width} for i, t in enumerate(truth, 1)]
        self._instances = self._index(_instances(truth))

    def run(self, kind: str, matrices: bool = False) -> tuple[Curves, list[IouMatrix]]:
        """Compares detections with instances.

        Args:
          kind: 'box' or 'mask'.
          matrices: whether to return the IoU of all detections and instances as well.
        """
        engine = COCOeval_faster(
            self._instances,
            self._index(_detections(self._found, kind)),
            {'box': 'bbox', 'mask': 'segm'}[kind],
            print_function=_silent,
        )
        engine.params.imgIds = [image['id'] for image in self._images]
        engine.params.catIds = list(range(1, self._num_classes + 1))
        engine.params.maxDets = list(self._limits)
        engine.evaluate()
        engine.accumulate()
        return Curves(engine), list(self._iou_matrices(engine)) if matrices else []

    def _index(self, annotations: Iterator[dict[str, Any]]) -> COCO:
        categories = [{'id': c, 'name': str(c)} for c in range(1, self._num_classes + 1)]
        tables = {'images': self._images, 'annotations': list(annotations), 'categories': categories}
        return COCO(tables, print_function=_silent)

    def _iou_matrices(self, engine: COCOeval_faster) -> Iterator[IouMatrix]:
        for image, (truth, found) in enumerate(zip(self._truth, self._found, strict=True), 1):
            labels, classes = np.asarray(truth.classes), np.asarray(found.detections.classes)
            scores, crowd = np.asarray(found.detections.scores, np.float64), np.asarray(truth.is_crowd, bool)
            for label in np.unique(classes):
                # By decreasing score and with the same limit, as in `engine.ious`.
                falling = -np.sort(-scores[classes == label])[: self._limits[-1]]
                here = crowd[labels == label]
                ious = np.asarray(engine.ious[image, int(label) + 1], np.float64).reshape(len(falling), len(here))
                yield IouMatrix(int(label), falling, ious, here)


def _instances(truth: Sequence[Annotations]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, t in enumerate(truth, 1):
        for box, label, crowd, area, mask in zip(t.boxes, t.classes, t.is_crowd, t.area, t.masks, strict=True):
            number += 1
            yield {
                'id': number, 'image_id': image, 'category_id': int(label) + 1, 'bbox': _corner_and_size(box),
                'iscrowd': int(crowd), 'area': float(area), 'segmentation': mask,
            }  # fmt: skip


def _detections(found: Sequence[ImageDetections], kind: str) -> Iterator[dict[str, Any]]:
    """Detections as annotations. Their area decides in which area ranges an unmatched one counts as wrong."""
    number = 0
    for image, (detections, areas) in enumerate(found, 1):
        boxes, scores, classes, masks = detections
        for box, score, label, area, mask in zip(boxes, scores, classes, areas, masks, strict=True):
            number += 1
            common = {'id': number, 'image_id': image, 'category_id': int(label) + 1, 'score': float(score)}
            if kind == 'mask':
                yield common | {'area': float(area), 'segmentation': mask}
            else:
                _, _, width, height = corner_and_size = _corner_and_size(box)
                yield common | {'area': width * height, 'bbox': corner_and_size}


def _corner_and_size(box) -> list[float]:
    y0, x0, y1, x1 = (float(side) for side in box)
    return [x0, y0, x1 - x0, y1 - y0]


def _one(label: int | None):
    return slice(None) if label is None else label


def _mean(values: np.ndarray) -> float | None:
    values = values[values > _ABSENT]
    return float(values.mean()) if values.size else None


def _silent(*_) -> None:
    pass
