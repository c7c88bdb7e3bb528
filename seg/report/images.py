"""The images of the newest evaluation: some drawn large, and the table of all with their scores."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

from seg.errors import UserError
from seg.report.run_files import RunFiles
from seg.run import evaluated_images
from seg.run.evaluated_images import EvaluatedImage

_BUDGET = 6_500_000  # Bytes of all pictures; base64 makes them a third larger.
_MOST_ROWS = 2000  # Rows without a picture; the rows with one come on top.
_LARGE = {'worst': 'Worst images', 'best': 'Best images', 'fixed': 'Fixed images'}


class Row(NamedTuple):
    """An image: its id in the page, its number in the data set, the record, the picture as a data URI ('' for none)."""

    id: str
    number: int
    image: EvaluatedImage
    uri: str


class ImageTable(NamedTuple):
    """The images of an evaluation.

    Attributes:
      step: step of the evaluation.
      groups: heading and members of the images that are drawn large, each once.
      rows: all images, the lowest score first.
      score: name of the score.
      headings: of the panels of the pictures.
      large: ids of the images that are drawn large.
    """

    step: int
    groups: list[tuple[str, list[Row]]]
    rows: list[Row]
    score: str
    headings: Sequence[str]
    large: frozenset[str]


def image_table(run: RunFiles, score: str, notes: list[str]) -> ImageTable | None:
    """Reads the images; None if the run has none, as older ones.

    Args:
      run: the run.
      score: name of the score by which images are ranked.
      notes: gets a note if the file is damaged, or images or pictures are omitted.
    """
    paths = evaluated_images.newest(run.folder.eval)
    if not paths:
        return None
    try:
        step, images = evaluated_images.read(paths[0])
    except UserError:
        notes.append(f'{run.folder.relative(paths[0])} is damaged, and omitted.')
        return None
    rows = _embedded(images, notes)
    groups = []
    for kind, heading in _LARGE.items():
        members = [row for row in rows if row.uri and _place(row.image, kind)]
        members.sort(key=lambda row: _place(row.image, kind))
        if members := [row for row in members if not any(row in others for _, others in groups)]:
            groups.append((heading, members))
    rows.sort(key=lambda row: (row.image.score is None, row.image.score or 0, row.number))
    if len(rows) > _MOST_ROWS:
        kept = [row for row in rows if row.uri]
        kept += [row for row in rows if not row.uri][: max(0, _MOST_ROWS - len(kept))]
        notes.append(
            f'Images in the table: {len(kept):,} of {len(rows):,}; all are in {run.folder.relative(paths[0])}.'
        )
        rows = sorted(kept, key=rows.index)
    headings = next((row.image.headings for row in rows if row.uri), ())
    large = frozenset(row.id for _, members in groups for row in members)
    return ImageTable(step, groups, rows, score, headings, large) if rows else None


def _place(image: EvaluatedImage, kind: str) -> int:
    """The place of an image among those of a kind, from 1; 0 if it is none of them."""
    places = [place for name, _, place in (each.partition(' ') for each in image.chosen) if name == kind]
    return next((int(place) for place in places if place.isdecimal()), 0)


def _embedded(images: Sequence[EvaluatedImage], notes: list[str]) -> list[Row]:
    """The images with as many pictures as the page has room for, those that are drawn large first."""
    room, shown = _BUDGET, set()
    pictures = [(not image.chosen, place, len(image.strip)) for place, image in enumerate(images) if image.strip]
    for _, place, size in sorted(pictures):
        room -= size
        if room >= 0:
            shown.add(place)
    if len(shown) < len(pictures):
        notes.append(f'Images without a picture, to keep this page small: {len(pictures) - len(shown)}.')
    uri = lambda strip: f'data:image/jpeg;base64,{base64.b64encode(strip).decode()}'  # noqa: E731
    return [
        Row(f'image-{place + 1}', place + 1, image, uri(image.strip) if place in shown else '')
        for place, image in enumerate(images)
    ]
