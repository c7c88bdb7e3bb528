"""Which images belong to a split: by a seeded fraction, by folders, or by a list. Pure functions of the images' names.

A name is the path of an image's file without its ending, relative to the folder of the images, with slashes. The
members of a split do not depend on the order in which the names are given.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from seg.datasets import checking, findings
from seg.datasets.findings import Finding
from seg.errors import UserError, shown
from seg.number_checks import check_number, check_whole

_ENDING = re.compile(r'\.(jpe?g|png|tiff?|bmp|webp|gif|npy)$', re.IGNORECASE)  # Of image files.
FRACTIONS = {'train': 0.8, 'val': 0.2}  # If no setting says how images are divided.


def parts(slot: str, split: str) -> list[str]:
    """The splits in a setting such as 'train+val', whose images are joined.

    Raises:
      UserError: if the setting is not a string, or a part is empty.
    """
    found = [part.strip() for part in split.split('+')] if isinstance(split, str) else ['']
    if '' in found:
        raise UserError(
            f"{slot} = {shown(split)}: expected the name of a split, such as 'train', or several: 'train+val'."
        )
    return found


def by_fraction(
    part: str,
    names: Sequence[str],
    split: str,
    fractions: Mapping[str, float] = FRACTIONS,
    groups: str | None = None,
    seed: int = 0,
) -> list[int]:
    """Positions of the names that belong to a split, ascending; each split has its fraction of all names.

    Groups (without `groups`: single names) are put in the order of a hash of seed and name. Each split takes its
    fraction of this sequence. Thus adding or removing a file moves at most a few other files to another split.

    Args:
      part: the data set's gin key, such as 'datasets.folders', for messages.
      names: names of all images.
      split: one or more of the keys of `fractions`, joined by '+'.
      fractions: the fraction of each split, in this order; together 1.
      groups: a regular expression, searched in each name. Names with equal text in its parentheses (without
        parentheses: with equal matches) stay together, such as frames of one video: r'^(.*)_\\d+$'.
      seed: another seed gives another division.

    Raises:
      UserError: if a setting is wrong, a name does not match `groups`, or the split would be empty.
    """
    slot = f'{part}.fractions'
    if not isinstance(fractions, Mapping) or not fractions or not all(isinstance(key, str) for key in fractions):
        raise UserError(f'{slot} = {shown(fractions)}: expected a dict, such as {FRACTIONS}.')
    values = [check_number(f'{slot}[{key!r}]', value, 0, 1, above=True) for key, value in fractions.items()]
    if abs(sum(values) - 1) > 1e-6:
        raise UserError(f'{slot} = {shown(dict(fractions))}: the sum is {sum(values):g}, expected 1.')
    wanted = parts(f'{part}.split', split)
    for each in wanted:
        if each not in fractions:
            raise UserError(
                f'{part}.split = {shown(split)}: the images are divided by {slot} = {shown(dict(fractions))}. Expected '
                f'{" or ".join(map(repr, fractions))}.'
            )
    check_whole(f'{part}.split_seed', seed, 0)
    members: dict[str, list[int]] = {}
    for position, group in enumerate(_groups(part, names, groups)):
        members.setdefault(group, []).append(position)
    ends = [sum(values[: i + 1]) for i in range(len(values) - 1)] + [2.0]
    chosen, before = {key: [] for key in fractions}, 0
    for group in sorted(members, key=lambda group: (_hash(group, seed), group)):
        centre = (before + len(members[group]) / 2) / len(names)  # A group belongs to the split that holds its centre.
        key = next(key for key, end in zip(fractions, ends, strict=True) if centre < end)
        chosen[key] += members[group]
        before += len(members[group])
    for each in wanted:
        if not chosen[each]:
            things = 'images' if groups is None else f'groups ({part}.groups = {groups!r})'
            raise UserError(
                f'{part}.split = {shown(split)}: {each!r} would have none of the {len(members)} {things}: '
                f'{slot}[{each!r}] = {fractions[each]:g}. Add images, or raise this fraction.'
            )
    return sorted(set().union(*(chosen[each] for each in wanted)))


def by_folder(names: Sequence[str], split: str) -> list[int]:
    """Positions of the names in a folder that has the name of the split, at any depth: 'train/a', 'city/train/b'."""
    return [position for position, name in enumerate(names) if split in posixpath.dirname(name).split('/')]


def outside(slot: str, names: Sequence[str], folders: Collection[str]) -> list[Finding]:
    """The finding that some names are in none of the folders that divide the others; none if all are in one.

    Args:
      slot: the setting of the split, for messages.
      names: names of all images.
      folders: names of folders, each of which is a split.
    """
    spare = [name for name in names if not set(posixpath.dirname(name).split('/')) & set(folders)]
    if not spare:
        return []
    return [
        Finding(
            kind='images_of_no_split',
            severity=findings.WARN,
            text=f'{slot}: folders divide the images into splits, and {len(spare)} of {len(names)} are in none of '
            f'them: {checking.first_of(sorted(spare))}.',
            remedy='They are in no split. Move them into one of the folders, if they should be.',
            count=len(spare),
        )
    ]


def by_list(slot: str, path: str, lines: Sequence[str], names: Sequence[str], images: Sequence[str]) -> list[int]:
    """Positions of the listed names, in the order of the list, each once.

    A line may have more than the name: the file's ending, the folders before it (those of the file, or an absolute path
    on another machine), and further columns (such as the label).

    Args:
      slot: the setting that names the list, for messages.
      path: the file of the list, for messages.
      lines: its lines; empty ones and those that start with '#' are skipped.
      names: names of all images.
      images: their files.

    Raises:
      UserError: if the list is empty, or a line names no image.
    """
    positions = {_normal(name): position for position, name in enumerate(names)}
    spaced = any(re.search(r'\s', name) for name in names)

    def position_of(line: str) -> int | None:
        for stem in _stems(line, spaced):
            steps = stem.split('/')
            for i in range(len(steps)):
                position = positions.get('/'.join(steps[i:]))
                if position is not None and (i == 0 or _is_folder('/'.join(steps[:i]), stem, images[position])):
                    return position
        return None

    found, missing = [], []
    for line in filter(None, map(str.strip, lines)):
        if line.startswith('#') and _normal(line) not in positions:
            continue
        position = position_of(line)
        missing.append(line) if position is None else found.append(position)
    if missing:
        raise UserError(
            f'{slot}: {path} lists {len(missing)} names without an image: '
            f'{checking.first_of(missing)}. The images have names such as '
            f'{", ".join(map(shown, sorted(names)[:2]))}. Add the files, or correct the list.'
        )
    if not found:
        raise UserError(f'{slot}: {path} is empty. Expected one name of an image per line.')
    return list(dict.fromkeys(found))


def _stems(line: str, spaced: bool) -> Iterator[str]:
    """What a line may name, the most literal first: all of it or its first column, each with its ending and without.

    A space ends a column if no name contains one (`spaced`), or after the ending of a file.
    """
    yield from _with_and_without_ending(line)
    for match in reversed(list(re.finditer(r'[\s,;]', line))):
        text = line[: match.start()]
        if not match[0].isspace() or not spaced or _ENDING.search(text):
            yield from _with_and_without_ending(text)


def _with_and_without_ending(text: str) -> Iterator[str]:
    name = _normal(text.replace('\\', '/')).removeprefix('./')
    yield name
    if _ENDING.search(name):
        yield _ENDING.sub('', name)


def _is_folder(prefix: str, stem: str, image: str) -> bool:
    """Whether the folders before a name are those of the image's file, or an absolute path."""
    absolute = prefix == '' or prefix.startswith('/') or re.match(r'[A-Za-z]:', prefix)
    return bool(absolute) or _normal(posixpath.splitext(image)[0]).endswith(f'/{stem}')


def _groups(part: str, names: Sequence[str], pattern: Any) -> list[str]:
    """The group of each name."""
    if pattern is None:
        return list(map(_normal, names))
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise UserError(f'{part}.groups = {shown(pattern)}: expected a regular expression: {error}.') from None
    matches = [compiled.search(name) for name in map(_normal, names)]
    lost = [name for name, match in zip(names, matches, strict=True) if match is None]
    if lost:
        raise UserError(
            f'{part}.groups = {shown(pattern)}: {len(lost)} of {len(names)} names do not match: '
            f'{checking.first_of(sorted(lost))}. Extend the expression, for example '
            'by |.* at its end.'
        )
    return ['\0'.join(text or '' for text in match.groups()) if compiled.groups else match[0] for match in matches]


def _hash(group: str, seed: int) -> bytes:
    return hashlib.sha256(f'{seed}\0{group}'.encode('utf-8', 'surrogateescape')).digest()


def _normal(name: str) -> str:
    """The name in composed characters: macOS stores accents apart, and a copy of the data must be divided alike."""
    return unicodedata.normalize('NFC', name)
