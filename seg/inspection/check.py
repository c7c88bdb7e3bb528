"""Checks data sets completely, for `--mode=check_data`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from seg.datasets import contract, findings
from seg.datasets.base import Dataset, FirstExamples
from seg.datasets.findings import FIX, NOTE, WARN, Finding
from seg.errors import UserError
from seg.inspection import facts, images, instances, label_maps, pair
from seg.inspection.split import Split, without_known
from seg.structures import DataLimits

_OF_ENDLESS = 200  # Examples of an endless data set that are checked.


@dataclasses.dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
      splits: the data sets that could be read, in the order of the settings.
      found: all findings, most severe first, with the split of each; None for one about several.
    """

    splits: Sequence[Split]
    found: Sequence[tuple[Split | None, Finding]]

    def count(self, severity: str) -> int:
        """Number of findings of a severity."""
        return sum(finding.severity == severity for _, finding in self.found)

    def record(self) -> dict[str, Any]:
        """The result as values that JSON can hold."""
        return {
            **{severity: self.count(severity) for severity in (FIX, WARN, NOTE)},
            'findings': [
                {'data': split.info.name if split else None, **_listed(dataclasses.asdict(finding))}
                for split, finding in self.found
            ],
            'data': [_summary(split) for split in self.splits],
        }


def check(
    data: Mapping[str, Dataset | UserError],
    target: str,
    limits: DataLimits = DataLimits(),  # noqa: B008  A NamedTuple is immutable.
    self_test: Callable[[Dataset], None] = lambda dataset: None,
) -> Checked:
    """Decodes all images of data sets, and checks each data set and all together.

    Args:
      data: for each setting, such as 'experiment.train_data', the data set, or the error that reading it raised.
      target: what the task learns from.
      limits: what the settings of the task allow.
      self_test: the task's check of the ground truth of a data set.

    Raises:
      UserError: if a plugin's `load` fails for another reason than an unreadable file.
    """
    splits, found = [], []
    for slot, dataset in data.items():
        if isinstance(dataset, UserError):
            found.append((None, Finding(kind='refused', severity=FIX, text=f'{slot}: {dataset}')))
            continue
        if dataset.info.num_examples is None:
            dataset = FirstExamples(dataset, _OF_ENDLESS, slot)
        own = findings.of(dataset, full=True)
        split = Split(dataset, facts.read_all(dataset, f'checking {dataset.info.name}'))
        general = itertools.chain(images.check(split, limits), label_maps.check(split), instances.check(split, limits))
        own += without_known(general, own)
        if all(finding.severity != FIX for finding in own):
            own += _refusals(dataset, target, slot, self_test)
        splits.append(split)
        found += [(split, finding) for finding in own]
    found = list(_of_both(found))
    for one, other in itertools.combinations(splits, 2):
        found += [(None, finding) for finding in pair.check(one, other)]
    order = [FIX, WARN, NOTE]
    return Checked(splits, sorted(found, key=lambda item: order.index(item[1].severity)))


def _of_both(found: Sequence[tuple[Split | None, Finding]]) -> Iterator[tuple[Split | None, Finding]]:
    """Findings that are equal but for the name of their split become one, which names all of these splits."""
    groups: dict[Any, list[tuple[Split | None, Finding]]] = {}
    for number, (split, finding) in enumerate(found):
        alike: Any = number
        if split is not None and not finding.images:
            alike = dataclasses.replace(_renamed(finding, split, []), images=(), count=0)
        groups.setdefault(alike, []).append((split, finding))
    for (split, finding), *others in groups.values():
        if others:
            split, finding = None, _renamed(finding, split, [split, *(other for other, _ in others)])
        yield split, finding


def _renamed(finding: Finding, split: Split, splits: Sequence[Split]) -> Finding:
    """The finding of a split, with the names of `splits` in place of its own."""

    def renamed(text: str) -> str:
        for place, own in enumerate(_names(split)):
            text = text.replace(own, ' and '.join(dict.fromkeys(_names(each)[place] for each in splits)))
        return text

    return dataclasses.replace(finding, text=renamed(finding.text), lines=tuple(map(renamed, finding.lines)))


def _names(split: Split) -> tuple[str, str]:
    """How findings name a split."""
    return split.info.name, repr(split.info.name.rpartition('/')[2])


def _refusals(dataset: Dataset, target: str, slot: str, self_test: Callable[[Dataset], None]) -> Iterator[Finding]:
    """What a run would refuse after its own checks of the files."""
    for kind, look in (
        ('contract', lambda: contract.check_first(dataset, target, slot)),
        ('self_test', lambda: self_test(dataset)),
    ):
        try:
            look()
        except UserError as error:
            yield Finding(kind=kind, severity=FIX, text=str(error))
            return


def log(checked: Checked) -> None:
    """Logs all findings."""
    titles = {FIX: 'MUST BE FIXED', WARN: 'warning', NOTE: 'note'}
    for _, finding in checked.found:
        logging.info('%s: %s', titles[finding.severity], finding.message())


def _listed(record: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in record.items()}


def _summary(split: Split) -> dict[str, Any]:
    """Numbers about a split."""
    info, loaded = split.info, split.loaded()
    heights, widths = (np.array([getattr(f, side) for _, f in loaded] or [0]) for side in ('height', 'width'))
    found = {
        'name': info.name,
        'images': len(split.facts),
        'loaded': len(loaded),
        'height': [int(heights.min()), int(np.median(heights)), int(heights.max())],
        'width': [int(widths.min()), int(np.median(widths)), int(widths.max())],
    }
    values = label_maps.values(split) if any(f.label_size for _, f in loaded) else []
    total = sum(value.pixels for value in values) or 1
    if values:
        found['values'] = [
            {**value._asdict(), 'pixel_share': value.pixels / total, 'image_share': value.images / max(len(loaded), 1)}
            for value in values
        ]
    if any(f.instances is not None for _, f in loaded):
        found['classes'] = [c._asdict() for c in instances.classes(split)]
        numbers = np.array([np.sum(~f.instances.is_crowd) for _, f in loaded if f.instances is not None])
        sides = np.concatenate([f.instances.sides[~f.instances.is_crowd] for _, f in loaded if f.instances is not None])
        found['instances_of_image'] = _spread(numbers)
        found['side'] = _spread(sides)
    return found


def _spread(values: np.ndarray) -> dict[str, float]:
    """Smallest, 5 %, median, 95 % and largest value."""
    levels = np.percentile(values, [0, 5, 50, 95, 100]) if len(values) else np.zeros(5)
    return dict(zip(('min', 'p5', 'median', 'p95', 'max'), map(float, levels), strict=True))
