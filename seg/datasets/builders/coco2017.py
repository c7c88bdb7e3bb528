"""COCO 2017: instances of 80 classes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from seg.datasets.builders.archives import Archive, check_names
from seg.datasets.builders.published import Content, Example, File, PublishedSet
from seg.datasets.instances import coco_json, coco_layout
from seg.datasets.instances.data_set import InstanceData
from seg.errors import UserError

SPLITS = ('train2017', 'val2017')
_SITE = 'http://images.cocodataset.org'
# Sizes and checksums are those of TensorFlow Datasets, which prepares the same files (url_checksums/coco.txt).
ANNOTATIONS = File(
    name='annotations_trainval2017.zip',
    url=f'{_SITE}/annotations/annotations_trainval2017.zip',
    size=252_907_541,
    checksum='sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268',
)
TRAIN = File(
    name='train2017.zip',
    url=f'{_SITE}/zips/train2017.zip',
    size=19_336_861_798,
    checksum='sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929',
)
VAL = File(
    name='val2017.zip',
    url=f'{_SITE}/zips/val2017.zip',
    size=815_585_330,
    checksum='sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05',
)


def published() -> PublishedSet:
    """The set, for the target 'instances'."""
    return PublishedSet(
        name='coco2017_instances',
        config='',
        target='instances',
        files=(ANNOTATIONS, VAL, TRAIN),  # The smallest first: a wrong address or a full disk shows early.
        splits=SPLITS,
        read=_read,
        description='Instances of 80 classes, with masks and crowds: 118,287 images to train on, 5,000 for validation.',
        homepage='https://cocodataset.org',
        size=20_400_000_000,  # The images are stored unchanged.
    )


def _read(archives: Sequence[Archive]) -> Content:
    annotations, val, train = archives
    sets = {split: _instances(annotations, split) for split in SPLITS}
    first, second = (each.info for each in sets.values())
    if (first.class_names, first.original_ids) != (second.class_names, second.original_ids):
        raise UserError(f'{annotations.path}: the splits have different categories. Download the archive again.')
    images = {'train2017': train, 'val2017': val}
    return Content(
        info=first,
        splits={split: functools.partial(_examples, sets[split], images[split]) for split in SPLITS},
    )


def _instances(archive: Archive, split: str) -> InstanceData:
    """The annotations of a split, as `datasets.coco` reads them."""
    name = f'annotations/instances_{split}.json'
    where = f'{archive.path}/{name}'
    contents = coco_json.read(where, lambda _: archive.read(name))
    check_names(where, contents.file_names)
    return InstanceData(coco_layout.source(contents, split, where, split, contents.file_names), decode_all=False)


def _examples(instances: InstanceData, images: Archive) -> Iterator[Example]:
    for index in range(instances.info.num_examples):
        image = images.read(instances.image_path(index))
        annotations = instances.annotations(index)
        yield Example(instances.image_name(index), instances.image_id(index), image, annotations=annotations)
