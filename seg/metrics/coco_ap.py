"""COCO's scores of instance segmentation: average precision and recall of boxes and masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from absl import logging
from keras import ops

from seg.drawing import charts
from seg.errors import UserError
from seg.masks import paste, runs
from seg.metrics.base import RowMetric
from seg.metrics.coco_evaluation import AREAS, Comparison, Curves, ImageDetections
from seg.metrics.operating_point import MatchedDetections, OperatingPoint, best_point, match_all
from seg.metrics.truth_check import check_annotations, cut_out
from seg.number_checks import check_whole
from seg.registry import metrics
from seg.structures import Annotations, Detections, ImageSummary

# The value of probability 1 in the masks that are copied to the host as uint16.
MASK_STEPS = 65535
_BINS = 20  # Bins of the score histogram.
_CURVES = (0.5, 0.75)  # IoU thresholds of the precision-recall curves.


@metrics.register('coco_ap', target='instances')
class CocoAP(RowMetric):
    """COCO's AP and AR of boxes and masks, and precision, recall and F1 at the best score threshold.

    Only the `max_detections` detections with the highest scores of a class and image count. Masks are pasted into the
    image at its own size, at probability .5, and kept as run lengths. The scores are computed by faster-coco-eval and
    equal pycocotools' to rounding. The areas small, medium and large are up to 32 x 32 pixels, up to 96 x 96, and
    above, of the instance as stated by the data set.

    Args:
      num_classes: supplied; K.
      class_names: supplied; one per class.
      max_detections: number of detections per class and image that count; also the highest limit of average recall,
        whose limits are 1, 10 and this one.
    """

    def __init__(self, *, num_classes: int, class_names: Sequence[str], max_detections: int = 100):
        if len(class_names) != num_classes or len(set(class_names)) != num_classes:
            raise UserError(
                f'metrics.coco_ap: expected {num_classes} different class names, one per class; '
                f'received {len(class_names)}: {", ".join(class_names)}.'
            )
        check_whole('metrics.coco_ap.max_detections', max_detections)
        self.num_classes = num_classes
        self.class_names = tuple(class_names)
        self.max_detections = max_detections
        self._logged: list[str] = []
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._truth: list[Annotations] = []
        self._found: list[ImageDetections] = []
        self._scored: _Scored | None = None

    def rows(self, batch: Mapping[str, Any], predictions: Mapping[str, Any]) -> dict[str, Any]:
        """Scales detections to the images' own sizes, on the device. Pure; shapes are static; compiles with XLA.

        Args:
          batch: `size` int32 [B, 2], height and width of the image on its canvas, and `native_size` int32 [B, 2], its
            own size.
          predictions: `boxes` [B, D, 4], y0, x0, y1, x1 in pixels of the canvas; `scores` [B, D]; `classes` int32
            [B, D], -1 for none; `masks` [B, D, m, m], probabilities over each box.

        Returns:
          `boxes` float32, in pixels of the image itself, `scores` float32, `classes` int32, and `masks` uint16,
          probabilities times `MASK_STEPS`. They take half the memory of float32, and the error of a probability is
          below 0.00001. (With 8 bits, one pixel in 2,000 of an instance would differ.)
        """
        scale = ops.cast(batch['native_size'], 'float32') / ops.cast(batch['size'], 'float32')
        return {
            'boxes': ops.cast(predictions['boxes'], 'float32') * ops.tile(scale, (1, 2))[:, None],
            'scores': ops.cast(predictions['scores'], 'float32'),
            'classes': ops.cast(predictions['classes'], 'int32'),
            'masks': ops.cast(ops.round(ops.cast(predictions['masks'], 'float32') * MASK_STEPS), 'uint16'),
        }

    def add(self, rows: Mapping[str, np.ndarray], truth: Sequence[Annotations]) -> None:
        """Adds images, on the host, and keeps the run lengths of each mask.

        Args:
          rows: result of `rows` for some images.
          truth: annotations of the same images.

        Raises:
          UserError: if a class is not one of the data set's, or a score or a box is not finite. Then nothing of the
            image is added.
        """
        for i, instances in enumerate(truth):
            present = np.flatnonzero(rows['classes'][i] >= 0)
            boxes, scores, classes = (rows[key][i][present] for key in ('boxes', 'scores', 'classes'))
            self._refuse(boxes, scores, classes, instances)
            masks = rows['masks'][i][present] / np.float32(MASK_STEPS)
            patches = [
                paste.paste(mask, box, instances.height, instances.width)
                for mask, box in zip(masks, boxes, strict=True)
            ]
            self._keep(instances, boxes, scores, classes, patches)

    def _keep(self, instances: Annotations, boxes, scores, classes, patches) -> None:
        encoded = [runs.patch_to_coco(*patch, instances.height, instances.width) for patch in patches]
        areas = np.array([np.count_nonzero(patch) for _, _, patch in patches], np.float64)
        self._truth.append(instances)
        self._found.append(ImageDetections(Detections(boxes, scores, classes, encoded), areas))
        self._scored = None

    def _refuse(self, boxes, scores, classes, instances: Annotations) -> None:
        for whose, ids, advice in (
            ('predicted', classes, "Check the model's number of classes."),
            ('true', np.asarray(instances.classes), 'Check the data set: its class names and its id mapping.'),
        ):
            invalid = ids[(ids < 0) | (ids >= self.num_classes)]
            if len(invalid):
                raise UserError(
                    f'metrics.coco_ap: {len(invalid)} {whose} class(es) of image {len(self._truth)} of this evaluation '
                    f'are not in 0 to {self.num_classes - 1}, such as {invalid[0]}. {advice}'
                )
        bad = ~(np.isfinite(scores) & np.isfinite(boxes).all(axis=1))
        if bad.any():
            raise UserError(
                f'metrics.coco_ap: {bad.sum()} detection(s) of image {len(self._truth)} of this evaluation have a '
                'score or a box that is not finite. The weights are most likely not finite either: lower the learning '
                'rate, or clip the gradient.'
            )

    def self_test(self, truths: Iterable[tuple[str, Annotations]]) -> None:
        """Scores the ground truth as if it were predicted, with the same steps: pasting, encoding, comparison.

        It uses the first two images with at least one instance that is not a crowd, and at most `max_detections` of
        them. Each mask is pasted from a map whose cells are its own pixels, so the result must be exact.
        Images added so far are not affected.

        Args:
          truths: names of some images, for messages, and their annotations.

        Raises:
          UserError: if AP of boxes or of masks is not 1, or the annotations are invalid; the message names the fault.
        """
        count = lambda truth: np.sum(~np.asarray(truth.is_crowd, bool))  # noqa: E731
        fits = ((name, truth) for name, truth in truths if 0 < count(truth) <= self.max_detections)
        fitting = list(islice(fits, 2))
        if not fitting:
            logging.warning(
                'metrics.coco_ap: no image has between 1 and %d instances, so the self-test was skipped.',
                self.max_detections,
            )
            return
        own = CocoAP(num_classes=self.num_classes, class_names=self.class_names, max_detections=self.max_detections)
        for name, truth in fitting:
            check_annotations(truth, self.num_classes, f'metrics.coco_ap: {name}')
            counted = np.flatnonzero(~np.asarray(truth.is_crowd, bool))
            boxes, classes = np.asarray(truth.boxes, np.float32)[counted], np.asarray(truth.classes, np.int32)[counted]
            patches = [paste.paste(*cut_out(truth.masks[i]), truth.height, truth.width) for i in counted]
            own._keep(truth, boxes, np.ones(len(counted), np.float32), classes, patches)
        lost = {kind: ap for kind, curves in own._score().curves.items() if (ap := curves.ap()) < 1 - 1e-9}
        if lost:
            found = ', '.join(f'{kind} AP {ap:.4f}' for kind, ap in lost.items())
            names = ' and '.join(name for name, _ in fitting)
            raise UserError(
                f'metrics.coco_ap: the ground truth of {names}, scored as predictions, gives {found}; '
                'expected 1. Look for instances without an area, or masks of another image.'
            )
        logging.info('Self-test: the instances of %d image(s) score an AP of 1.', len(fitting))

    # ---- Results -----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All keys that `result` may have."""
        limits = [limit for limit in (1, 10) if limit < self.max_detections] + [self.max_detections]
        each = ['ap', 'ap50', 'ap75', *(f'ap_{area}' for area in AREAS), *(f'ar{limit}' for limit in limits)]
        each += [*(f'ar_{area}' for area in AREAS), *(f'ap/{name}' for name in self.class_names)]
        shared = ['precision', 'recall', 'f1', 'best_threshold', 'threat_score', 'max_detections', 'objects']
        return [f'{kind}_{name}' for kind in ('box', 'mask') for name in each] + [*shared, 'detections']

    def result(self) -> dict[str, float]:
        """The scores of all images added so far, as fractions.

        Returns:
          `box_ap`, `box_ap50`, `box_ap75`: average precision over the IoU thresholds .5 to .95, at .5 and at .75; mean
          over the classes that have instances. `box_ap_small`, `box_ap_medium`, `box_ap_large`: of that size.
          `box_ar1`, `box_ar10`, `box_ar<max_detections>`: average recall with this number of detections.
          `box_ar_small`, `box_ar_medium`, `box_ar_large`. The same with `mask_`.
          `box_ap/<class name>`, `mask_ap/<class name>`: AP of each class that has instances.
          `precision`, `recall`, `f1`, `threat_score`: at mask IoU .5 and the score threshold with the highest F1,
          `best_threshold`, all classes together. threat_score = right / (right + wrong + missed).
          `max_detections`; `objects`, number of instances that are not crowds; `detections`, in all images.
          A mean over no instance, or the precision of no detection, has no key, because JSON has no NaN.

        Raises:
          UserError: if no instance was evaluated.
        """
        scored = self._score()
        scores: dict[str, float | None] = {}
        for kind, curves in scored.curves.items():
            scores |= {
                f'{kind}_ap': curves.ap(),
                f'{kind}_ap50': curves.ap(iou=0.5),
                f'{kind}_ap75': curves.ap(iou=0.75),
            }
            scores |= {f'{kind}_ap_{area}': curves.ap(area=area) for area in AREAS}
            scores |= {f'{kind}_ar{limit}': curves.ar(limit) for limit in curves.limits}
            scores |= {f'{kind}_ar_{area}': curves.ar(curves.limits[-1], area=area) for area in AREAS}
        self._explain(scores)
        best = scored.best
        scores |= {'precision': best.precision, 'recall': best.recall, 'f1': best.f1}
        scores |= {'best_threshold': best.threshold, 'threat_score': best.threat_score}
        scores |= {'max_detections': self.max_detections, 'objects': int(scored.instances.sum())}
        scores['detections'] = int(scored.detections.sum())
        for kind, curves in scored.curves.items():
            scores |= {f'{kind}_ap/{name}': curves.ap(label=c) for c, name in enumerate(self.class_names)}
        return {name: score for name, score in scores.items() if score is not None}

    def details(self) -> dict[str, Any]:
        """`instances`: a table of the classes, precision-recall curves and the histogram of the scores, for JSON."""
        scored = self._score()
        right, wrong = self._histogram(scored.matched)
        return {
            'instances': {
                'max_detections': self.max_detections,
                'best': _rounded(scored.best._asdict() | {'f1': scored.best.f1}),
                'classes': [self._class_row(scored, c) for c in range(self.num_classes)],
                'precision_recall': {
                    'recall': [round(i / 100, 2) for i in range(101)],
                    **{
                        f'{kind}_{round(100 * iou)}': [round(float(p), 4) for p in curves.precisions(iou)]
                        for kind, curves in scored.curves.items()
                        for iou in _CURVES
                    },
                },
                'score_histogram': {
                    'edges': [round(i / _BINS, 4) for i in range(_BINS + 1)],
                    'right': right.tolist(),
                    'wrong': wrong.tolist(),
                },
            }
        }

    def charts(self) -> list[ImageSummary]:
        """Charts of all images added so far: `precision_recall`, `class_ap` and `score_histogram`."""
        scored = self._score()
        lines = {(kind, iou): c.precisions(iou) for kind, c in scored.curves.items() for iou in _CURVES}
        aps = [
            np.array([np.nan if (ap := curves.ap(label=c)) is None else ap for c in range(self.num_classes)])
            for curves in (scored.curves['mask'], scored.curves['box'])
        ]
        best = scored.best
        return [
            ImageSummary('precision_recall', charts.precision_recall(lines, best.recall, best.precision)),
            ImageSummary('class_ap', charts.class_ap(*aps, self.class_names)),
            ImageSummary('score_histogram', charts.score_histogram(*self._histogram(scored.matched), best.threshold)),
        ]

    def _class_row(self, scored: _Scored, c: int) -> dict[str, Any]:
        matched, threshold = scored.matched, scored.best.threshold
        counting = (matched.labels == c) & (matched.scores >= (np.inf if threshold is None else threshold))
        right, instances = int(matched.right[counting].sum()), int(scored.instances[c])
        point = OperatingPoint(threshold, right, int(counting.sum()) - right, instances - right)
        row = {
            'name': self.class_names[c],
            'objects': instances,
            'crowds': int(scored.crowds[c]),
            'detections': int(scored.detections[c]),
        }
        for kind, curves in scored.curves.items():
            row |= {f'{kind}_ap': curves.ap(label=c), f'{kind}_ap50': curves.ap(iou=0.5, label=c)}
        row |= {'precision': point.precision, 'recall': point.recall if instances else None}
        return _rounded(row)

    def _score(self) -> _Scored:
        if self._scored is None:
            self._scored = _Scored(self._truth, self._found, self.num_classes, self.max_detections)
        return self._scored

    def _explain(self, scores: Mapping[str, float | None]) -> None:
        """Logs once which scores are missing, and why."""
        absent = [area for area in AREAS if scores[f'mask_ap_{area}'] is None]
        if absent and absent != self._logged:
            logging.info(
                'metrics.coco_ap: no instance in this area range: %s. These scores are missing: %s.',
                ', '.join(absent),
                ', '.join(f'*_{score}_{area}' for area in absent for score in ('ap', 'ar')),
            )
        self._logged = absent

    @staticmethod
    def _histogram(matched: MatchedDetections) -> tuple[np.ndarray, np.ndarray]:
        """(right, wrong) detections by score, [20] int64 each."""
        counts = [np.histogram(matched.scores[matched.right == r], _BINS, (0, 1))[0] for r in (True, False)]
        return counts[0], counts[1]


