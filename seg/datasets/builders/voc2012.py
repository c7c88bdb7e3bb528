"""PASCAL VOC 2012 for segmentation, and its extension by the annotations of SBD."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from seg.datasets.builders import mat_files
from seg.datasets.builders.archives import Archive, check_names, read_lines
from seg.datasets.builders.published import Content, Example, File, PublishedSet, check_map, label_map
from seg.datasets.label_maps.legend import IGNORE
from seg.datasets.label_maps.objects import instances_of_maps
from seg.datasets.voc_folder import IMAGES, LABELS, OBJECTS
from seg.drawing.palette import voc_palette
from seg.errors import UserError, shown
from seg.known_classes import VOC_CLASS_NAMES
from seg.masks import ragged
from seg.structures import DatasetInfo

_LARGEST = (500, 500)
AUGMENTED = 'train_aug'
SPLITS = ('train', 'val')
_LISTS = 'ImageSets/Segmentation'
_SBD = 'benchmark_RELEASE/dataset'
# The checksums are those of torchvision, which reads the same files (datasets/voc.py and datasets/sbd.py). The size of
# the first is that of TensorFlow Datasets (url_checksums/voc.txt), that of the second is rounded.
VOC = File(
    name='VOCtrainval_11-May-2012.tar',
    url='http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar',
    size=1_999_639_040,
    checksum='md5:6cd6e144f989b92b3379bac3b3de84fd',
)
SBD = File(
    name='benchmark.tgz',
    url='https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz',
    size=1_420_000_000,
    checksum='md5:82b4d87ceb2ed10f6038a1cba92111cb',
)

# Reads label map and instance map of an image, uint8 [H, W]. The first argument says which: LABELS or OBJECTS.
_Reader = Callable[[str], np.ndarray]


def published(target: str, augmented: bool = False) -> PublishedSet:
    """The set.

    Args:
      target: 'label_map' or 'instances'.
      augmented: whether it is the split `train_aug`: the images of `train`, and after them those that SBD has
        annotations for, and that are not in `val`, by name. They have no ignored borders. It is a separate form,
        because its labels are in a separate file.
    """
    return PublishedSet(
        name='voc2012_segmentation',
        config=f'{target}_aug' if augmented else target,
        target=target,
        files=(VOC, SBD) if augmented else (VOC,),
        splits=(AUGMENTED,) if augmented else SPLITS,
        read=functools.partial(_read_augmented if augmented else _read, target),
        description='Images of 20 classes, with label maps and instances: 1,464 for training, 1,449 for '
        'validation, and 10,582 for training with the annotations of SBD.',
        homepage='http://host.robots.ox.ac.uk/pascal/VOC/voc2012/',
        size=1_300_000_000 if augmented else 400_000_000,  # About 0.12 MB for each of the images with labels.
    )


class _Voc:
    """The archive of VOC.

    Args:
      archive: the archive; its files may be in any folder.
    """

    def __init__(self, archive: Archive):
        self.archive = archive
        self.root = archive.beginning(f'{_LISTS}/train.txt')

    def names(self, split: str) -> list[str]:
        """The names in the list of a split."""
        path = f'{self.root}{_LISTS}/{split}.txt'
        names = read_lines(self.archive, path)
        check_names(f'{self.archive.path}: {path}', names)
        return names

    def image(self, name: str) -> bytes:
        return self.archive.read(f'{self.root}{IMAGES}/{name}.jpg')

    def map(self, name: str, kind: str) -> np.ndarray:
        return label_map(self.archive, f'{self.root}{kind}/{name}.png')


def _read(target: str, archives: Sequence[Archive]) -> Content:
    voc = _Voc(*archives)
    readers = {split: [(name, functools.partial(voc.map, name)) for name in voc.names(split)] for split in SPLITS}
    return _content(target, voc, readers)


def _read_augmented(target: str, archives: Sequence[Archive]) -> Content:
    voc, sbd = _Voc(archives[0]), archives[1]
    train, val = (voc.names(split) for split in SPLITS)
    root = f'{sbd.beginning(f"{_SBD}/train.txt")}{_SBD}'
    listed = {name for split in SPLITS for name in read_lines(sbd, f'{root}/{split}.txt')}
    added = sorted(listed - set(train) - set(val))
    check_names(f'{sbd.path}: {root}', added)
    # A few kilobytes for each image, in the order of the archive: it is compressed as a whole.
    folders = ('cls', 'inst') if target == 'instances' else ('cls',)
    wanted = {f'{root}/{folder}/{name}.mat' for folder in folders for name in added}
    files = {name: sbd.read(name) for name in sbd.names if name in wanted}
    readers: list[tuple[str, _Reader]] = [(name, functools.partial(voc.map, name)) for name in train]
    readers += [(name, functools.partial(_of_sbd, sbd, files, root, name)) for name in added]
    return _content(target, voc, {AUGMENTED: readers})


def _content(target: str, voc: _Voc, images: dict[str, list[tuple[str, _Reader]]]) -> Content:
    first = 1 if target == 'instances' else 0
    ids = tuple(range(first, len(VOC_CLASS_NAMES)))
    split, names = next(iter(images.items()))
    return Content(
        info=DatasetInfo(
            name=f'voc2012_segmentation/{split}',
            class_names=VOC_CLASS_NAMES[first:],
            num_examples=len(names),
            max_size=_LARGEST,
            original_ids=ids if first else None,
            colors=voc_palette(len(VOC_CLASS_NAMES))[first:],
        ),
        splits={split: functools.partial(_examples, target, voc, each) for split, each in images.items()},
    )


def _of_sbd(sbd: Archive, files: dict[str, bytes], root: str, name: str, kind: str) -> np.ndarray:
    folder, variable = ('cls', 'GTcls') if kind == LABELS else ('inst', 'GTinst')
    path = f'{root}/{folder}/{name}.mat'
    content = files.get(path)
    try:
        values = mat_files.read_field(sbd.read(path) if content is None else content, variable, 'Segmentation')
        if values.ndim != 2 or values.size == 0 or values.min() < 0 or values.max() > IGNORE:
            raise ValueError(f'a map of shape {values.shape}, expected [H, W] with values of 8 bits')
    except ValueError as error:
        raise UserError(f'{sbd.path}: {shown(path, 120)}: {error}. Download the archive again.') from None
    return values.astype(np.uint8)


def _examples(target: str, voc: _Voc, images: list[tuple[str, _Reader]]) -> Iterator[Example]:
    for number, (name, read) in enumerate(images):
        image, label, where = voc.image(name), read(LABELS), f'{voc.archive.path}: the %s map of {shown(name, 120)}'
        check_map(where % 'label', image, label, len(VOC_CLASS_NAMES))
        if target == 'label_map':
            yield Example(name, number + 1, image, label=label)
            continue
        objects = read(OBJECTS)
        check_map(where % 'instance', image, objects, IGNORE)
        objects = np.where(objects == IGNORE, 0, objects)  # The border, as in the label map.
        found = _instances(*(tf.constant(each, tf.int32) for each in (label, objects)))
        yield Example(name, number + 1, image, annotations=ragged.annotations(found, *label.shape))


@tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2, autograph=False)
def _instances(label: tf.Tensor, objects: tf.Tensor) -> dict[str, tf.Tensor]:
    return instances_of_maps(label, objects, len(VOC_CLASS_NAMES))
