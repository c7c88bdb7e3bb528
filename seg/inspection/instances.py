"""Findings about instances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seg.datasets import checking
from seg.datasets.findings import FIX, NOTE, WARN, Finding
from seg.inspection.facts import Instances
from seg.inspection.split import Split
from seg.ops.sizes import fitted_size
from seg.structures import DataLimits

_SHARE = 0.1  # Share of instances beyond the anchors from which on it is a warning.
_REACH = 2.0  # An instance is beyond the anchors if its side is this many times smaller, or larger, than any of them.


class OfClass(NamedTuple):
    """The instances of a class in a split.

    Attributes:
      name: name of the class.
      instances: how many there are, crowds excluded.
      crowds: how many are crowds.
      images: images with an instance of the class.
      area: pixels of the instances.
    """

    name: str
    instances: int
    crowds: int
    images: int
    area: float


def classes(split: Split) -> list[OfClass]:
    """The instances of each class."""
    count = split.info.num_classes
    instances, crowds, images, area = (np.zeros(count) for _ in range(4))
    for _, found in _each(split):
        known = (found.classes >= 0) & (found.classes < count)
        counted = known & ~found.is_crowd
        of_image = np.bincount(found.classes[counted], minlength=count)
        instances += of_image
        images += of_image > 0
        crowds += np.bincount(found.classes[known & found.is_crowd], minlength=count)
        area += np.bincount(found.classes[counted], found.area[counted], count)
    columns = zip(split.info.class_names, instances, crowds, images, area, strict=True)
    return [OfClass(name, int(n), int(c), int(i), float(a)) for name, n, c, i, a in columns]


def _each(split: Split) -> list[tuple[int, Instances]]:
    return [(i, facts.instances) for i, facts in split.loaded() if facts.instances is not None]


def check(split: Split, limits: DataLimits) -> Iterator[Finding]:
    """Yields findings about the instances of a split."""
    each = _each(split)
    if not each:
        return
    yield from _faulty(split, each)
    total = sum(len(found.classes) for _, found in each)
    crowds = sum(int(found.is_crowd.sum()) for _, found in each)
    if total == crowds:
        yield Finding(
            kind='all_crowds' if crowds else 'no_instance',
            severity=FIX,
            text=f'{split.info.name}: all of its {crowds} instances are crowds, which count neither in training nor in '
            'scores.'
            if crowds
            else f'{split.info.name}: it has no instance.',
            remedy='CVAT marks masks that were painted with its brush as crowds: set their iscrowd to 0 if each is one '
            'instance.'
            if crowds
            else 'Are these the right annotations?',
        )
        return
    yield from _classes(split, crowds)
    empty = [i for i, found in each if found.is_crowd.all()]
    yield from split.finding(
        'without_instances',
        WARN if len(empty) > len(each) / 2 else NOTE,
        'have no instance',
        empty,
        'The model learns the background from them. Check that they were labelled.',
    )
    yield from _limits(split, each, limits)
    yield from _anchors(split, each, limits)


def _faulty(split: Split, each: list[tuple[int, Instances]]) -> Iterator[Finding]:
    count = split.info.num_classes
    for kind, severity, faulty, what, remedy in (
        (
            'class_out_of_range',
            FIX,
            lambda found: (found.classes < 0) | (found.classes >= count),
            f'have instances whose class is not 0..{count - 1}',
            'Correct the classes of these instances, or add the missing class names.',
        ),
        (
            'box_outside',
            FIX,
            lambda found: found.outside,
            'have instances whose box reaches out of the image',
            'Boxes are in pixels of the image as it is loaded. Was the image scaled or turned after it was labelled?',
        ),
        (
            'degenerate',
            WARN,
            lambda found: (found.thin | ~(found.area >= 1)) & ~found.is_crowd,
            'have instances less than a pixel high or wide',
            'They cannot serve as targets: remove them, or label them again.',
        ),
        (
            'duplicate',
            WARN,
            lambda found: found.repeated,
            'have instances with the class, the box and the area of another one',
            'Each extra copy counts as a missed instance. Remove the copies: was the annotation file merged twice?',
        ),
    ):
        counts = {i: int(np.sum(faulty(found))) for i, found in each}
        wrong = [i for i, n in counts.items() if n]
        yield from split.finding(
            kind,
            severity,
            what,
            wrong,
            remedy,
            lambda i, counts=counts: f'{counts[i]} of {len(split.facts[i].instances.classes)} instances.',
            sum(counts.values()),
        )


def _classes(split: Split, crowds: int) -> Iterator[Finding]:
    name, of_class = split.info.name, classes(split)
    if only := [c.name for c in of_class if c.crowds and not c.instances]:
        yield Finding(
            kind='crowds_of_class',
            severity=WARN,
            text=f'{name}: all instances of {checking.first_of(only)} are crowds, which count neither in training nor '
            'in scores.',
            remedy='Set their iscrowd to 0 if each of them is one instance.',
            count=len(only),
        )
    elif crowds:
        yield Finding(
            kind='crowds',
            severity=NOTE,
            text=f'{name}: {crowds} instances are crowds, which count neither in training nor in scores.',
            count=crowds,
        )
    if absent := [c.name for c in of_class if not c.instances and not c.crowds]:
        yield Finding(
            kind='absent_class',
            severity=WARN,
            text=f'{name}: {len(absent)} of {len(of_class)} classes have no instance: {checking.first_of(absent)}.',
            remedy='They can be neither learnt nor scored from this split. Move images with these classes into it, '
            'or leave the classes out.',
            count=len(absent),
        )


def _limits(split: Split, each: list[tuple[int, Instances]], limits: DataLimits) -> Iterator[Finding]:
    numbers = {i: int(np.sum(~found.is_crowd)) for i, found in each}
    most = {i: int(np.bincount(found.classes[~found.is_crowd].clip(0), minlength=1).max()) for i, found in each}
    for counts, bounds, what in ((numbers, limits.instances, ''), (most, limits.instances_of_class, ' of one class')):
        for setting, limit in bounds.items():
            yield from split.finding(
                'too_many_instances',
                WARN,
                f'have more instances{what} than {setting} = {limit} leaves room for, at most {max(counts.values())}',
                [i for i, n in counts.items() if n > limit],
                f'Raise {setting}, which takes memory, or cut the images into pieces.',
                lambda i, counts=counts: f'{counts[i]} instances.',
            )


def _anchors(split: Split, each: list[tuple[int, Instances]], limits: DataLimits) -> Iterator[Finding]:
    if not limits.anchor_sizes:
        return
    sides, owner = [], []
    for i, found in each:
        scale = 1.0
        if limits.eval_size is not None:
            facts = split.facts[i]
            size = fitted_size(
                (facts.height, facts.width), limits.eval_size, lambda v, low, high: min(max(v, low), high)
            )
            scale = (size[0] * size[1] / (facts.height * facts.width)) ** 0.5
        sides.append(found.sides[~found.is_crowd] * scale)
        owner.append(np.full(len(sides[-1]), i))
    sides, owner = np.concatenate(sides), np.concatenate(owner)
    low, high = limits.anchor_sizes[0] / _REACH, limits.anchor_sizes[-1] * _REACH
    sizes = ', '.join(f'{size:.3g}' for size in limits.anchor_sizes)
    for beyond, what in ((sides < low, 'smaller'), (sides > high, 'larger')):
        share = beyond.mean() if len(beyond) else 0
        yield from split.finding(
            f'{what}_than_anchors',
            WARN if share > _SHARE else NOTE,
            f'have instances much {what} than the anchors ({sizes} pixels): {beyond.sum()} of {len(sides)} instances, '
            f'{100 * share:.1f} %, have a side (square root of the box area) '
            f'{f"below {low:g}" if what == "smaller" else f"above {high:g}"} pixels; '
            f'5, 50 and 95 % of all are below {", ".join(f"{s:.0f}" for s in np.percentile(sides, [5, 50, 95]))}',
            sorted(set(owner[beyond].tolist())),
            'The RPN rarely proposes them. Change heads.rpn.anchor_scale, or the scale of the images.',
        )
