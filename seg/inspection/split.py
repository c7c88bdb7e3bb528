"""One split under inspection: its data set with the facts about its images, and the findings about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from seg.datasets.base import Dataset
from seg.datasets.findings import FIX, SHOWN, Finding
from seg.errors import shown
from seg.inspection.facts import Facts
from seg.structures import DatasetInfo


@dataclasses.dataclass(frozen=True)
class Split:
    """A data set and the facts about its images, in its order."""

    dataset: Dataset
    facts: Sequence[Facts]

    @property
    def info(self) -> DatasetInfo:
        return self.dataset.info

    def name(self, index: int) -> str:
        return self.dataset.image_name(index)

    def loaded(self) -> list[tuple[int, Facts]]:
        """Position and facts of all images that can be loaded."""
        return [(index, facts) for index, facts in enumerate(self.facts) if not facts.failure]

    def finding(
        self,
        kind: str,
        severity: str,
        what: str,
        indices: Iterable[int],
        remedy: str,
        line: Callable[[int], str] | None = None,
        count: int | None = None,
    ) -> list[Finding]:
        """The finding about some images; none if there are no images.

        Args:
          kind: short name.
          severity: see `Finding`.
          what: completes "<n> of <all> images "; without a period.
          indices: positions of the images.
          remedy: what to do.
          line: function from a position to what is wrong with the image there; by default only its name is shown.
          count: number of offenders, if they are not the images.
        """
        indices = list(indices)
        if not indices:
            return []
        one = 'image' if len(self.facts) == 1 else 'images'
        named = ', '.join(shown(self.name(index)) for index in indices[:SHOWN])
        text = f'{self.info.name}: {len(indices)} of {len(self.facts)} {one} {what}'
        lines = tuple(f'image {shown(self.name(i))}: {line(i)}' for i in indices[:SHOWN]) if line else ()
        more = ', …' if len(indices) > SHOWN else '.'
        return [
            Finding(
                kind=kind,
                severity=severity,
                text=f'{text}:' if line else f'{text}: {named}{more}',
                remedy=remedy,
                images=tuple(self.name(index) for index in indices),
                lines=lines,
                count=len(indices) if count is None else count,
            )
        ]


def without_known(found: Iterable[Finding], known: Iterable[Finding]) -> list[Finding]:
    """The findings that add to those of the data set itself.

    A finding is known if the data set has one of its kind, or if all of its images must be fixed anyway.
    """
    known = list(known)
    kinds = {finding.kind for finding in known}
    images = {name for finding in known if finding.severity == FIX for name in finding.images}
    return [f for f in found if f.kind not in kinds and not (f.images and images.issuperset(f.images))]
