"""Instances from LabelMe's files: one JSON file for each image."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from seg.datasets import class_maps, findings, splits
from seg.datasets.base import check_target
from seg.datasets.instances import folders, labelme_json
from seg.datasets.instances.data_set import InstanceData, build
from seg.registry import datasets


@datasets.register('labelme', free=('data_dir',))
def labelme(
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
    """Instances, or label maps, from a folder of LabelMe's JSON files with the images beside them.

    Files in subfolders count as well, also in linked ones. If a folder has the name of the split, its files are the
    split; otherwise images are divided by `fractions`. Images without a JSON file are not used. Polygons, rectangles,
    circles and masks are read; shapes of one label with one `group_id` are parts of one instance. Points and lines
    cover no pixel and are dropped. Classes are the labels of all files, sorted; `__ignore__` is void, and
    `_background_` is not a class.

    An image is the file that `imagePath` names, or the one beside the JSON file with its name. Image data within the
    JSON file are not read. LabelMe shows photos upright: with photos of cameras, `orientation` is usually 'apply'.

    Args:
      data_dir: the folder.
      split: name of the split; 'train+val' joins two.
      target: supplied; 'instances', or 'label_map': class 0 is the background, and later shapes lie above earlier ones.
      verify: whether `verify()` decodes every image. Otherwise it reads headers only: sizes and file types.
      orientation: 'ignore': images as stored, or 'apply': turned by their EXIF orientation.
      classes: a subset of the labels, in the wanted order; the other labels are void.
      merge: for labels in the files, the class that they belong to.
      void: labels to ignore: crowds, or the ignore label in label maps.
      fractions: the fraction of each split.
      groups: a regular expression; images whose names have equal text in its parentheses stay in one split.
      split_seed: another seed gives another division.

    Raises:
      UserError: if there are no files, if one is damaged or of another kind, or if an image is missing.
    """
    check_target('datasets.labelme', target, ['instances', 'label_map'])
    root = folders.checked('datasets.labelme', data_dir)
    source = labelme_json.read(root, split, orientation)
    stems = [posixpath.splitext(name)[0] for name in source.names]
    void = [*(void or ()), *({labelme_json.IGNORED} & set(source.class_names) - set(void or ()))]
    with findings.reported_first(source.remarks):
        members = folders.members('datasets.labelme', stems, split, fractions, groups, split_seed)
        wanted = class_maps.class_map('datasets.labelme', source.class_names, classes, merge, void)
        return build(source, members, wanted, target, verify, orientation)
