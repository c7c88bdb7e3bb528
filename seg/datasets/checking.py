"""What the data sets' checks of files share: threads, and one message for many problems."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf
from absl import logging

from seg.datasets import image_files
from seg.errors import UserError

SHOWN = 5  # So many offenders are named in one message.
_LOG_SECONDS = 10.0


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
        pool.shutdown(cancel_futures=True)  # An interrupt need not wait for all files.


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


def first_of(names: Sequence[Any]) -> str:
    """The first five, for a message: 'a, b, c, d, e, …'."""
    return ', '.join(map(str, names[:SHOWN])) + (', …' if len(names) > SHOWN else '')


def holds(folder: str) -> str:
    """Tells what a folder holds, for a message about something that is not there."""
    if not tf.io.gfile.isdir(folder):
        return 'There is no such folder'
    there = sorted(name.rstrip('/') for name in tf.io.gfile.listdir(folder))
    return f'It holds {", ".join(there[:12])}{", …" if there[12:] else ""}' if there else 'It is empty'


def damage(path: str, error: tf.errors.OpError, remedy: str) -> str:
    """The problem with a file that cannot be decoded."""
    reason = error.message.splitlines()[0].split('}} ')[-1]
    return f'{path}: the file is cut off or damaged ({reason}). Fetch or make it again, or {remedy}.'


def warn_of_turned(where: str, names: Sequence[str], headers: Sequence[image_files.ImageHeader]) -> None:
    """Warns of pictures with an EXIF orientation."""
    turned = [name for name, header in zip(names, headers, strict=True) if header.orientation != 1]
    if turned:
        logging.warning(
            '%s: %d pictures, such as %s, have an EXIF orientation, which is not applied; labels must fit the '
            'pictures as stored.',
            *(where, len(turned), turned[0]),
        )


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def decoded_shape(contents: tf.Tensor) -> tf.Tensor:
    """Shape of a picture, which is decoded as a data set's `load` does, so that what passes here can't fail there."""
    return tf.shape(image_files.decode_image(contents))
