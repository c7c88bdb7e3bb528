"""`index.html` of a folder of predictions: what was made of each image, and a legend."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from seg.drawing import Color
from seg.prediction.sources import CLASS_MAP, OVERLAY
from seg.structures import DatasetInfo

_FOLDER = os.path.dirname(os.path.abspath(__file__))
MOST = 2000  # Images on the page; `predictions.jsonl` has all.
_MOST_CLASSES = 8  # Of an image, the most frequent ones.


class Card(NamedTuple):
    """An image on the page: its name, the addresses of its files ('' for none), its size, and what was found."""

    name: str
    overlay: str
    class_map: str
    width: int
    height: int
    facts: str
    classes: list[tuple[int, str]]


def render(
    folder: str,
    records: Sequence[Mapping[str, Any]],
    number: int,
    failed: Sequence[tuple[str, str]],
    info: DatasetInfo,
    colors: Sequence[Color],
) -> str:
    """The page's HTML; it shows the files by their relative addresses.

    Args:
      folder: the output folder.
      records: the lines of the first images, without those that failed; at most `MOST`. Where the overlay shows only
        some instances, `count` and `classes` are of these, and `found` is the number of all.
      number: number of all images that did not fail.
      failed: (file, reason) of the others.
      info: facts about the training data.
      colors: one (r, g, b) per class, as drawn; empty for a task without classes.
    """
    from seg.report import layout

    return layout.render(
        _FOLDER,
        title='Predictions',
        data=info.name,
        cards=[_card(folder, record) for record in records],
        number=number,
        failed=failed,
        legend=list(zip(info.class_names, ['#{:02x}{:02x}{:02x}'.format(*color) for color in colors], strict=False)),
    )


def _card(folder: str, record: Mapping[str, Any]) -> Card:
    name = record['output']
    address = lambda end: quote(os.fsencode(name + end)) if os.path.isfile(os.path.join(folder, name + end)) else ''  # noqa: E731
    found = record.get('classes', ())[:_MOST_CLASSES]
    facts = [f'{record["width"]} \N{MULTIPLICATION SIGN} {record["height"]} pixels']
    if 'mean_confidence' in record:
        facts.append(f'mean confidence {record["mean_confidence"]:.3f}')
    if 'count' in record:
        facts.append(f'{record["count"]:,} instance{"" if record["count"] == 1 else "s"}')
    if hidden := record.get('found', 0) - record.get('count', 0):
        facts.append(f'{hidden:,} more with a low score')
    classes = [(one['id'], f'{one["name"]} {_amount(one)}') for one in found]
    return Card(
        name, address(OVERLAY), address(CLASS_MAP), record['width'], record['height'], ', '.join(facts), classes
    )


def _amount(one: Mapping[str, Any]) -> str:
    """A class's share of the pixels, or its number of instances."""
    if 'share' not in one:
        return f'{one["count"]:,}'
    return '< 0.1 %' if one['share'] < 0.0005 else f'{100 * one["share"]:.1f} %'
