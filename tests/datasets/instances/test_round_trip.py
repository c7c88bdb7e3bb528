"""One data set in the files of several tools gives the same examples."""

import functools

import pytest
import tensorflow as tf

from seg.datasets.coco import coco
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
READERS = {
    'coco': coco,
    'labelme': labelme,
    'yolo': yolo,
    'tfrecord': tfrecord,
    'voc': voc_layout,
    'folders': in_folders,
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


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    places = {}
    for name in READERS:
        places[name] = tmp_path_factory.mktemp(name) / 'data'
        getattr(exported, 'voc' if name == 'folders' else name)(places[name])
    return places


@pytest.mark.parametrize('target', ['instances', 'label_map'])
def test_all_formats_give_the_same_examples(written, target):
    found = {}
    for name, reader in READERS.items():
        dataset = reader(data_dir=str(written[name]), target=target)
        dataset.verify()
        assert dataset.info.class_names == (
            exported.NAMES if target == 'instances' else ('background', *exported.NAMES)
        )
        found[name] = examples(dataset)
    assert sorted(found['coco']) == ['photo0', 'photo1', 'photo2']
    for name in READERS:
        assert found[name] == found['coco'], name
