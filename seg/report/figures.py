"""The figures of a run's last evaluation, small enough to be embedded in a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from PIL import Image

from seg.run.event_files import StoredFigure

# Encoded anew as JPEG only below this fraction of the stored size: flat drawings are sharper, and no larger, as PNG.
_JPEG_BELOW = 0.6
# JPEG quality and largest width in pixels, tried in turn until all figures fit.
_LEVELS = ((88, 2000), (80, 1600), (70, 1280), (60, 960))
_BUDGET = 3_900_000  # Bytes of all figures; base64 makes them a third larger.
_MOST_PIXELS = 50_000_000
_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)

_MOST_OF_A_GROUP = 12
_KINDS = {
    'fixed': ('Fixed images', 'The same images in every evaluation.'),
    'worst': ('Worst images', 'Ordered by {score} per image, lowest first.'),
    'best': ('Best images', 'Ordered by {score} per image, highest first.'),
    'examples': ('Training examples', 'The first ones, as the model gets them: augmented, with their annotations.'),
}
# Charts of the evaluation; those of instances last.
DRAWINGS = {
    'confusion_matrix': 'Confusion matrix: true classes (rows) and predicted classes (columns).',
    'class_iou': 'IoU of each class.',
    'class_pixels': 'Pixels of each class.',
    'precision_recall': 'Precision against recall.',
    'score_histogram': 'True and false positives by score.',
    'class_ap': 'AP of each class.',
}


class Embedded(NamedTuple):
    """A figure for the page: its tag and step, the data URI, and its width and height in pixels."""

    tag: str
    step: int
    uri: str
    width: int
    height: int


def embed(stored: Iterable[StoredFigure], notes: list[str]) -> list[Embedded]:
    """Encodes figures as data URIs that together stay within the budget; adds notes on omitted ones."""
    readable = []
    for figure in stored:
        try:
            _open(figure).verify()
            readable.append(figure)
        except _ERRORS as error:
            notes.append(f'The figure {figure.tag} cannot be read and is omitted: {error}.')
    for quality, width in _LEVELS:
        made, size = [], 0
        for figure in readable:
            embedded, length = _encode(figure, quality, width)
            size += length
            if size > _BUDGET:
                break
            made.append(embedded)
        if len(made) == len(readable):
            return made
    notes.append(f'Figures omitted to keep this page small: {len(readable) - len(made)}.')
    return made


def _open(figure: StoredFigure) -> Image.Image:
    image = Image.open(io.BytesIO(figure.read()), formats=('PNG', 'JPEG'))
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f'{image.width} x {image.height} pixels')
    return image


def _encode(figure: StoredFigure, quality: int, width: int) -> tuple[Embedded, int]:
    """Returns the figure, and the number of its encoded bytes."""
    data, image = figure.read(), _open(figure)
    kind = image.format.lower()
    drawn = image.convert('RGB')
    if drawn.width > width:
        drawn = drawn.resize((width, max(1, round(drawn.height * width / drawn.width))), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    drawn.save(file, 'JPEG', quality=quality, subsampling=0)
    if file.tell() < _JPEG_BELOW * len(data):
        data, kind = file.getvalue(), 'jpeg'
    else:
        drawn = image
    uri = f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
    return Embedded(figure.tag, figure.step, uri, drawn.width, drawn.height), len(data)


def figure_order(figure: StoredFigure) -> tuple[Any, ...]:
    """Charts first, then fixed, worst, best, others; numbers in a tag count as numbers."""
    group, _, name = figure.tag.rpartition('/')
    order = [*DRAWINGS, *_KINDS]
    place = order.index(group or name) if (group or name) in order else len(order)
    return place, group, int(name) if name.isdecimal() else math.inf, name


def few_of_each_kind(figures: Iterable[StoredFigure]) -> Iterator[StoredFigure]:
    kept: dict[str, int] = {}
    for figure in figures:
        group = figure.tag.rpartition('/')[0] or figure.tag
        kept[group] = kept.get(group, 0) + 1
        if kept[group] <= _MOST_OF_A_GROUP:
            yield figure


def groups(figures: list[Embedded], score: str) -> list[tuple[str, str, list[tuple[str, Embedded]]]]:
    """(heading, remark, (alternative text, figure)…) of the figures that belong together.

    Args:
      figures: all but the charts.
      score: the score by which single images are ranked.
    """
    members_of: dict[str, list[Embedded]] = {}
    for figure in figures:
        members_of.setdefault(figure.tag.rpartition('/')[0], []).append(figure)
    found = []
    for group, members in members_of.items():
        heading, remark = _KINDS.get(group, (group.replace('_', ' ').capitalize() or 'Others', ''))
        remark = remark.format(score=score) + f'{" " if remark else ""}Step {members[0].step:,}.'
        found.append((heading, remark, [(f'{heading}: {p.tag.rpartition("/")[2]}', p) for p in members]))
    return found
