"""Legends: colours with their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from seg.drawing import text
from seg.drawing.labels import Color

MARGIN = 12
BACKGROUND, INK, PALE_INK, FRAME = (255, 255, 255), (32, 32, 32), (104, 104, 104), (160, 160, 160)

_FONT, _ROOM = 16, 480  # Font size and width, in pixels, of a separate legend.


class Entry(NamedTuple):
    """One entry of a legend: a colour (None for no box), a name, and a remark in a paler colour."""

    color: Color | None
    name: str = ''
    remark: str = ''


def _widths(entry: Entry, font) -> tuple[int, int, int]:
    """Widths of the colour's box, of the name, and of the remark with the space before it."""
    box = round(font.size * 1.35) if entry.color else 0
    gap = ' ' if entry.name else ''
    return box, int(np.ceil(font.getlength(entry.name))), int(np.ceil(font.getlength(gap + entry.remark)))


def flow(entries: Sequence[Entry], font, room: int) -> list[list[Entry]]:
    """Breaks a legend into lines of at most `room` pixels; a name longer than a line is cut."""
    lines: list[list[Entry]] = [[]]
    used = 0
    for entry in entries:
        name = text.shorten(entry.name, lambda cut, e=entry: sum(_widths(e._replace(name=cut), font)) <= room)
        entry = entry._replace(name=name)
        width = sum(_widths(entry, font))
        if used and used + width > room:
            lines.append([])
            used = 0
        lines[-1].append(entry)
        used += width + font.size
    return lines


def draw_entries(draw, entries: Sequence[Entry], font, y: int) -> None:
    """Draws one line of a legend, its top at `y`."""
    x, side = MARGIN, font.size
    for entry in entries:
        box, name, remark = _widths(entry, font)
        if entry.color:
            top = y + round(side * 0.12)
            draw.rectangle((x, top, x + side - 1, top + side - 1), entry.color, FRAME)
        draw.text((x + box, y), entry.name, INK, font)
        draw.text((x + box + name + remark, y), entry.remark, PALE_INK, font, anchor='ra')
        x += box + name + remark + side


def legend(class_names: Sequence[str], colors: Sequence[Color]) -> np.ndarray:
    """A legend of its own, one class per line.

    Args:
      class_names: one per class.
      colors: one per class.

    Returns:
      uint8 [h, w, 3].
    """
    font = ImageFont.truetype(text.font_path(), _FONT, layout_engine=ImageFont.Layout.BASIC)
    entries = [
        Entry(tuple(color), text.class_label(name, i), str(i))
        for i, (name, color) in enumerate(zip(class_names, colors, strict=True))
    ]
    lines = [line for entry in entries for line in flow([entry], font, _ROOM)]
    width = max(sum(_widths(entry, font)) for (entry,) in lines)
    step = round(_FONT * 1.5)
    image = Image.new('RGB', (width + 2 * MARGIN, len(lines) * step + 2 * MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw_entries(draw, line, font, MARGIN + i * step)
    return np.asarray(image)
