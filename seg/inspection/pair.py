"""Findings about training and evaluation data together."""

from __future__ import annotations

from collections.abc import Iterator

from seg import checks
from seg.datasets import overlap
from seg.datasets.findings import FIX, WARN, Finding
from seg.errors import UserError, shown
from seg.inspection import instances, label_maps, thumbnails
from seg.inspection.split import Split


def check(train: Split, evaluation: Split) -> Iterator[Finding]:
    """Yields findings about two splits of one experiment."""
    try:
        checks.same_classes(train.info, evaluation.info)
    except UserError as error:
        yield Finding(kind='class_names', severity=FIX, text=str(error))
    else:
        yield from _classes_of_one(train, evaluation)
    shared = list(overlap.shared(train.dataset, evaluation.dataset))
    yield from shared
    yield from _near_duplicates(train, evaluation, {name for finding in shared for name in finding.images})


def _classes_of_one(train: Split, evaluation: Split) -> Iterator[Finding]:
    """Classes that occur in one of the two splits only."""
    here, there = map(_occurring, (train, evaluation))
    for names, inside, outside in ((there - here, evaluation, train), (here - there, train, evaluation)):
        if names:
            listed = ', '.join(map(shown, sorted(names)[:5])) + (', …' if len(names) > 5 else '')
            never = 'can never be found' if outside is train else 'is never scored'
            yield Finding(
                kind='class_of_one_split',
                severity=WARN,
                text=f'{len(names)} classes occur in {inside.info.name} and not in {outside.info.name}: {listed}.',
                remedy=f'Such a class {never}: divide the images anew.',
                count=len(names),
            )


def _occurring(split: Split) -> set[str]:
    if any(facts.instances is not None for facts in split.facts):
        return {c.name for c in instances.classes(split) if c.instances}
    names = set(split.info.class_names)
    return {value.name for value in label_maps.values(split) if value.pixels and value.name in names}


def _near_duplicates(train: Split, evaluation: Split, known: set[str]) -> Iterator[Finding]:
    places = [(split, index) for split in (train, evaluation) for index, _ in split.loaded()]
    found = thumbnails.pairs([split.facts[index].thumbnail for split, index in places])
    partner = {
        places[j][1]: places[i][1]
        for i, j in reversed(found)
        if places[i][0] is train and places[j][0] is evaluation and evaluation.name(places[j][1]) not in known
    }
    yield from evaluation.finding(
        'near_duplicates_of_training',
        WARN,
        f'are nearly the same as an image of {train.info.name}',
        sorted(partner),
        'Scores on them do not show how well new images are segmented. Copies, crops and neighbouring frames of a '
        'video belong in one split.',
        lambda i: f'as {shown(train.name(partner[i]))}.',
    )
