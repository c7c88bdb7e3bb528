"""Instances from YOLO's text files of outlines."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from seg.datasets import class_maps, findings, splits
from seg.datasets.base import check_target
from seg.datasets.instances import folders, yolo_text
from seg.datasets.instances.data_set import InstanceData, build
from seg.registry import datasets


@datasets.register('yolo', free=('data_dir',))
def yolo(
    *,
    data_dir: str,
    split: str = 'train',
    target: str = 'instances',
    verify: bool = True,
    orientation: str = 'ignore',
    classes: tuple[str, ...] | None = None,
    merge: Mapping[str, str] | None = None,
    void: tuple[str, ...] = (),
    fractions: Mapping[str, float] = splits.FRACTIONS,
    groups: str | None = None,
    split_seed: int = 0,
) -> InstanceData:
    """Instances, or label maps, from a folder in the layout of YOLO's data sets for segmentation.

    A text file for each image has a line for each instance: the class number, and x and y of the points of its outline
    as fractions of the image's width and height. The images of a split are where `data.yaml` says (a folder, a list of
    files, or several), or in `images/<split>` or `<split>/images`. The text files are in `labels` in place of `images`,
    or beside the images. If there is one folder `images` for all, images are divided by `fractions`. All images are
    within the folder; a place above it, such as `../train/images`, is looked for in it.

    Class names come from `names` in `data.yaml` (a list, or a dict by number), or from `classes.txt`. An image without
    a text file, or with an empty one, has no instance. Lines of five numbers are boxes without a mask, and are dropped.

    Args:
      data_dir: the folder, or the YAML file in it.
      split: name of the split; 'train+val' joins two.
      target: supplied; 'instances', or 'label_map': class 0 is the background, and later lines lie above earlier ones.
      verify: whether `verify()` decodes every image.
      orientation: 'ignore': images as stored, or 'apply': turned by their EXIF orientation.
      classes: a subset of the class names, in the wanted order; the other classes are void.
      merge: for names in the files, the class that they belong to.
      void: names to ignore: crowds, or the ignore label in label maps.
      fractions: the fraction of each split.
      groups: a regular expression; images whose names have equal text in its parentheses stay in one split.
      split_seed: another seed gives another division.

    Raises:
      UserError: if files are missing, damaged or of another kind.
    """
    part = 'datasets.yolo'
    check_target(part, target, ['instances', 'label_map'])
    layout = yolo_text.find(part, data_dir, split)
    source = yolo_text.read(layout, split, orientation)
    members = None
    with findings.reported_first(source.remarks):
        if layout.holds_all:
            stems = [posixpath.splitext(name)[0] for name in source.names]
            members = folders.members(part, stems, split, fractions, groups, split_seed)
        wanted = class_maps.class_map(part, source.class_names, classes, merge, void)
        return build(source, members, wanted, target, verify, orientation)
