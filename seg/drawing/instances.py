"""Instances over their image: detections alone, and beside the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from seg.drawing import text
from seg.drawing.comparison import DIMMED, WRONG, panel_size, resize_image
from seg.drawing.instance_colors import shade, spread, vivid
from seg.drawing.labels import Color
from seg.drawing.legends import Entry
from seg.drawing.mask_overlay import Shape, paint
from seg.drawing.panels import draw_panels
from seg.masks import matching
from seg.structures import Annotations, Detections, Panels

_LONGEST, _COMFORTABLE = 640, 512  # Pixels of a panel's longer side: the largest, and that of magnified ones.
_NARROWEST = 640  # Pixels of the whole figure: leaves room for its caption.
_GAP = 12
_OPACITY = 0.4
MISSED: Color = (40, 160, 255)  # In the panel of errors, beside `WRONG` for false ones.
_IOU = 0.5  # Mask IoU at which a detection matches an instance.
_UNIT = 900  # Pixels of an overlay's longer side per pixel of its thin lines.


class Matches(NamedTuple):
    """Which detection matches which instance.

    Attributes:
      truth: [D] ints, the instance that a detection matches; `matching.NONE`, or `matching.CROWD` within a crowd.
      found: [N] ints, the detection that matches an instance; `matching.NONE` for none, and for crowds.
    """

    truth: np.ndarray
    found: np.ndarray


def match(truth: Annotations, detections: Detections) -> Matches:
    """Matches detections with instances of their class by mask IoU, see `seg.masks.matching.match`."""
    crowd = np.asarray(truth.is_crowd, bool)
    matched = np.full(len(detections.classes), matching.NONE)
    found = np.full(len(truth.classes), matching.NONE)
    if len(found) and len(matched):
        ious = np.array(coco.iou(list(detections.masks), list(truth.masks), crowd.astype(np.uint8).tolist()), float)
        ious[np.asarray(detections.classes)[:, None] != np.asarray(truth.classes)] = 0
        order = np.argsort(-np.asarray(detections.scores), kind='stable')
        matched[order] = matching.match(ious[order], crowd, _IOU)
        right = np.flatnonzero(matched >= 0)
        found[matched[right]] = right
    return Matches(matched, found)


def overlay(
    image: np.ndarray,
    detections: Detections,
    *,
    class_names: Sequence[str],
    colors: Sequence[Color],
    opacity: float = _OPACITY,
    min_score: float = 0.5,
) -> np.ndarray:
    """Draws detections over their image.

    Args:
      image: uint8 [H, W, 3] at its native size, changed in place.
      detections: detections in it.
      class_names: one per class.
      colors: one per class.
      opacity: opacity of the masks, 0 to 1.
      min_score: detections of a lower score are not drawn.

    Returns:
      `image`.
    """
    shown = above(detections, min_score)
    numbers = spread(shown.boxes, shown.classes, [-1] * len(shown.classes))
    shapes = [
        Shape(box, mask, shade(colors[c], number), label)
        for box, mask, c, number, label in zip(
            shown.boxes, shown.masks, shown.classes, numbers, _labels(shown, class_names), strict=True
        )
    ]
    return paint(image, shapes, opacity, max(1, round(max(image.shape[:2]) / _UNIT)))


def above(detections: Detections, min_score: float) -> Detections:
    """Returns the detections whose score is at least `min_score`."""
    kept = np.flatnonzero(np.asarray(detections.scores) >= min_score)
    boxes, scores, classes = (
        np.asarray(values)[kept] for values in (detections.boxes, detections.scores, detections.classes)
    )
    return Detections(boxes.reshape(-1, 4), scores, classes, [detections.masks[i] for i in kept])


class InstanceComparison:
    """One image twice: with its ground-truth instances, and with the detections.

    It holds the image in its drawn size, and the encoded masks: about a megabyte for an image of any size. The numbers
    are computed at native size.

    Attributes:
      found: number of instances that a detection of their class matches, with a mask IoU of at least 0.5.
      missed: number of the others. Crowds are neither.
      false: number of detections that match nothing.
      f1: 2 found / (2 found + missed + false); None where all of them are 0.
    """

    def __init__(
        self,
        name: str,
        image: np.ndarray,
        truth: Annotations,
        detections: Detections,
        *,
        class_names: Sequence[str],
        colors: Sequence[Color],
        min_score: float = 0.5,
    ):
        """Computes the numbers, and resizes the image.

        Args:
          name: name of the image.
          image: uint8 [h, w, 3]; the instances may have another size.
          truth: its ground-truth instances.
          detections: detections in it.
          class_names: one per class.
          colors: one per class.
          min_score: detections of a lower score are omitted, in the numbers as well.
        """
        self._name, self._class_names, self._colors = name, class_names, colors
        self._min_score = min_score
        self._truth, self._detections = truth, above(detections, min_score)
        self._image = resize_image(image, panel_size(*image.shape[:2], _LONGEST, _COMFORTABLE))
        self._matches = match(truth, self._detections)
        self.found = int(np.sum(self._matches.found >= 0))
        self.missed = int(np.sum(~np.asarray(truth.is_crowd, bool))) - self.found
        self.false = int(np.sum(self._matches.truth == matching.NONE))
        total = 2 * self.found + self.missed + self.false
        self.f1 = 2 * self.found / total if total else None

    def draw(self) -> np.ndarray:
        """The panels with their caption and legend, uint8 [h, w, 3]."""
        return draw_panels(
            self._name,
            f'  ·  {self._numbers()}',
            self._panels(),
            [self._legend(), self._marks()],
            font_size=int(np.clip(self._image.shape[1] / 40, 13, 17)),
            narrowest=_NARROWEST,
            gap=_GAP,
        )

    def panels(self) -> Panels:
        (_, truth), (_, found) = self._panels()
        pixels = {'image': self._image, 'truth': truth, 'prediction': found, 'errors': self._errors()}
        return Panels(self._numbers(), pixels)

    def _errors(self) -> np.ndarray:
        """The image in dark grey with what is missed or false."""
        grey = np.asarray(Image.fromarray(self._image).convert('L'), np.float32) * DIMMED
        pixels = np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=-1)
        truth, shown, matches = self._truth, self._detections, self._matches
        missed = np.flatnonzero((matches.found < 0) & ~np.asarray(truth.is_crowd, bool))
        false = np.flatnonzero(matches.truth == matching.NONE)
        shapes = [Shape(truth.boxes[i], truth.masks[i], MISSED, 'missed') for i in missed]
        return paint(pixels, shapes + [Shape(shown.boxes[i], shown.masks[i], WRONG, 'false') for i in false], _OPACITY)

    def _panels(self) -> list[tuple[str, np.ndarray]]:
        """Headings and pixels."""
        shown, truth, matches = self._detections, self._truth, self._matches
        numbers = spread(truth.boxes, truth.classes, [-1] * len(truth.classes))
        true_shapes = [
            Shape(
                truth.boxes[i],
                truth.masks[i],
                shade(self._colors[c], numbers[i]),
                f'{self._true_label(c)}{" crowd" if crowd else ""}'.strip(),
                dashed=bool(matches.found[i] < 0 and not crowd),
                hatched=bool(crowd),
            )
            for i, (c, crowd) in enumerate(zip(truth.classes, truth.is_crowd, strict=True))
        ]
        # A detection has the shade of the instance that it matches.
        numbers = spread(shown.boxes, shown.classes, [numbers[i] if i >= 0 else -1 for i in matches.truth])
        labels = _labels(shown, self._class_names)
        found_shapes = [
            Shape(
                shown.boxes[i],
                shown.masks[i],
                shade(self._colors[c], numbers[i]),
                labels[i],
                dashed=bool(matches.truth[i] == matching.NONE),
            )
            for i, c in enumerate(shown.classes)
        ]
        heading = f'prediction: {len(labels)} with a score of at least {self._min_score:g}, {self.false} false'
        return [
            (f'truth: {self._counts()}', paint(self._image.copy(), true_shapes, _OPACITY)),
            (heading, paint(self._image.copy(), found_shapes, _OPACITY)),
        ]

    def _counts(self) -> str:
        crowds = len(self._truth.classes) - self.found - self.missed
        more = f', {crowds} crowd{"s" if crowds > 1 else ""}' if crowds else ''
        return f'{_number(self.found + self.missed, "instance")}, {self.missed} missed{more}'

    def _numbers(self) -> str:
        if self.f1 is None:
            return 'no instance'
        return f'mask F1 {self.f1:.3f}  ·  {self.found} found, {self.missed} missed, {self.false} false'

    def _class_label(self, c: int) -> str:
        return text.class_label(self._class_names[c], c)

    def _true_label(self, c: int) -> str:
        return self._class_label(c) if len(self._class_names) > 1 else ''

    def _legend(self) -> list[Entry]:
        """Classes, and how many of their instances were found."""
        truth = np.asarray(self._truth.classes)
        there = truth[~np.asarray(self._truth.is_crowd, bool)].tolist()
        found = truth[self._matches.found >= 0].tolist()
        classes = sorted({*map(int, self._detections.classes), *map(int, truth)})
        title = [Entry(None, remark='found, of all true ones:')] if classes else []
        return title + [
            Entry(vivid(self._colors[c]), self._class_label(c), f'{found.count(c)}/{there.count(c)}') for c in classes
        ]

    def _marks(self) -> list[Entry]:
        entries = [
            Entry(None, 'solid:', f'found, with a mask IoU of {_IOU:g} or more'),
            Entry(None, 'dashed:', 'missed, or false'),
        ]
        if np.any(self._truth.is_crowd):
            entries.append(Entry(None, 'hatched:', 'crowd, not counted'))
        return entries


def _labels(detections: Detections, class_names: Sequence[str]) -> list[str]:
    """Class and score; the score alone if there is only one class."""
    scores = [f'{score:.2f}' for score in detections.scores]
    if len(class_names) == 1:
        return [score.removeprefix('0') for score in scores]
    names = [text.class_label(class_names[c], int(c)) for c in detections.classes]
    return [f'{name} {score}' for name, score in zip(names, scores, strict=True)]


def _number(count: int, what: str) -> str:
    return f'{count} {what}{"" if count == 1 else "s"}'
