"""Recognises folders that another reader reads, for messages."""

from __future__ import annotations

import os

from seg.datasets import checking

_FOLDERS = {
    ('JPEGImages', 'SegmentationClass'): 'the layout of PASCAL VOC: @datasets.voc_layout reads it',
    ('leftImg8bit', 'gtFine'): 'Cityscapes: @datasets.cityscapes reads it',
}
_FILES = 200  # Files that are looked at.


def described(root: str) -> str:
    """What a folder is, if another reader reads it; else what it holds."""
    for needed, reader in _FOLDERS.items():
        if all(os.path.isdir(os.path.join(root, name)) for name in needed):
            return f'{root} has {reader}.'
    names = [os.path.join(folder, name) for folder in _near(root) for name in checking.listed(folder)[:_FILES]]
    for name in names:
        if name.endswith('.json') and os.path.isfile(name):
            with open(name, 'rb') as file:
                head = file.read(4096)
            if b'"shapes"' in head or b'"imagePath"' in head:
                return f'{name} is a file of LabelMe: @datasets.labelme reads it.'
            if b'"images"' in head or b'"annotations"' in head or b'"categories"' in head:
                return f'{name} looks like a file of COCO: @datasets.coco reads it.'
        if os.path.basename(name) in ('data.yaml', 'dataset.yaml'):
            return f'{name} is a file of YOLO: @datasets.yolo reads it.'
    return f'{checking.holds(root)}.'


def _near(root: str) -> list[str]:
    """The folder and its subfolders."""
    inside = [os.path.join(root, name) for name in checking.listed(root)[:_FILES]]
    return [root, *(path for path in inside if os.path.isdir(path))]
