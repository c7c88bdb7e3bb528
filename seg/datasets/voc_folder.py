"""Folders in the layout of PASCAL VOC: their place, their splits and their class names."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

import tensorflow as tf

from seg.datasets import checking, layouts
from seg.datasets.label_maps import class_names
from seg.errors import UserError
from seg.known_classes import VOC_CLASS_NAMES

IMAGES, LABELS, OBJECTS = 'JPEGImages', 'SegmentationClass', 'SegmentationObject'
SPLITS, NAMES = 'ImageSets/Segmentation', 'class_names.txt'


def split_paths(root: str, split: str) -> list[str]:
    """The lists of a split, which may be several joined by '+'."""
    return [posixpath.join(root, SPLITS, f'{part.strip()}.txt') for part in split.split('+')]


def find_root(data_dir: str, needed: Sequence[str]) -> str:
    """Returns the folder that holds the `needed` folders, at or under `data_dir`.

    Raises:
      UserError: if there is none.
    """
    candidates = [data_dir, posixpath.join(data_dir, 'VOC2012'), posixpath.join(data_dir, 'VOCdevkit', 'VOC2012')]
    for root in candidates:
        if all(tf.io.gfile.isdir(posixpath.join(root, folder)) for folder in needed):
            return root
    raise UserError(
        f'datasets.voc_layout.data_dir = {data_dir!r}: looked for a folder with {", ".join(needed)} there, in '
        f'VOC2012 and in VOCdevkit/VOC2012. {layouts.described(data_dir, "voc_layout")} Set '
        'datasets.voc_layout.data_dir (in most gin files the macro DATA_DIR) to that folder; or read images and '
        'label maps in two folders of other names by @datasets.folders.'
    )


def read_split(root: str, split: str) -> list[str]:
    """Names in all lists of the split, each name once.

    Raises:
      UserError: if a list is missing or empty.
    """
    stems: list[str] = []
    for path in split_paths(root, split):
        if not tf.io.gfile.exists(path):
            folder = posixpath.join(root, SPLITS)
            splits = [name[: -len('.txt')] for name in checking.listed(folder) if name.endswith('.txt')]
            there = f'{folder} lists {checking.first_of(splits)}' if splits else f'{folder} holds no .txt file'
            raise UserError(f'datasets.voc_layout.split = {split!r}: there is no {path}. {there}.')
        names = [line for line in class_names.read_lines(path) if line]
        if not names:
            raise UserError(
                f'datasets.voc_layout.split = {split!r}: {path} is empty. Expected one name per line, without ending.'
            )
        stems += names
    return list(dict.fromkeys(stems)) if '+' in split else stems


def read_class_names(root: str) -> tuple[str, ...]:
    """Class names by id, from the folder, or of PASCAL VOC if the folder has none.

    Raises:
      UserError: if the file of names is empty, names a class twice or has an empty line.
    """
    path = posixpath.join(root, NAMES)
    return class_names.read(path) if tf.io.gfile.exists(path) else VOC_CLASS_NAMES
