"""The pages of `--mode=check_data` and `--mode=show_data`: one file each, without any request."""

from __future__ import annotations

import os
from collections.abc import Sequence

from seg.datasets.findings import FIX, NOTE, SHOWN, WARN
from seg.files import write_text
from seg.inspection import figures
from seg.inspection.check import Checked
from seg.inspection.figures import Embedded
from seg.inspection.split import Split
from seg.report import layout

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_SAMPLES = 4  # Images of each split that are shown in any case, …
_MOST = 60  # … and figures of all findings.
_HEADINGS = {FIX: 'Must be fixed', WARN: 'Warnings', NOTE: 'Notes'}


def write(path: str, checked: Checked) -> None:
    """Writes the page about a check.

    Raises:
      UserError: if the file cannot be written.
    """
    groups, drawn = [], 0
    for severity, heading in _HEADINGS.items():
        members = []
        for split, finding in checked.found:
            if finding.severity != severity:
                continue
            shown = [] if split is None else _of_names(split, finding.images[: min(SHOWN, _MOST - drawn)])
            drawn += len(shown)
            members.append((finding, shown))
        if members:
            groups.append((severity, heading, members))
    record = checked.record()
    html = layout.render(
        _FOLDER,
        title='Check of the data',
        subtitle=', '.join(split.info.name for split in checked.splits) or 'no data could be read',
        tiles=[(heading, record[severity]) for severity, heading in _HEADINGS.items()],
        groups=groups,
        data=[(summary, _samples(split)) for summary, split in zip(record['data'], checked.splits, strict=True)],
        batches=[],
    )
    write_text(path, html)


def write_examples(path: str, subtitle: str, batches: Sequence[tuple[str, Sequence[Embedded]]]) -> None:
    """Writes the page with training examples: for each batch a heading and its figures.

    Raises:
      UserError: if the file cannot be written.
    """
    nothing = {'tiles': [], 'groups': [], 'data': []}
    write_text(path, layout.render(_FOLDER, 'Training examples', subtitle=subtitle, batches=list(batches), **nothing))


def _of_names(split: Split, names: Sequence[str]) -> list[Embedded]:
    """Figures of images by name; those that cannot be loaded are omitted."""
    wanted, places = set(names), {}
    for index in range(len(split.facts)):
        name = split.name(index)
        if name in wanted:
            places.setdefault(name, index)
    found = [figures.of_example(split.dataset, places[name]) for name in dict.fromkeys(names) if name in places]
    return [figure for figure in found if figure is not None]


def _samples(split: Split) -> list[Embedded]:
    """Images spread evenly over a split."""
    loaded = [index for index, _ in split.loaded()]
    chosen = [loaded[i * len(loaded) // _SAMPLES] for i in range(min(_SAMPLES, len(loaded)))]
    found = [figures.of_example(split.dataset, index) for index in chosen]
    return [figure for figure in found if figure is not None]
