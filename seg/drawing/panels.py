"""Panels side by side, with a caption above and a legend below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from seg.drawing import text
from seg.drawing.legends import BACKGROUND, FRAME, INK, MARGIN, PALE_INK, Entry, draw_entries, flow


def draw_panels(
    name: str,
    numbers: str,
    panels: Sequence[tuple[str, np.ndarray]],
    legends: Sequence[Sequence[Entry]],
    *,
    font_size: int,
    narrowest: int,
    gap: int,
) -> np.ndarray:
    """Draws panels side by side.

    Args:
      name: name of the image, the beginning of the caption; it is shortened if the line has no room for it.
      numbers: numbers about the image, the end of the caption.
      panels: heading and pixels of each panel, uint8 [h, w, 3] of one size.
      legends: legends; each begins on a new line.
      font_size: font size in pixels.
      narrowest: smallest width of the result in pixels.
      gap: space between panels in pixels.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = panels[0][1].shape[:2]
    font = ImageFont.truetype(text.font_path(), font_size, layout_engine=ImageFont.Layout.BASIC)
    line = round(font_size * 1.5)
    columns = [max(width, int(np.ceil(font.getlength(heading)))) for heading, _ in panels]
    total = max(narrowest, sum(columns) + (len(panels) - 1) * gap + 2 * MARGIN)
    room = total - 2 * MARGIN
    lines = [entries for legend in legends if legend for entries in flow(legend, font, room)]
    canvas = Image.new('RGB', (total, 2 * MARGIN + (2 + len(lines)) * line + height + gap), BACKGROUND)
    draw = ImageDraw.Draw(canvas)

    x, y = MARGIN, MARGIN
    short = text.shorten(text.drawable(name), lambda cut: font.getlength(cut + numbers) <= room)
    draw.text((x, y), short + numbers, INK, font)
    y += line
    for (heading, panel), column in zip(panels, columns, strict=True):
        draw.text((x, y), heading, PALE_INK, font)
        # A frame, for a white panel on a white background.
        draw.rectangle((x - 1, y + line - 1, x + width, y + line + height), outline=FRAME)
        canvas.paste(Image.fromarray(panel), (x, y + line))
        x += column + gap
    y += line + height + gap
    for entries in lines:
        draw_entries(draw, entries, font, y)
        y += line
    return np.asarray(canvas)
