"""Data sets in COCO's format: one JSON file of annotations, one folder of images."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

from seg.datasets import class_maps, splits
from seg.datasets.base import check_target
from seg.datasets.builders import reading
from seg.datasets.described import Described
from seg.datasets.instances import coco_json, coco_layout
from seg.datasets.instances.data_set import InstanceData, build
from seg.errors import UserError
from seg.registry import datasets
from seg.structures import DatasetInfo

_CLASSES, _LARGEST = 80, (640, 640)  # Of COCO 2017.


@datasets.register('coco', free=('data_dir', 'download'))
def coco(
    *,
    data_dir: str | None,
    split: str = 'train',
    images: str | None = None,
    annotations: str | None = None,
    target: str = 'instances',
    verify: bool = True,
    orientation: str | None = None,
    classes: tuple[str, ...] | None = None,
    merge: Mapping[str, str] | None = None,
    void: tuple[str, ...] | None = None,
    fractions: Mapping[str, float] | None = None,
    groups: str | None = None,
    split_seed: int | None = None,
    download: str | None = None,
) -> InstanceData | Described:
    """Instances with masks from a COCO JSON file and a folder of images, as published or exported by a label tool.

    The file is `annotations/instances_<split>.json`, and the images are in `<split>`. The exports of other tools are
    found as well: Roboflow's (`_annotations.coco.json` beside the images of each split), CVAT's
    (`annotations/instances_default.json`, `images/default`), Label Studio's (`result.json`, `images`), or any single
    JSON file beside one folder of images. If one file holds all images, they are divided by `fractions`.

    Polygons of any number of parts and run-length encodings, compressed or not, are read; crowds and images without
    instances are kept. Instances without a usable mask are dropped, and counted. Classes are numbered by ascending
    category id; ids may have gaps.

    Args:
      data_dir: the folder that holds annotations and images. None: a run needs `download`; `--topology` uses the number
        of classes and the image size of COCO 2017.
      split: name of the split, such as 'train2017'.
      images: folder of the images, if it is another one; relative to `data_dir`, or absolute.
      annotations: the JSON file, if it is another one; likewise. All of its images are used, unless `fractions` is set.
      target: supplied; 'instances', or 'label_map': class 0 is the background, and later instances lie above earlier
        ones.
      verify: whether `verify()` decodes every image. Otherwise it reads headers only: sizes and file types.
      orientation: 'ignore' (the default): images as stored; 'apply': turned by their EXIF orientation, where the labels
        fit the turned images.
      classes: a subset of the class names, in the wanted order; the other classes are void.
      merge: for names in the file, the class that they belong to.
      void: names in the file to ignore: crowds, or the ignore label in label maps.
      fractions: the fraction of each split, if one file holds all images; by default 0.8 for 'train', 0.2 for 'val'.
      groups: a regular expression; images whose names have equal text in its parentheses stay in one split.
      split_seed: another seed gives another division.
      download: the published set that is used without `data_dir`, 'coco2017_instances'. The first run downloads and
        prepares it (docs/records.md).

    Raises:
      UserError: if the file, the folder or a listed image is missing, or if the file is inconsistent.
    """
    check_target('datasets.coco', target, ['instances', 'label_map'])
    if not isinstance(data_dir, (str, os.PathLike)) or not str(data_dir):
        refusal = (
            f'datasets.coco.data_dir = {data_dir!r}: expected the path of a folder that holds annotations and images. '
            'Set it in the gin file or by --gin_param="datasets.coco.data_dir=\'/path/to/coco\'".'
        )
        if data_dir is None:
            names = tuple(f'class {i}' for i in range(_CLASSES))
            names = ('background', *names) if target == 'label_map' else names
            fetch = functools.partial(
                *(reading.read, 'datasets.coco', download, split, target, verify, orientation),
                classes=classes, merge=merge, void=void,
            )  # fmt: skip
            info = DatasetInfo(f'coco/{split}', names, 1, _LARGEST)
            return Described(info, target, refusal, fetch if download else None)
        raise UserError(refusal)
    root = os.path.expanduser(str(data_dir))
    path, holds_all = coco_layout.find_annotations(root, split, annotations)
    contents, remarks = coco_json.read(path), []
    folder = coco_layout.find_folder(root, split, images, path, contents.file_names)
    where = f'datasets.coco, split {split!r} of {path}'
    names = coco_layout.find_images(where, folder, contents.file_names, contents.image_ids, remarks)
    source = coco_layout.source(contents, split, path, folder, names, remarks)
    members = None
    if holds_all or fractions is not None:
        stems = [os.path.splitext(name)[0] for name in names]
        members = splits.by_fraction(
            'datasets.coco', stems, split, fractions or splits.FRACTIONS, groups, split_seed or 0
        )
    wanted = class_maps.class_map('datasets.coco', contents.class_names, classes, merge, void)
    return build(source, members, wanted, target, verify, orientation)
