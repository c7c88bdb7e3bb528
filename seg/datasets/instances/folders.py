"""Folders and splits of readers that have one annotation file for each image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from seg.datasets import splits
from seg.errors import UserError, shown

IMAGES = ('.jpg', '.jpeg', '.png')


def checked(part: str, data_dir: Any) -> str:
    """Returns the setting `data_dir`, an existing folder.

    Raises:
      UserError: if it is none.
    """
    slot = f'{part}.data_dir = {shown(data_dir)}'
    if not isinstance(data_dir, (str, os.PathLike)) or not str(data_dir):
        raise UserError(f'{slot}: expected the path of a folder that holds images and annotations.')
    root = os.path.expanduser(str(data_dir))
    if not tf.io.gfile.isdir(root):
        what = 'it is a file, expected its folder' if os.path.exists(root) else 'there is no such folder'
        raise UserError(f'{slot}: {what}. Set it to the folder that holds images and annotations.')
    return root


def members(
    part: str,
    stems: Sequence[str],
    split: str,
    fractions: Mapping[str, float],
    groups: str | None,
    seed: int,
) -> list[int]:
    """Positions of the images of a split: those in a folder of its name, or else its fraction of all.

    Args:
      part: the data set's gin key, for messages.
      stems: names of all images without endings.
      split: the setting.
      fractions: likewise.
      groups: likewise.
      seed: the setting `split_seed`.

    Raises:
      UserError: if there is no such split.
    """
    wanted = splits.parts(f'{part}.split', split)
    inside = [splits.by_folder(stems, each) for each in wanted]
    if all(inside):
        return sorted({position for each in inside for position in each})
    others = [name for name in fractions if splits.by_folder(stems, name)] if isinstance(fractions, Mapping) else []
    if others:
        raise UserError(
            f'{part}.split = {split!r}: there are folders {" and ".join(map(repr, others))}, so expected one for each '
            'split. Choose one of them, or add the folder.'
        )
    return splits.by_fraction(part, stems, split, fractions, groups, seed)