class _Scored:
    """The results of all images of a metric.

    Attributes:
      curves: of boxes and of masks.
      matched: detections, matched by mask.
      best: the best score threshold.
      instances: [K] int64, number of instances that are not crowds, by class.
      crowds: [K] int64.
      detections: [K] int64.
    """

    def __init__(
        self, truth: Sequence[Annotations], found: Sequence[ImageDetections], num_classes: int, max_detections: int
    ):
        crowd = np.concatenate([np.zeros(0, bool), *(np.asarray(t.is_crowd, bool) for t in truth)])
        labels = np.concatenate([np.zeros(0, np.int64), *(np.asarray(t.classes, np.int64) for t in truth)])
        predicted = np.concatenate([np.zeros(0, np.int64), *(f.detections.classes for f in found)])
        self.instances = np.bincount(labels[~crowd], minlength=num_classes)
        self.crowds = np.bincount(labels[crowd], minlength=num_classes)
        self.detections = np.bincount(predicted, minlength=num_classes)
        if not self.instances.any():
            raise UserError(
                f'metrics.coco_ap: no instance was evaluated, so there is no score. The {len(truth)} image(s) hold '
                f'{len(labels)} crowd(s) and nothing else.'
            )
        comparison = Comparison(truth, found, num_classes, max_detections)
        boxes, _ = comparison.run('box')
        masks, matrices = comparison.run('mask', matrices=True)
        self.curves: dict[str, Curves] = {'box': boxes, 'mask': masks}
        self.matched = match_all(matrices)
        self.best = best_point(self.matched, int(self.instances.sum()))


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}
