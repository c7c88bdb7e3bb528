"""Helpers for checks of a data set's files: threads, listings, and one message for many problems."""

from __future__ import annotations

import os
import pathlib
import posixpath
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf
from absl import logging

from seg.datasets import findings, image_files
from seg.datasets.findings import Finding
from seg.errors import UserError, python_error, reason, shown

SHOWN = 5  # Number of problems that one message names.
_LOG_SECONDS = 10.0
_HIDDEN = ('.', '__MACOSX')  # Beginnings of names.
_UNREADABLE = (OSError, EOFError, tf.errors.OpError)


def in_threads(check: Callable[[int], Any], count: int, title: str) -> Iterator[Any]:
    """Yields check(0), check(1), … in order, computed on all cores; logs the progress every ten seconds."""

    def on_host(index):
        with tf.device('CPU:0'):
            return check(index)

    logged = time.monotonic()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for done, item in enumerate(pool.map(on_host, range(count)), start=1):
            if time.monotonic() - logged > _LOG_SECONDS:
                logged = time.monotonic()
                logging.info('%s: %d of %d', title, done, count)
            yield item
    finally:
        pool.shutdown(cancel_futures=True)  # An interrupt does not wait for all files.


def raise_problems(where: str, problems: Sequence[str], count: int, things: str = 'examples') -> None:
    """Raises one error that names the first five problems, if there are any.

    Raises:
      UserError: if there are problems.
    """
    if not problems:
        return
    more = [f'… and {len(problems) - SHOWN} more.'] if len(problems) > SHOWN else []
    head = f'{where}: {len(problems)} of {count} {things} cannot be used:'
    raise UserError('\n  '.join([head, *problems[:SHOWN], *more]))


def first_of(values: Sequence[Any]) -> str:
    """The repr of the first five values, for a message: "'a', 'b', 'c', 'd', 'e', …"."""
    return ', '.join(map(shown, values[:SHOWN])) + (', …' if len(values) > SHOWN else '')


def listed(folder: str) -> list[str]:
    """Sorted names of the entries of a folder; none if there is no such folder.

    Names that are not UTF-8 are omitted: no list of a data set can contain them.
    """
    if not tf.io.gfile.isdir(folder):
        return []
    try:
        names = tf.io.gfile.listdir(folder)
    except UnicodeDecodeError:
        names = [name for name in os.listdir(folder) if is_text(name)]
    return sorted(name.rstrip('/') for name in names)


def files_below(root: str, endings: Sequence[str] = ()) -> list[str]:
    """Paths of the files below a folder, relative to it, sorted; links are followed.

    Each folder is visited once, under its own path if that is below the root. Hidden files are skipped, as are those
    that macOS adds to archives. A warning counts the entries whose names are not UTF-8.

    Args:
      root: the folder.
      endings: lower case, with the dot; none for all files.

    Raises:
      UserError: if a folder cannot be read.
    """
    found, plain, links, strange = [], [''], [], 0
    seen = set(map(str, pathlib.Path(os.path.realpath(root)).parents))  # A link to one of them is a loop.
    while plain or links:
        folder = (plain or links).pop()
        path = posixpath.join(root, folder)
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        entries, skipped = _entries(path)
        strange += skipped
        for entry in entries:
            name = posixpath.join(folder, entry.name)
            if entry.is_dir(follow_symlinks=False):
                plain.append(name)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append(name)
            elif not endings or name.lower().endswith(tuple(endings)):
                found.append(name)
    if strange:
        logging.warning('%s: %d entries are skipped, because their names are not UTF-8.', root, strange)
    return sorted(found)


def _entries(folder: str) -> tuple[list[os.DirEntry], int]:
    """The entries of a folder that are not hidden, the last first; and how many were skipped because of their names."""
    try:
        with os.scandir(folder) as entries:
            there = [each for each in entries if not each.name.startswith(_HIDDEN)]
    except OSError as error:
        raise UserError(
            f'{folder}: this folder cannot be read: {error.strerror}. Make it readable, or move it.'
        ) from None
    kept = [each for each in there if is_text(each.name)]
    return sorted(kept, key=lambda each: each.name, reverse=True), len(there) - len(kept)


def is_text(value: Any) -> bool:
    """Whether a value is a non-empty string that UTF-8 can encode. (Strings in JSON may contain lone surrogates.)"""
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:
        return False


def holds(folder: str) -> str:
    """Describes the content of a folder, for a message about a missing file."""
    if not tf.io.gfile.isdir(folder):
        return 'There is no such folder'
    there = listed(folder)
    return f'It holds {", ".join(map(shown, there[:12]))}{", …" if there[12:] else ""}' if there else 'It is empty'


def unreadable(error: Exception) -> bool:
    """Whether an exception of `load` means that a file cannot be read; all others are mistakes in a data set's code."""
    found = python_error(error)
    if found is None:
        return isinstance(error, _UNREADABLE)
    kinds = list(_UNREADABLE)  # TensorFlow keeps only the name of the exception's type.
    for kind in kinds:
        kinds += kind.__subclasses__()
    return found[0] in {kind.__name__ for kind in kinds}


def damage(path: str, error: tf.errors.OpError, remedy: str) -> str:
    """Describes the fault of a file that cannot be decoded."""
    return f'{path}: the file is truncated or damaged ({reason(error)}). Download or create it again, or {remedy}.'


def without_instances(where: str, crowds: int, images: Sequence[str] = ()) -> Finding:
    """The finding that a split has no instance for training or for scores.

    Args:
      where: the split, for the message.
      crowds: number of crowds.
      images: names of all images.
    """
    found = (
        f'all of its {crowds} instances are crowds (iscrowd is 1), which count neither in training nor in scores. CVAT '
        'marks masks that were painted with its brush as crowds: set their iscrowd to 0 if each is one instance'
        if crowds
        else 'it has no instance. Are these the right annotations?'
        ' Images without annotations can be predicted by --mode=predict --input'
    )
    return Finding(
        kind='all_crowds' if crowds else 'no_instances',
        severity=findings.FIX,
        text=f'{where}: {found}.',
        images=tuple(images),
        count=max(1, len(images)),
    )


def turned(where: str, names: Sequence[str], headers: Sequence[Any], part: str, upright: bool) -> list[Finding]:
    """The finding that some images have an EXIF orientation; none if it is applied.

    Args:
      where: the split, for the message.
      names: names of all images.
      headers: for each image a record with `orientation`.
      part: the data set's gin key, for the remedy.
      upright: whether orientations are applied.
    """
    found = [name for name, header in zip(names, headers, strict=True) if header.orientation != 1]
    if upright or not found:
        return []
    return [
        Finding(
            kind='exif_orientation',
            severity=findings.WARN,
            text=f'{where}: {len(found)} images, such as {found[0]}, have an EXIF orientation, which is not applied; '
            'labels must fit the images as stored.',
            remedy=f"If they were drawn on upright images, set {part}.orientation = 'apply'.",
            images=tuple(found),
            count=len(found),
        )
    ]


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def decoded_shape(contents: tf.Tensor) -> tf.Tensor:
    """Shape of an image, decoded as in a data set's `load`, so that a file that passes here does not fail there."""
    return tf.shape(image_files.decode_image(contents))
