"""Finds images and their labels in folders of any names: by folders, by globs, and by what their names share."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Mapping

from seg.datasets import checking
from seg.errors import UserError

_WILD = re.compile(r'\*\*/|\*\*|\*|\?')
_AFFIX = re.compile(r'[^\d/]*')  # What may differ between the names of an image and of its label: no digits.
_TRIED = 50  # Labels that the name of an image is compared with.
_PATTERNS = {'**/': '((?:[^/]+/)*)', '**': '(.*)', '*': '([^/]*)', '?': '([^/])'}


def find(slot: str, root: str, where: str, endings: Collection[str]) -> dict[str, str]:
    """Returns the files of a folder or glob: name -> path.

    In a folder, files with one of the `endings` in any case are taken, in all subfolders, and the name is the path
    without its ending. With a glob (`*` and `?` within a folder, `**` across folders) the name is what its wildcards
    stand for, joined by slashes: `masks/*_mask.png` gives `a` for `masks/a_mask.png`. A glob without a dot in its last
    part stands for folders. Hidden files are skipped.

    Args:
      slot: the setting, such as 'datasets.folders.images', for messages.
      root: the folder that `where` is relative to.
      where: the folder or glob.
      endings: lower case, with the dot.

    Raises:
      UserError: if there is no such folder, it holds no such file, or two files have one name.
    """
    full = os.path.join(root, os.path.expanduser(where))
    wild = _WILD.search(full, len(root) if full.startswith(root) else 0)
    base = (
        full if wild is None else full[: full.rindex('/', 0, wild.start()) + 1] if '/' in full[: wild.start()] else '.'
    )
    if not os.path.isdir(base):
        raise UserError(
            f'{slot} = {where!r}: there is no folder {base}. {root}: {checking.holds(root).lower()}. Expected a folder '
            'or a glob, relative to data_dir or absolute.'
        )
    if wild is not None and '.' not in posixpath.basename(full):
        full = posixpath.join(full, '**')  # Folders that fit.
    pattern = None if wild is None else _compiled(full)
    any_ending = full.endswith('**')
    found: dict[str, str] = {}
    skipped = set()
    for below in checking.files_below(base):
        path = posixpath.join(base, below)
        stem, ending = posixpath.splitext(path)
        if (pattern is None or any_ending) and ending.lower() not in endings:
            skipped.add(ending.lower())
            continue
        if pattern is None:
            name = posixpath.relpath(stem, base)
        elif match := pattern.fullmatch(stem if any_ending else path):
            name = '/'.join(filter(None, (text.strip('/') for text in match.groups())))
        else:
            continue
        if name in found:
            raise UserError(
                f'{slot} = {where!r}: {found[name]} and {path} have the same name {name!r}. Expected one of them: use '
                "a glob, such as 'images/*.jpg', or remove one."
            )
        found[name] = path
    if not found:
        others = f' It holds files that end in {", ".join(sorted(skipped)[:8])}.' if skipped else ''
        kind = f'no file that ends in {", ".join(endings)}' if pattern is None else 'no file that fits the glob'
        raise UserError(f'{slot} = {where!r}: {base} holds {kind}.{others}')
    return found


def _compiled(glob: str) -> re.Pattern:
    """The regular expression of a glob, with a group for each wildcard; case does not matter in the ending."""
    parts, place = [], 0
    dot = glob.rfind('.') if '.' in posixpath.basename(glob) else len(glob)
    for match in [*_WILD.finditer(glob), None]:
        end = len(glob) if match is None else match.start()
        literal = glob[place:end]
        if place <= dot < end:
            parts += [re.escape(glob[place:dot]), f'(?i:{re.escape(glob[dot:end])})']
        else:
            parts.append(re.escape(literal))
        if match is not None:
            parts.append(_PATTERNS[match[0]])
            place = match.end()
    return re.compile(''.join(parts))


def pair(images: Mapping[str, str], labels: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Finds the label of each image by their names.

    Names are equal, or differ by a beginning or an end without digits, the same for all: `a` and `a_mask`, `img_1` and
    `mask_1`, `city/a_photo` and `city/a_labels`. The rule that fits most images is taken.

    Args:
      images: name -> path.
      labels: name -> path.

    Returns:
      Name of an image -> path of its label, for the images that have one, and the rule, for messages; the rule is
      empty for equal names.
    """
    rules = {('', '', '', '')}
    for name in sorted(images)[:3] if images.keys() - labels.keys() else ():
        for core in _cores(posixpath.basename(name)):
            near = [other for other in labels if core in posixpath.basename(other)]
            near.sort(key=lambda other: -len(os.path.commonprefix([name, other])))
            rules |= {rule for other in near[:_TRIED] if (rule := _rule(name, other, core))}
    best: dict[str, str] = {}
    text = ''
    for rule in sorted(rules, key=lambda rule: (sum(map(len, rule)), rule)):
        found = {name: labels[other] for name in images if (other := _applied(name, rule)) in labels}
        if len(found) > len(best):
            old, new = f'{rule[0]}…{rule[2]}', f'{rule[1]}…{rule[3]}'
            best, text = found, '' if rule == ('', '', '', '') else f'{old} has the label {new}'
        if len(best) == len(images):
            break
    return best, text


def _cores(name: str) -> list[str]:
    """Parts of a name, one of which its label certainly has: the longest number, or one of its words."""
    numbers = re.findall(r'\d+', name)
    return [max(numbers, key=len)] if numbers else [word for word in re.split(r'[_\-. ]', name) if word]


def _rule(image: str, label: str, core: str) -> tuple[str, str, str, str] | None:
    """Beginnings and ends that turn the name of an image into that of a label; None if they are not alike.

    What both have around the core stays as it is.
    """
    folder, image = posixpath.split(image)
    other, label = posixpath.split(label)
    if folder != other:
        return None
    heads, tails = zip(*(name.split(core, 1) for name in (image, label)), strict=True)
    before = len(os.path.commonprefix([head[::-1] for head in heads]))
    after = len(os.path.commonprefix(tails))
    begins, ends = [head[: len(head) - before] for head in heads], [tail[after:] for tail in tails]
    return (*begins, *ends) if all(_AFFIX.fullmatch(affix) for affix in (*begins, *ends)) else None


def _applied(name: str, rule: tuple[str, str, str, str]) -> str | None:
    folder, base = posixpath.split(name)
    if rule == ('', '', '', ''):
        return name
    if not (base.startswith(rule[0]) and base.endswith(rule[2])):
        return None
    return posixpath.join(folder, rule[1] + base[len(rule[0]) : len(base) - len(rule[2])] + rule[3])
