"""Findings about data: what `--mode=check_data` lists, and what stops a run before its first step.

A data set reports its findings through `Dataset.findings`. A run raises those that must be fixed and logs the warnings,
with the same text.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from absl import logging

from seg.errors import UserError

if TYPE_CHECKING:
    from seg.datasets.base import Dataset

FIX, WARN, NOTE = 'fix', 'warn', 'note'  # Severities, most severe first.
SHOWN = 5  # Number of offenders that a finding shows.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault of a data set, or one notable fact about it, with all images that have it.

    Attributes:
      kind: a short name, such as 'truncated_file'; the same in all readers.
      severity: 'fix' (a run refuses the data), 'warn' (a run logs it), or 'note' (only `--mode=check_data` lists it).
      text: what was found: the place, the value and what was expected. It ends with a period, or with a colon if
        `lines` follow.
      remedy: what to do, a sentence; empty if `text` or the lines say so.
      images: names of all images that have it, as `Dataset.image_name` gives them.
      lines: one line for each of the first offenders, with its own place and value.
      count: number of offenders: images, files or annotations.
    """

    kind: str
    severity: str
    text: str
    remedy: str = ''
    images: Sequence[str] = ()
    lines: Sequence[str] = ()
    count: int = 1

    def __post_init__(self):
        if self.severity not in (FIX, WARN, NOTE):
            raise ValueError(f'{self.kind}: severity is {self.severity!r}, expected {FIX!r}, {WARN!r} or {NOTE!r}')

    def message(self) -> str:
        """The text, the first five lines and the remedy."""
        if not self.lines:
            return f'{self.text} {self.remedy}'.strip()
        more = [f'… and {self.count - SHOWN} more.'] if self.count > SHOWN else []
        return '\n  '.join([self.text, *self.lines[:SHOWN], *more, *([self.remedy] if self.remedy else [])])


def unusable(
    kind: str, where: str, faults: Sequence[tuple[str, str]], total: int, things: str = 'examples', remedy: str = ''
) -> list[Finding]:
    """The finding that some files or entries cannot be used; none if there are no faults.

    Args:
      kind: short name of the fault.
      where: the setting and the split, for the text.
      faults: for each offender the image's name (empty for none) and a sentence with place, value and remedy.
      total: number of all things.
      things: what they are.
      remedy: what to do about all of them; empty if the sentences say so.
    """
    if not faults:
        return []
    return [
        Finding(
            kind=kind,
            severity=FIX,
            text=f'{where}: {len(faults)} of {total} {things} cannot be used:',
            remedy=remedy,
            images=tuple(name for name, _ in faults if name),
            lines=tuple(line for _, line in faults[:SHOWN]),
            count=len(faults),
        )
    ]


def left_out(found: Sequence[Finding], total: int) -> list[Finding]:
    """The findings about things that a reader leaves out, so that the others are checked as well.

    A run refuses the data because of them.

    Args:
      found: what must be fixed.
      total: number of all things.

    Raises:
      UserError: if nothing remains.
    """
    if found and sum(finding.count for finding in found) >= total:
        settle(found)
    return list(found)


@contextlib.contextmanager
def reported_first(remarks: Sequence[Finding]) -> Iterator[None]:
    """Context in which a remark that must be fixed replaces an error, which may be a consequence of it."""
    try:
        yield
    except UserError:
        settle(remarks)
        raise


def settle(found: Iterable[Finding]) -> None:
    """Treats findings as a run does: logs the warnings, and raises the first finding that must be fixed.

    Raises:
      UserError: the message of the first finding that must be fixed.
    """
    for finding in found:
        if finding.severity == FIX:
            raise UserError(finding.message())
        if finding.severity == WARN:
            logging.warning('%s', finding.message())


def of(dataset: Dataset, full: bool) -> list[Finding]:
    """All findings of a data set about itself.

    If its class defines `verify` and no `findings`, the error of `verify` is the finding.

    Args:
      dataset: the data set.
      full: whether all files are decoded.
    """
    from seg.datasets.base import Dataset

    found: list[Finding] = []
    try:
        if type(dataset).findings is Dataset.findings and type(dataset).verify is not Dataset.verify:
            dataset.verify()
        else:
            found.extend(dataset.findings(full))
    except UserError as error:
        found.append(Finding(kind='refused', severity=FIX, text=str(error)))
    return found
