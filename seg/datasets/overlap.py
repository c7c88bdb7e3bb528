"""Finds images that are in the training data and in the evaluation data."""

from __future__ import annotations

import contextlib
import filecmp
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
    """Names of evaluation images whose files are copies of training files."""
    by_size: dict[int, list[str]] = {}
    for path in map(train.image_path, range(train.info.num_examples)):
        by_size.setdefault(_size(path), []).append(path)
    same = []
    for index in range(evaluation.info.num_examples):
        path = evaluation.image_path(index)
        candidates = by_size.get(_size(path), []) if _size(path) else []
        with contextlib.suppress(OSError):
            if path in candidates or any(filecmp.cmp(path, other, shallow=False) for other in candidates):
                same.append(evaluation.image_name(index))
    return same


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # Missing, or not on a local disk.
        return 0


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
