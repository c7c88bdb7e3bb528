"""Instances and label maps in the many formats that the library Datumaro reads."""

from __future__ import annotations

from collections.abc import Mapping

from seg.datasets import class_maps, findings, splits
from seg.datasets.base import check_target
from seg.datasets.instances import datumaro_items, folders
from seg.datasets.instances.data_set import InstanceData, build
from seg.registry import datasets


@datasets.register('datumaro', free=('data_dir',))
def datumaro(
    *,
    data_dir: str,
    format: str | None = None,
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
    """Instances, or label maps, in a format that Datumaro reads: CVAT's XML, Mapillary Vistas, KITTI, ADE20K, …

    It needs the library, which brings half a gigabyte: `pip install -e '.[formats]'`. The formats of this package's own
    readers are read by them faster, and with better messages about mistakes.

    Polygons, masks and run lengths are read; those of one group in an image, with one label, are one instance. Boxes
    alone, points and lines have no mask and are dropped. Images are JPEG or PNG files. If the files have a subset with
    the name of the split, it is the split; otherwise all images are divided by `fractions`.

    Args:
      data_dir: the folder, as Datumaro expects it for the format.
      format: Datumaro's name of the format, such as 'cvat'. Its guess is in the message if this is not set.
      split: name of the split, one of the files' subsets, or one of `fractions`.
      target: supplied; 'instances', or 'label_map': class 0 is the background (a label of this name belongs to it), and
        later annotations lie above earlier ones.
      verify: whether `verify()` decodes every image.
      orientation: 'ignore': images as stored, or 'apply': turned by their EXIF orientation.
      classes: a subset of the class names, in the wanted order; the other classes are void.
      merge: for names in the files, the class that they belong to.
      void: names to ignore: crowds, or the ignore label in label maps.
      fractions: the fraction of each split, if the files have no subset of its name.
      groups: a regular expression; images whose names have equal text in its parentheses stay in one split.
      split_seed: another seed gives another division.

    Raises:
      UserError: if Datumaro is not installed, does not know the format, or cannot read the files.
    """
    part = 'datasets.datumaro'
    check_target(part, target, ['instances', 'label_map'])
    root = folders.checked(part, data_dir)
    source, subsets = datumaro_items.read(root, format, split)
    with findings.reported_first(source.remarks):
        if split in subsets:
            members = [position for position, subset in enumerate(subsets) if subset == split]
        else:
            stems = [name.rpartition('.')[0] for name in source.names]
            members = splits.by_fraction(part, stems, split, fractions, groups, split_seed)
        wanted = class_maps.class_map(part, source.class_names, classes, merge, void)
        return build(source, members, wanted, target, verify, orientation)
