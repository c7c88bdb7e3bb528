"""A figure without a legend: an image beside maps of it, for tasks that need no figure of their own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from seg.drawing.comparison import panel_size, resize_image
from seg.drawing.panels import draw_panels
from seg.structures import Panels


class PlainFigure:
    """Images of one size side by side, kept in their drawn size.

    Args:
      name: name of the image, the beginning of the caption.
      caption: end of the caption, such as `'mean error 0.12 m'`.
      panels: colours [H, W, 3] or shades of grey [H, W] by heading, 0 to 255; values out of range are clipped.
    """

    def __init__(self, name: str, caption: str, panels: Mapping[str, np.ndarray]):
        self._name, self._caption = name, caption
        self._panels = [(heading, _drawable(values)) for heading, values in panels.items()]

    def draw(self) -> np.ndarray:
        """The figure, uint8 [h, w, 3]."""
        caption = f'  ·  {self._caption}' if self._caption else ''
        return draw_panels(self._name, caption, self._panels, [], font_size=14, narrowest=560, gap=8)

    def panels(self) -> Panels | None:
        """The panels; None if they differ in size."""
        sizes = {pixels.shape for _, pixels in self._panels}
        return Panels(self._caption, dict(self._panels)) if len(sizes) == 1 else None


def _drawable(values: np.ndarray) -> np.ndarray:
    pixels = np.clip(values, 0, 255).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    return resize_image(pixels, panel_size(*pixels.shape[:2]))
