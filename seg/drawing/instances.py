"""Objects in pictures: what was found beside what is there, and overlays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco

from seg.drawing import text
from seg.drawing.comparison import panel_size, resize_image
from seg.drawing.labels import Color
from seg.drawing.legends import Entry
from seg.drawing.objects import Shape, paint
from seg.drawing.shades import shade, spread, vivid
from seg.drawing.strips import strip
from seg.structures import Annotations, Detections

_LONGEST, _COMFORTABLE = 640, 512  # Pixels of a panel's longer side: at most, and what smaller ones are magnified to.
_NARROWEST = 640  # Pixels of a strip: leaves room for its caption.
_GAP = 12
_OPACITY = 0.4
_MEETS = 0.5  # IoU of the masks from which on a detection and an object are the same thing.
_UNIT = 900  # Pixels of an overlay's longer side per pixel of its thin lines.


class Matches(NamedTuple):
    """Which detections are right.

    Attributes:
      truth: [D] ints, the object that a detection has found; -1 for none, -2 for a crowd that it falls in.
      found: [N] ints, the detection that has found an object; -1 for none. Crowds are not to be found.
    """

    truth: np.ndarray
    found: np.ndarray


def match(truth: Annotations, detections: Detections) -> Matches:
    """Gives each detection, by falling score, the free object of its class with the highest mask IoU, from 0.5 on.

    A detection that has none, but lies in a crowd of its class with at least half its area, counts as nothing.
    """
    crowd = np.asarray(truth.is_crowd, bool)
    found = np.full(len(truth.classes), -1)
    matched = np.full(len(detections.classes), -1)
    if not len(found) or not len(matched):
        return Matches(matched, found)
    ious = np.array(coco.iou(list(detections.masks), list(truth.masks), crowd.astype(np.uint8).tolist()), float)
    ious[np.asarray(detections.classes)[:, None] != np.asarray(truth.classes)] = 0
    for d in np.argsort(-np.asarray(detections.scores), kind='stable'):
        free = np.where(crowd | (found >= 0), 0, ious[d])
        if free.max() >= _MEETS:
            matched[d] = int(free.argmax())
            found[matched[d]] = d
        elif np.where(crowd, ious[d], 0).max() >= _MEETS:
            matched[d] = -2
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
    """Draws what was found over its picture.

    Args:
      image: uint8 [H, W, 3], the picture at its own size, changed in place.
      detections: in it.
      class_names: one per class.
      colors: one per class.
      opacity: of the masks, 0 to 1.
      min_score: what has less is not drawn.

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
    """The detections of at least a score."""
    kept = np.flatnonzero(np.asarray(detections.scores) >= min_score)
    boxes, scores, classes = (
        np.asarray(values)[kept] for values in (detections.boxes, detections.scores, detections.classes)
    )
    return Detections(boxes.reshape(-1, 4), scores, classes, [detections.masks[i] for i in kept])


