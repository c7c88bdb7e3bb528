"""Text in figures: one font, which has more alphabets than Pillow's own, and shortening of names.

The font comes with matplotlib, which is imported when something is drawn, not before.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

FAMILY = 'DejaVu Sans'


@functools.cache
def font_path() -> str:
    """Path of the font file."""
    import matplotlib

    return os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')


@functools.cache
def _characters() -> frozenset[str]:
    """Characters that the font has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(font_path()).get_charmap()))


def drawable(text: str) -> str:
    """The text on one line, with a question mark for each character that the font lacks."""
    known = _characters()
    return ''.join(c if c in known else '?' for c in ' '.join(text.split()))


def class_label(name: str, class_id: int) -> str:
    """A class name, or `class 3` if the font lacks some of its characters (Chinese, Japanese, Korean)."""
    label = drawable(name)
    return label if label and label == ' '.join(name.split()) else f'class {class_id}'


def shorten(text: str, fits: Callable[[str], bool]) -> str:
    """Removes the middle of a text until it fits, because names differ at their beginnings and ends."""
    if fits(text):
        return text
    for kept in range(len(text) - 1, 0, -1):
        cut = f'{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}'
        if fits(cut):
            return cut
    return '…'
