"""Folders in the layout of PASCAL VOC: images, label files, lists of names."""

from __future__ import annotations

import os

from seg.datasets import voc_folder
from seg.datasets.base import unsupported
from seg.datasets.described import Described
from seg.datasets.voc_folder import IMAGES, LABELS, OBJECTS, SPLITS, VOC_CLASS_NAMES
from seg.datasets.voc_instances import VocInstances
from seg.datasets.voc_label_maps import VocLabelMaps
from seg.errors import UserError
from seg.registry import datasets
from seg.structures import DatasetInfo

_LARGEST = (500, 500)  # The images of PASCAL VOC, in pixels.


@datasets.register('voc_layout', free=('data_dir',))
def voc_layout(
    *, data_dir: str | None, split: str = 'train', target: str = 'label_map', verify: bool = True
) -> VocLabelMaps | VocInstances | Described:
    """Images with label files in a folder laid out like PASCAL VOC, with VOC's classes or your own.

    The folder holds
    - `JPEGImages/<name>.jpg` (or .jpeg, .png),
    - `SegmentationClass/<name>.png`: the class id of each pixel, greyscale or indices into any palette; 255 is ignored,
    - for instances, `SegmentationObject/<name>.png`: the number of each pixel's instance, from 1 on; 0 is background,
      and in maps of 8 bits 255 is ignored (maps of 16 bits have room for more). An instance's class is the most common
      one of its pixels in `SegmentationClass`,
    - `ImageSets/Segmentation/<split>.txt`: the names of the split, one per line; `city/1` for files in folders `city`,
    - `class_names.txt`: the class names, one per line, id 0 first. Without it the classes are the 21 of PASCAL VOC.

    Images and labels are read as stored: an EXIF orientation is not applied, because label tools write PNGs without it.
    If image and label differ in size for this reason, the message says so.

    Args:
      data_dir: this folder, or a folder that holds it as `VOC2012` or `VOCdevkit/VOC2012`. None, for `--topology`
        only: the classes and image sizes of PASCAL VOC without files.
      split: which list of names to use.
      target: supplied; 'label_map' (background is class 0) or 'instances' (the classes are those after the background).
      verify: whether `verify()` decodes every file. Otherwise it reads headers only: sizes and file types.

    Raises:
      UserError: if the folder, the list or a listed file is missing, or a setting is out of its range.
    """
    if target not in ('label_map', 'instances'):
        raise unsupported('datasets.voc_layout', target, ['label_map', 'instances'])
    needed = [IMAGES, LABELS, *([OBJECTS] if target == 'instances' else []), SPLITS]
    if not isinstance(data_dir, (str, os.PathLike)) or not str(data_dir):
        refusal = (
            f'datasets.voc_layout.data_dir = {data_dir!r}: expected a folder that holds {", ".join(needed)}. '
            'Set it in the gin file or by --gin_param="datasets.voc_layout.data_dir=\'/path/to/VOCdevkit\'".'
        )
        if data_dir is None:
            names = VOC_CLASS_NAMES if target == 'label_map' else VOC_CLASS_NAMES[1:]
            return Described(DatasetInfo(f'voc_layout/{split}', names, 1, _LARGEST), target, refusal)
        raise UserError(refusal)
    root = voc_folder.find_root(os.path.expanduser(str(data_dir)), needed)
    build = VocInstances if target == 'instances' else VocLabelMaps
    return build(root, split, voc_folder.read_class_names(root), voc_folder.read_split(root, split), decode_all=verify)
