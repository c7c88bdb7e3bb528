"""One data set in the files of several tools gives the same examples."""

import functools

import pytest
import tensorflow as tf

from seg.datasets.cityscapes import cityscapes
from seg.datasets.coco import coco
from seg.datasets.datumaro import datumaro
from seg.datasets.folders import folders
from seg.datasets.labelme import labelme
from seg.datasets.tfrecord import tfrecord
from seg.datasets.voc_layout import voc_layout
from seg.datasets.yolo import yolo
from tests.datasets.instances import exported

# The files of `voc`, for a reader that does not know the names of the folders.
in_folders = functools.partial(
    folders,
    images='JPEGImages',
    labels='SegmentationClass',
    instances='SegmentationObject',
    lists='ImageSets/Segmentation/{split}.txt',
)


def in_cityscapes(data_dir, target):
    """The labels of Cityscapes under the names of the small data set."""
    background = {'road': 'background'} if target == 'label_map' else {}
    names = background | dict(zip(('person', 'rider', 'car'), exported.NAMES, strict=True))
    return cityscapes(data_dir=data_dir, target=target, merge=names, classes=tuple(names.values()))


READERS = {
    'coco': coco,
    'labelme': labelme,
    'yolo': yolo,
    'tfrecord': tfrecord,
    'voc': voc_layout,
    'folders': in_folders,
    'cityscapes': in_cityscapes,
    'datumaro': functools.partial(datumaro, format='cvat'),
}


def examples(dataset):
    """Examples by name; instances in the order of their boxes, which is free."""
    found = {}
    for index in range(dataset.info.num_examples):
        example = dataset.load(tf.constant(index, tf.int64))
        name = dataset.image_name(index).rpartition('/')[2]
        found[name] = {key: example[key].numpy().tolist() for key in ('image', 'label') if key in example}
        if 'boxes' in example:
            keys = ('boxes', 'classes', 'is_crowd', 'area')
            rows = zip(*(example[key].numpy().tolist() for key in keys), example['masks'].to_list(), strict=True)
            truth = dataset.annotations(index)
            assert [mask['size'] for mask in truth.masks] == [list(example['image'].shape[:2])] * len(truth.masks)
            found[name]['instances'] = sorted(rows)
    return found


def linked(folder, place):
    """Makes a copy of a folder whose files are links that lead out of it."""
    for path in sorted(folder.rglob('*')):
        new = place / path.relative_to(folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            new.symlink_to(path)


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    """Examples of COCO's files, by target."""
    folder = tmp_path_factory.mktemp('coco') / 'data'
    exported.coco(folder)
    return {target: examples(coco(data_dir=str(folder), target=target)) for target in ('instances', 'label_map')}


@pytest.mark.parametrize('name', READERS)
def test_all_formats_give_the_same_examples(name, reference, tmp_path):
    if name == 'datumaro':
        pytest.importorskip('datumaro', reason="pip install -e '.[formats]' brings Datumaro")
    getattr(exported, 'voc' if name == 'folders' else name)(tmp_path / 'data')
    linked(tmp_path / 'data', tmp_path / 'links')
    for target, expected in reference.items():
        dataset = READERS[name](data_dir=str(tmp_path / 'data'), target=target)
        dataset.verify()
        background = ('background',) if target == 'label_map' else ()
        assert dataset.info.class_names == (*background, *exported.NAMES)
        assert examples(dataset) == expected and sorted(expected) == ['photo0', 'photo1', 'photo2']
    through_links = READERS[name](data_dir=str(tmp_path / 'links'), target='instances')
    assert examples(through_links) == reference['instances']
