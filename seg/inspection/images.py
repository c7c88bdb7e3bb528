"""Findings about images and their files."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterator

import numpy as np

from seg.datasets.findings import FIX, NOTE, WARN, Finding
from seg.errors import built_in, shown
from seg.inspection import thumbnails
from seg.inspection.split import Split
from seg.structures import DataLimits

_DARK = 64  # An image whose values are all lower is nearly black.
_LARGEST = 2**26  # Pixels.
_ENDINGS = {
    'JPEG': ('.jpg', '.jpeg', '.jpe', '.jfif'),
    'MPO': ('.jpg', '.jpeg', '.mpo'),
    'PNG': ('.png',),
    'TIFF': ('.tif', '.tiff'),
    'BMP': ('.bmp',),
    'GIF': ('.gif',),
    'WEBP': ('.webp',),
}


def check(split: Split, limits: DataLimits) -> Iterator[Finding]:
    """Yields findings about images of any target."""
    yield from _unreadable(split)
    yield from _repeated(split)
    yield from _files(split)
    loaded = split.loaded()
    yield from split.finding(
        'blank_image',
        WARN,
        'have one colour only',
        [i for i, facts in loaded if facts.thumbnail.min() == facts.thumbnail.max() and facts.greatest < 255],
        'Look at them. A camera, an export or a copy may have failed: remove or replace them.',
    )
    yield from split.finding(
        'dark_image',
        WARN,
        f'are nearly black: no value is above {_DARK - 1} of 255',
        [i for i, facts in loaded if 0 < facts.greatest < _DARK],
        'Of images of 16 bits only the 8 highest are read: if a camera has fewer, such as 12, scale its values to 16.',
    )
    yield from _sizes(split, limits)
    yield from near_duplicates(split)


def _unreadable(split: Split) -> Iterator[Finding]:
    yield from split.finding(
        'unreadable',
        FIX,
        'cannot be loaded',
        [i for i, facts in enumerate(split.facts) if facts.failure],
        'Download or create these files again, or remove the images from the split.',
        lambda i: _with_path(split, i, split.facts[i].failure),
    )


def _with_path(split: Split, index: int, text: str) -> str:
    path = split.dataset.image_path(index)
    return f'{text}.' if path is None or path in text else f'{path}: {text}.'


def _repeated(split: Split) -> Iterator[Finding]:
    names = [split.name(i) for i in range(len(split.facts))]
    counts = collections.Counter(names)
    yield from split.finding(
        'repeated_image',
        WARN,
        'are listed more than once',
        [names.index(name) for name, count in counts.items() if count > 1],
        'They count more than others, in training and in scores. Remove the repetitions from the list.',
    )
    first, again = {}, []
    for index in range(len(names)):
        if first.setdefault(split.dataset.image_id(index), index) != index:
            again.append(index)
    yield from split.finding(
        'repeated_image_id',
        FIX,
        'have the id of an earlier image, so that results cannot be told apart',
        [index for index in again if counts[names[index]] == 1],
        'Give each image its own id.',
        lambda i: f'id {shown(split.dataset.image_id(i))}, as {shown(names[first[split.dataset.image_id(i)]])}.',
    )


def _files(split: Split) -> Iterator[Finding]:
    files = {i: facts.file for i, facts in enumerate(split.facts) if facts.file is not None and facts.file.format}
    ending = {i: os.path.splitext(split.dataset.image_path(i))[1].lower() for i in files}
    yield from split.finding(
        'wrong_name',
        WARN,
        'have a name that does not fit their content',
        [i for i, file in files.items() if file.format in _ENDINGS and ending[i] not in _ENDINGS[file.format]],
        'They are read by their content here. Other programs may refuse them: rename them.',
        lambda i: f'{split.dataset.image_path(i)} is a {files[i].format} file.',
    )
    yield from split.finding(
        'exif_turned',
        WARN,
        'have an EXIF orientation',
        # Built-in readers report it themselves if they do not apply it.
        [i for i, file in files.items() if file.orientation != 1 and not built_in(split.dataset)],
        'Labels must fit the images as they are loaded: see the overlays.',
        lambda i: f'orientation {files[i].orientation}.',
    )
    yield from split.finding(
        'cmyk',
        WARN,
        'have CMYK colours',
        [i for i, file in files.items() if file.mode == 'CMYK'],
        'Their conversion to RGB depends on the program, so colours may differ from what you see: save them as RGB.',
    )
    yield from split.finding(
        'deep',
        NOTE,
        'have more than 8 bits per sample',
        [i for i, file in files.items() if file.bits > 8],
        'Only the 8 highest bits are read.',
        lambda i: f'{files[i].bits} bits.',
    )


def _sizes(split: Split, limits: DataLimits) -> Iterator[Finding]:
    loaded = split.loaded()
    size = lambda i: f'{split.facts[i].height} x {split.facts[i].width} pixels (height x width).'  # noqa: E731
    yield from split.finding(
        'small_image',
        WARN,
        f'have a side below {limits.stride} pixels, the stride of the model',
        [i for i, facts in loaded if min(facts.height, facts.width) < limits.stride],
        'The model has less than one cell for them. Remove them, or use larger images.',
        size,
    )
    yield from split.finding(
        'large_image',
        WARN,
        f'have more than {_LARGEST / 1e6:.0f} million pixels',
        [i for i, facts in loaded if facts.height * facts.width > _LARGEST],
        'Evaluation pads all images to the largest height and width, which takes memory: cut these into pieces.',
        size,
    )
    if not loaded:
        return
    pixels = np.median([facts.height * facts.width for _, facts in loaded])
    height, width = (max(getattr(facts, side) for _, facts in loaded) for side in ('height', 'width'))
    if height * width > 4 * pixels:
        yield from split.finding(
            'uneven_sizes',
            WARN if height * width > 16 * pixels else NOTE,
            f'have the largest height or width. Evaluation pads all images to {height} x {width} pixels, '
            f'{height * width / pixels:.1f} times the area of half of them',
            [i for i, facts in loaded if facts.height == height or facts.width == width],
            'Scale or cut the largest images if evaluation is slow or lacks memory.',
            size,
        )


def near_duplicates(split: Split) -> Iterator[Finding]:
    """Pairs of images of one split that are nearly the same."""
    loaded = [index for index, _ in split.loaded()]
    found = thumbnails.pairs([split.facts[index].thumbnail for index in loaded])
    partner = {loaded[j]: loaded[i] for i, j in reversed(found)}
    yield from split.finding(
        'near_duplicates',
        NOTE,
        'are nearly the same as an earlier one',
        sorted(partner),
        'They count more than others. Remove copies; neighbouring frames of a video belong in the same split.',
        lambda i: f'as {shown(split.name(partner[i]))}.',
    )
