"""A label map and its prediction: image, truth, prediction and errors side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from seg.drawing import text
from seg.drawing.labels import IGNORED, Color
from seg.drawing.legends import Entry
from seg.drawing.panels import draw_panels
from seg.structures import Panels

# Errors differ by brightness, not by hue: dark where right, bright where wrong, nearly white where ignored.
WRONG: Color = (255, 128, 0)
DIMMED = 0.35

_LONGEST, _COMFORTABLE = 480, 320  # Pixels of a panel's longer side: the largest, and that of magnified ones.
_NARROWEST = 560  # Pixels of the whole figure: leaves room for its caption.
_GAP = 8
_HEADINGS = ('image', 'truth', 'prediction', 'errors')


class Comparison:
    """One image beside its truth, its prediction and its errors.

    It holds the panels in their drawn size, about a megabyte for an image of any size. The numbers are computed at the
    image's native size.

    Attributes:
      miou: mean IoU of the classes that occur in truth or prediction; None without a labelled pixel.
      wrong: fraction of the labelled pixels that are wrong; None without one.
    """

    def __init__(
        self,
        name: str,
        image: np.ndarray,
        truth: np.ndarray,
        classes: np.ndarray,
        *,
        class_names: Sequence[str],
        colors: Sequence[Color],
        ignore_label: int,
    ):
        """Computes the numbers and the panels.

        Args:
          name: name of the image.
          image: uint8 [H, W, 3].
          truth: [H, W] integer class ids, or the ignore label.
          classes: [H, W] integer class ids, as predicted.
          class_names: one per class.
          colors: one per class.
          ignore_label: label value of ignored pixels.
        """
        self._name, self._class_names, self._colors = name, class_names, colors
        count = len(class_names)
        labelled = (truth != ignore_label) & (truth >= 0) & (truth < count)
        true, predicted = truth[labelled], classes[labelled]
        right = np.bincount(true[true == predicted], minlength=count)
        union = np.bincount(true, minlength=count) + np.bincount(predicted, minlength=count) - right
        self._ious = {int(c): float(right[c] / union[c]) for c in np.flatnonzero(union)}
        self.miou = float(np.mean(list(self._ious.values()))) if self._ious else None
        self.wrong = float(np.mean(true != predicted)) if true.size else None
        # Predictions at unlabelled pixels are drawn as well, so the legend has their classes.
        self._shown = sorted({*self._ious, *(int(c) for c in np.unique(classes))})
        self._ignores = not labelled.all()

        size = panel_size(*truth.shape)
        self._image = resize_image(image, size)
        self._truth = _nearest(np.where(labelled, truth, -1).astype(np.int16), size)
        self._classes = _nearest(classes.astype(np.int16), size)

    def draw(self) -> np.ndarray:
        """The panels with their caption and legend, uint8 [h, w, 3]."""
        width = len(_HEADINGS) * self._truth.shape[1] + (len(_HEADINGS) - 1) * _GAP
        return draw_panels(
            self._name,
            f'  ·  {self._numbers()}',
            list(zip(_HEADINGS, self._panels(), strict=True)),
            [self._legend(), self._error_legend()],
            font_size=int(np.clip(width / 100, 13, 19)),
            narrowest=_NARROWEST,
            gap=_GAP,
        )

    def panels(self) -> Panels:
        return Panels(self._numbers(), dict(zip(_HEADINGS, self._panels(), strict=True)))

    def _panels(self) -> list[np.ndarray]:
        table = np.asarray([*self._colors, IGNORED], np.uint8)  # -1, the ignored pixels, is its last row.
        return [self._image, table[self._truth], table[self._classes], self._errors()]

    def _errors(self) -> np.ndarray:
        grey = np.asarray(Image.fromarray(self._image).convert('L'), np.float32) * DIMMED
        errors = np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=-1)
        errors[self._truth != self._classes] = WRONG
        errors[self._truth < 0] = IGNORED
        return errors

    def _numbers(self) -> str:
        if self.miou is None:
            return 'no labelled pixel'
        return f'mIoU {self.miou:.3f}  ·  {_percent(self.wrong)} of the pixels wrong'

    def _legend(self) -> list[Entry]:
        names = {c: text.class_label(self._class_names[c], c) for c in self._shown}
        ious = {c: f'{iou:.2f}' for c, iou in self._ious.items()}
        title = Entry(None, remark='IoU:' if ious else 'classes:')
        return [title, *(Entry(self._colors[c], names[c], ious.get(c, '')) for c in self._shown)]

    def _error_legend(self) -> list[Entry]:
        dark = (round(128 * DIMMED),) * 3
        ignored = [Entry(IGNORED, 'ignored')] if self._ignores else []
        return [Entry(None, remark='errors:'), Entry(dark, 'right'), Entry(WRONG, 'wrong'), *ignored]


def panel_size(height: int, width: int, longest: int = _LONGEST, comfortable: int = _COMFORTABLE) -> tuple[int, int]:
    """Pixels (height, width) of an image's panel: large images shrink, small ones are magnified by a whole number."""
    longer = max(height, width)
    if longer > longest:
        return max(1, round(height * longest / longer)), max(1, round(width * longest / longer))
    factor = max(1, min(round(comfortable / longer), longest // longer))
    return height * factor, width * factor


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image, uint8 [H, W, 3], to (height, width): smoothly if it shrinks, otherwise by nearest neighbour."""
    if size[0] >= image.shape[0]:
        return _nearest(image, size)
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))


def _nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a copy of [H, W, …] resized by nearest neighbour, without new values."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in zip(size, values.shape[:2], strict=True)
    )
    return values[rows[:, None], columns]


def _percent(fraction: float) -> str:
    return f'{100 * fraction:.1f} %'
