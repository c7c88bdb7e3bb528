"""TFRecord files that the tools of other frameworks made."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence

from seg.datasets import class_maps
from seg.datasets import orientation as orientations
from seg.datasets.base import check_target
from seg.datasets.instances import folders
from seg.datasets.instances.data_set import InstanceData, build
from seg.datasets.label_maps import class_names as names_files
from seg.datasets.label_maps import legends_of_folders as legends
from seg.datasets.records import instances, tfrecord_files, tfrecord_index
from seg.datasets.records.index import Index
from seg.datasets.records.record_data import Labels, RecordLabelMaps
from seg.errors import UserError
from seg.known_classes import VOC_CLASS_NAMES
from seg.number_checks import check_whole
from seg.registry import datasets

_PART = 'datasets.tfrecord'
_NAMES = 'class_names.txt'
_OF_VOC = re.compile(r'(19|20)\d\d_\d{6}')  # Names of images of PASCAL VOC.


@datasets.register('tfrecord', free=('data_dir',))
def tfrecord(
    *,
    data_dir: str,
    split: str = 'train',
    files: str | Sequence[str] | None = None,
    target: str = 'label_map',
    class_names: Sequence[str] | str | None = None,
    values: Sequence[int] | None = None,
    mask_threshold: int = 0,
    verify: bool = True,
    orientation: str = 'ignore',
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
    void: Sequence[str] | None = None,
    ignore_values: Sequence[int] | None = None,
) -> RecordLabelMaps | InstanceData:
    """Instances or label maps in TFRecord files of the Cloud TPU tools, research/deeplab, Model Garden or DeepLab2.

    The keys of the first record identify the kind. Instances have `image/object/bbox/…`, `image/object/class/label`
    and a PNG for each mask in `image/object/mask`; `is_crowd` and `area` (by default the pixels of the mask) are
    optional. Label maps are PNGs in `image/segmentation/class/encoded`. The image, JPEG or PNG, is `image/encoded`.

    At the first start all records are read, and an index is made, which later starts use as long as the files have
    not changed. Files that are compressed as a whole cannot be read by position and are refused.

    Args:
      data_dir: the folder of the files.
      split: name of the split.
      files: globs of the split's files, relative to `data_dir`, separated by commas or in a tuple; `{split}` stands for
        the split. None: files such as `<split>-00000-of-00010.tfrecord`, or with the split as a word in their name.
      target: supplied; 'label_map' or 'instances'. Of instances, label maps can be made: class 0 is the background, and
        later instances lie above earlier ones.
      class_names: names, or a text file with one per line, relative to `data_dir`. None: its file `class_names.txt`.
        Without it, the names that the records of instances have; COCO's, for its 90 ids; PASCAL VOC's, for values up to
        20 and its names of images; else numbers.
      values: the value of each class in the records. None: 0, 1, 2, … in label maps, and 1, 2, 3, … of instances.
      mask_threshold: a pixel belongs to a mask if its value is greater.
      verify: whether `verify()` decodes every record.
      orientation: 'ignore', or 'apply': images are turned upright by their EXIF orientation; labels must fit them.
      classes: a subset of the classes, in the wanted order; the others are void.
      merge: {name of a class in the records: name of the class that it belongs to}.
      void: names of classes that are ignored; instances of them are crowds, which are ignored.
      ignore_values: values of label maps that are ignored. None: 255, unless it is the value of a class.

    Raises:
      UserError: if there are no such files or no usable record, or a setting is out of its range.
    """
    check_target(_PART, target, ['label_map', 'instances'])
    upright = orientations.check(_PART, orientation)
    check_whole(f'{_PART}.mask_threshold', mask_threshold, 0, 2**16 - 1)
    root = folders.checked(_PART, data_dir)
    paths = tfrecord_files.find(_PART, root, files, split)
    labels = tfrecord_index.has_label_maps(_PART, paths)
    if labels and target == 'instances':
        raise UserError(
            f'{_PART}: {paths[0]} has label maps, and the task learns from instances. Use records of instances, or a '
            'task for label maps.'
        )
    index, records = tfrecord_index.make(_PART, split, root, paths, labels, mask_threshold)
    names, origin = _names(root, class_names)
    if not labels:
        if ignore_values is not None:
            raise UserError(f'{_PART}.ignore_values = {ignore_values!r}: instances have no label values. Leave it out.')
        known = instances.known_classes(index, records, names, origin, values)
        original = None if list(known) == list(range(len(known))) else tuple(known)
        source = instances.source(index, records, known, origin, exact=False, original_ids=original)
        wanted = class_maps.class_map(_PART, source.class_names, classes, merge, void)
        return build(source, None, wanted, target, verify, orientation)
    pixels = Labels(index)
    if names is None and values is None and _is_voc(index, pixels):
        names, origin = VOC_CLASS_NAMES, "PASCAL VOC, because the images have its images' names"
    settings = legends.Settings(
        part=_PART,
        target=target,
        class_names=names,
        origin=origin,
        values=values,
        colors=None,
        colors_file=None,
        classes=classes,
        merge=merge,
        void=void,
        ignore_values=ignore_values,
    )
    places = [index.place(number) for number in range(len(index.names))]
    return RecordLabelMaps(pixels, legends.make(settings, root, places, pixels.values), verify, upright)


def _names(root: str, class_names: Sequence[str] | str | None) -> tuple[Sequence[str] | None, str]:
    """The names of the classes, None if there are none; and where they come from."""
    default = posixpath.join(root, _NAMES)
    if class_names is None and os.path.exists(default):
        class_names = default
    if not isinstance(class_names, str):
        return class_names, f'{_PART}.class_names'
    origin = os.path.join(root, os.path.expanduser(class_names))
    return names_files.read(origin), origin


def _is_voc(index: Index, pixels: Labels) -> bool:
    if not all(_OF_VOC.fullmatch(posixpath.basename(name)) for name in index.names):
        return False
    there = {value for item in pixels.values().values() for value in item.values}
    return max(there - {255}, default=0) < len(VOC_CLASS_NAMES)