class InstanceComparison:
    """One picture twice: with its objects, and with what was found.

    It holds the picture in the size that it is drawn in, and the masks encoded: about a megabyte however large the
    picture is. The figures are those at the picture's full size.

    Attributes:
      found: objects that were found, by a detection of their class with a mask IoU of at least 0.5.
      missed: the others. Crowds are neither.
      false: detections that found nothing.
      f1: 2 found / (2 found + missed + false); None where all of them are 0, or there is no truth.
    """

    def __init__(
        self,
        name: str,
        image: np.ndarray,
        truth: Annotations | None,
        detections: Detections,
        *,
        class_names: Sequence[str],
        colors: Sequence[Color],
        min_score: float = 0.5,
    ):
        """Takes the figures, and shrinks the picture.

        Args:
          name: of the picture.
          image: uint8 [h, w, 3], the picture; its size may be another one than that of the objects.
          truth: its objects; None where they are not known.
          detections: what was found.
          class_names: one per class.
          colors: one per class.
          min_score: detections of a lower score are left out, in the figures as well.
        """
        self._name, self._class_names, self._colors = name, class_names, colors
        self._min_score = min_score
        self._truth, self._detections = truth, above(detections, min_score)
        self._image = resize_image(image, panel_size(*image.shape[:2], _LONGEST, _COMFORTABLE))
        self.found = self.missed = self.false = 0
        self.f1 = None
        self._matches = None
        if truth is not None:
            self._matches = match(truth, self._detections)
            self.found = int(np.sum(self._matches.found >= 0))
            self.missed = int(np.sum(~np.asarray(truth.is_crowd, bool))) - self.found
            self.false = int(np.sum(self._matches.truth == -1))
            if total := 2 * self.found + self.missed + self.false:
                self.f1 = 2 * self.found / total

    def draw(self) -> np.ndarray:
        """The strip with its caption and its legend, uint8 [h, w, 3]."""
        return strip(
            self._name,
            self._figures(),
            self._panels(),
            [self._legend(), self._marks()],
            font_size=int(np.clip(self._image.shape[1] / 40, 13, 17)),
            narrowest=_NARROWEST,
            gap=_GAP,
        )

    def _panels(self) -> list[tuple[str, np.ndarray]]:
        """Headings and pictures."""
        shown, truth, matches = self._detections, self._truth, self._matches
        numbers = np.full(len(shown.classes), -1)
        panels = []
        if truth is not None:
            given = spread(truth.boxes, truth.classes, [-1] * len(truth.classes))
            numbers = np.array([given[i] if i >= 0 else -1 for i in matches.truth], int)
            shapes = [
                Shape(
                    box,
                    mask,
                    shade(self._colors[c], given[i]),
                    f'{self._true_label(c)}{" crowd" if crowd else ""}'.strip(),
                    dashed=bool(matches.found[i] < 0 and not crowd),
                    hatched=bool(crowd),
                )
                for i, (box, mask, c, crowd) in enumerate(
                    zip(truth.boxes, truth.masks, truth.classes, truth.is_crowd, strict=True)
                )
            ]
            panels.append((f'truth: {self._counts()}', paint(self._image.copy(), shapes, _OPACITY)))
        numbers = spread(shown.boxes, shown.classes, numbers)
        labels = _labels(shown, self._class_names)
        shapes = [
            Shape(
                shown.boxes[i],
                shown.masks[i],
                shade(self._colors[c], numbers[i]),
                labels[i],
                dashed=matches is not None and bool(matches.truth[i] == -1),
            )
            for i, c in enumerate(shown.classes)
        ]
        false = f', {self.false} false' if truth is not None else ''
        heading = f'prediction: {len(shapes)} with a score of at least {self._min_score:g}{false}'
        panels.append((heading, paint(self._image.copy(), shapes, _OPACITY)))
        return panels

    def _counts(self) -> str:
        crowds = len(self._truth.classes) - self.found - self.missed
        more = f', {crowds} crowd{"s" if crowds > 1 else ""}' if crowds else ''
        return f'{_number(self.found + self.missed, "object")}, {self.missed} missed{more}'

    def _figures(self) -> str:
        if self._truth is None:
            return ''
        if self.f1 is None:
            return '  ·  no object'
        return f'  ·  F1 {self.f1:.3f}  ·  {self.found} found, {self.missed} missed, {self.false} false'

    def _class_label(self, c: int) -> str:
        return text.class_label(self._class_names[c], c)

    def _true_label(self, c: int) -> str:
        return self._class_label(c) if len(self._class_names) > 1 else ''

    def _legend(self) -> list[Entry]:
        """Classes; how many of their objects were found where the truth is known, else how many."""
        shown = [int(c) for c in self._detections.classes]
        there, found = shown, None
        if self._truth is not None:
            whole = ~np.asarray(self._truth.is_crowd, bool)
            there = np.asarray(self._truth.classes)[whole].tolist()
            found = np.asarray(self._truth.classes)[self._matches.found >= 0].tolist()
        classes = sorted({*shown, *there, *(map(int, self._truth.classes) if self._truth is not None else ())})
        title = [] if not classes else [Entry(None, remark='found:' if found is None else 'found of those there:')]
        return title + [
            Entry(
                vivid(self._colors[c]),
                self._class_label(c),
                f'{there.count(c)}' if found is None else f'{found.count(c)}/{there.count(c)}',
            )
            for c in classes
        ]

    def _marks(self) -> list[Entry]:
        if self._truth is None:
            return []
        entries = [
            Entry(None, 'solid:', f'found, with a mask IoU of {_MEETS:g} or more'),
            Entry(None, 'dashed:', 'missed, or false'),
        ]
        if np.any(self._truth.is_crowd):
            entries.append(Entry(None, 'hatched:', 'crowd, counts as nothing'))
        return entries


def _labels(detections: Detections, class_names: Sequence[str]) -> list[str]:
    """Class and score; the score alone where there is one class only."""
    scores = [f'{score:.2f}' for score in detections.scores]
    if len(class_names) == 1:
        return [score.removeprefix('0') for score in scores]
    names = [text.class_label(class_names[c], int(c)) for c in detections.classes]
    return [f'{name} {score}' for name, score in zip(names, scores, strict=True)]


def _number(count: int, what: str) -> str:
    return f'{count} {what}{"" if count == 1 else "s"}'
