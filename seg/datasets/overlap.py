"""Finds images that are in the training data and in the evaluation data."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from seg.datasets import checking
from seg.datasets.base import Dataset
from seg.datasets.findings import WARN, Finding


def shared(train: Dataset, evaluation: Dataset) -> Iterator[Finding]:
    """Yields the finding that training images are also evaluation images.

    Images are the same if their files have the same bytes (`image_path`), or, in data sets without files, if their
    names and their pixels are equal.
    """
    if None in (train.info.num_examples, evaluation.info.num_examples):
        return
    has_files = None not in (train.image_path(0), evaluation.image_path(0))
    same = (_same_files if has_files else _same_images)(train, evaluation)
    if same:
        yield Finding(
            kind='shared_image',
            severity=WARN,
            text=f'{len(same)} of the {evaluation.info.num_examples} images of {evaluation.info.name} are also in '
            f'{train.info.name}, such as {checking.first_of(same)}.',
            remedy='Scores on training images do not show how well new images are segmented. Put each image into one '
            'of the two only.',
            images=tuple(same),
            count=len(same),
        )


def _same_files(train: Dataset, evaluation: Dataset) -> list[str]:
    """Names of evaluation images whose files are copies of training files.

    Files are compared by their sizes; those of one size by their beginnings, and then by all bytes. Each is read once,
    however many have one size, as uncompressed images do.
    """
    paths = [evaluation.image_path(index) for index in range(evaluation.info.num_examples)]
    candidates = {*map(train.image_path, range(train.info.num_examples))}, set(paths)
    for look in (_size, functools.partial(_digest, 4096), functools.partial(_digest, None)):
        here, there = ({path: look(path) for path in each} for each in candidates)
        common = set(here.values()) & set(there.values()) - {None}
        candidates = [{path for path, key in each.items() if key in common} for each in (here, there)]
    return [evaluation.image_name(index) for index, path in enumerate(paths) if path in candidates[1]]


def _size(path: str) -> int | None:
    """Bytes of a file; None for an empty one, and for one that is missing or not on a local disk."""
    try:
        return os.stat(path).st_size or None
    except OSError:
        return None


def _digest(most: int | None, path: str) -> bytes | None:
    """Digest of the first bytes of a file, of all for None; None if it cannot be read."""
    try:
        with open(path, 'rb') as file:
            if most is not None:
                return hashlib.sha256(file.read(most)).digest()
            return hashlib.file_digest(file, 'sha256').digest()
    except OSError:
        return None


def _same_images(train: Dataset, evaluation: Dataset) -> list[str]:
    """Names that occur in both, if the first few of these images have equal pixels."""
    train_index = {train.image_name(index): index for index in range(train.info.num_examples)}
    evaluation_index = {evaluation.image_name(index): index for index in range(evaluation.info.num_examples)}
    common = [name for name in evaluation_index if name in train_index]
    pairs = [(train_index[name], evaluation_index[name]) for name in common[: checking.SHOWN]]
    return common if any(_is_same(train, index, evaluation, place) for index, place in pairs) else []


def _is_same(one: Dataset, index: int, other: Dataset, place: int) -> bool:
    try:
        with tf.device('CPU:0'):
            images = [d.load(tf.constant(i, tf.int64))['image'].numpy() for d, i in ((one, index), (other, place))]
    except tf.errors.OpError:
        return False
    return np.array_equal(*images)
