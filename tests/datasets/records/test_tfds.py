"""Sets written by TFDS, read by position; in ArrayRecord and TFRecord files, undamaged and damaged."""

import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from seg.datasets import contract
from seg.datasets.records import tfds_index
from seg.datasets.tfds import tfds
from seg.errors import UserError
from tests.datasets.records import pets

SETTINGS = {'class_names': ('background', 'pet'), 'values': (2, 1), 'ignore_values': (3,)}


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    return pets.write(tmp_path_factory.mktemp('prepared'))


@pytest.fixture
def folder(original, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(original, tmp_path / '1.2.0')


def load(dataset, index):
    return {key: part.numpy() for key, part in dataset.load(tf.constant(index, tf.int64)).items()}


def shard(folder, split='train'):
    return pathlib.Path(folder) / f'small_pets-{split}.array_record-00000-of-00001'


def refused(message, **settings):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        tfds(**settings).verify()
    return str(caught.value)


def test_label_maps(original):
    dataset = tfds(name=original, split='train[2:]', **SETTINGS)
    assert dataset.info.name == 'small_pets/train[2:]' and dataset.info.num_examples == pets.COUNT - 2
    assert dataset.info.max_size == pets.SIZE and dataset.info.original_ids == (2, 1)
    assert dataset.image_name(0) == 'pet_2' and dataset.image_id(0) == 1
    contract.verify(dataset, 'label_map', 'experiment.train_data')
    for index in range(5):
        example = load(dataset, index)
        expected = np.array([0, 1, 0, 255])[pets.label(index + 2)]
        np.testing.assert_array_equal(example['label'], expected)
        np.testing.assert_array_equal(example['image'], tf.io.decode_jpeg(
            pets.jpeg(index + 2), dct_method='INTEGER_ACCURATE'
        ))  # fmt: skip
    values = np.concatenate([pets.label(number) for number in range(2, 7)], axis=None)
    assert dataset.class_histogram().pixels.tolist() == [(values == 2).sum(), (values == 1).sum()]


def test_batches_by_many_threads(original):
    dataset = tfds(name=original, **SETTINGS)
    order = tf.data.Dataset.range(70).map(lambda i: dataset.load(i % 7)['label'][0], num_parallel_calls=8)
    for number, row in enumerate(order.as_numpy_iterator()):
        np.testing.assert_array_equal(row, np.array([0, 1, 0, 255])[pets.label(number % 7)[0]])


def test_instances(original):
    dataset = tfds(name=original, target='instances')
    assert dataset.info.class_names == ('cat', 'dog') and dataset.info.original_ids is None
    contract.verify(dataset, 'instances', 'experiment.train_data')
    example = load(dataset, 5)
    assert example['classes'].tolist() == [0, 1] and not example['is_crowd'].any()
    np.testing.assert_allclose(example['boxes'], [[3, 8, 15, 24]] * 2, rtol=1e-6)
    assert example['area'].tolist() == [45, 45]
    found = dataset.annotations(5)
    assert (found.height, found.width) == pets.SIZE and found.area.tolist() == [45, 45]
    from pycocotools import mask as coco_mask

    for place in range(2):
        np.testing.assert_array_equal(coco_mask.decode(found.masks[place]), pets.mask(5, place))
    assert load(dataset, 0)['masks'].shape[0] == 0
    assert dataset.class_histogram().pixels.tolist() == [45 * 4, 45 * 2]


def test_void_instances_are_crowds_of_every_class(original):
    dataset = tfds(name=original, target='instances', void=('dog',))
    example = load(dataset, 5)
    assert dataset.info.class_names == ('cat',)
    assert example['classes'].tolist() == [0, 0] and example['is_crowd'].tolist() == [False, True]


@pytest.mark.parametrize('target', ['label_map', 'instances'])
def test_parts_of_a_file_and_cached_results(folder, monkeypatch, target):
    for split in ('train', 'test'):
        os.utime(shard(folder, split), ns=(0, 10**18))
    settings = {'name': str(folder), 'split': 'train[5:]+test[8:]+train[:2]', 'target': target}
    settings |= SETTINGS if target == 'label_map' else {}
    looked = []
    original = tfds_index.read
    monkeypatch.setattr(tfds_index, 'read', lambda *given: looked.append(1) or original(*given))
    for _ in range(2):
        dataset = tfds(**settings)
        dataset.verify()
        assert len(looked) == 6
        for index, number in enumerate((5, 6, 8, 9, 0, 1)):
            np.testing.assert_array_equal(load(dataset, index)['image'], tf.io.decode_jpeg(
                pets.jpeg(number), dct_method='INTEGER_ACCURATE'
            ))  # fmt: skip
            assert dataset.image_name(index) == f'pet_{number}'


def test_tfrecord_files_are_copied_once(tmp_path, caplog):
    folder = pets.write(tmp_path, 'tfrecord')
    for _ in range(2):
        dataset = tfds(name=str(tmp_path / 'small_pets'), **SETTINGS)
        np.testing.assert_array_equal(load(dataset, 6)['label'], np.array([0, 1, 0, 255])[pets.label(6)])
    there = [name for name in os.listdir(tmp_path / 'small_pets') if name != '1.2.0']
    assert len(there) == 1 and there[0].startswith('1.2.0-array_record-')
    (copy,) = (tmp_path / 'small_pets').glob('*array_record*/*-train*')
    assert copy.name == 'small_pets-train.array_record-00000-of-00001'
    shutil.rmtree(copy.parent)
    (file,) = pathlib.Path(folder).glob('*-train.tfrecord*')
    file.write_bytes(file.read_bytes()[:-100])
    text = refused(file.name, name=folder, **SETTINGS)
    assert 'record 6' in text and os.listdir(tmp_path / 'small_pets') == ['1.2.0']


@pytest.mark.parametrize('keep', [0, 70_000, None], ids=['empty', 'cut', 'by a byte'])
def test_truncated_file(folder, keep):
    path = shard(folder)
    path.write_bytes(path.read_bytes()[: -1 if keep is None else keep])
    text = refused(str(path), name=str(folder), **SETTINGS)
    assert 'truncated' in text and 'datasets.tfds' in text
    assert tfds(name=str(folder), split='test', **SETTINGS).info.num_examples == 10  # Of another file.


def test_file_with_other_records(folder):
    shutil.copyfile(shard(folder, 'test'), shard(folder))
    refused(f'{shard(folder)} holds 10 records, expected 7 as in dataset_info.json', name=str(folder), **SETTINGS)


def test_missing_file(folder):
    shard(folder).unlink()
    refused(f'{shard(folder)}: there is no such file', name=str(folder), **SETTINGS)


def test_damaged_record(folder):
    content = bytearray(shard(folder).read_bytes())
    content[content.index(pets.jpeg(3)[-60:-40])] ^= 255
    dataset = tfds(name=str(folder), **SETTINGS)
    shard(folder).write_bytes(content)
    text = refused('1 of 7 records cannot be used', name=str(folder), **SETTINGS)
    assert f'{shard(folder)}, record 3: ' in text
    with pytest.raises(OSError, match='record 3'):  # An unreadable image, for a run that began before.
        dataset.load(tf.constant(3, tf.int64))
    np.testing.assert_array_equal(load(dataset, 4)['label'], np.array([0, 1, 0, 255])[pets.label(4)])


def test_unknown_values(original):
    text = refused("(image 'pet_0'): label values out of range: 3", name=original, class_names=('a', 'b', 'c'))
    assert 'record 0' in text and 'datasets.tfds.values' in text


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'split': 'val'}, "datasets.tfds.split = 'val'"),
        ({'split': 'train[7:]'}, "datasets.tfds.split = 'train[7:]': it has no examples"),
        ({'version': '3.0.0'}, "datasets.tfds.version = '3.0.0'"),
        ({'class_names': None}, 'datasets.tfds.class_names = None'),
        ({'values': (1, 1)}, 'datasets.tfds.values = (1, 1)'),
        ({'ignore_values': (1,)}, 'datasets.tfds.ignore_values has 1'),
        ({'features': {'label': 'label'}}, "datasets.tfds.features['label'] = 'label'"),
        ({'features': {'label': 'mask'}}, "datasets.tfds.features['label'] = 'mask'"),
        ({'features': {'labels': 'segmentation_mask'}}, "datasets.tfds.features has 'labels'"),
        ({'classes': ('cow',)}, "datasets.tfds.classes: there is no class 'cow'"),
    ],
)
def test_wrong_settings(original, settings, message):
    refused(message, name=original, **(SETTINGS | settings))


@pytest.mark.parametrize(
    ('name', 'hint'), [('oxford_iiit_pett', "'oxford_iiit_pet'"), ('./nothing/there', 'There is no such folder')]
)
def test_unknown_set(tmp_path, name, hint):
    text = refused(f'datasets.tfds.name = {name!r}', name=name, data_dir=str(tmp_path), **SETTINGS)
    assert hint in text


def test_a_set_that_is_not_prepared_is_described(tmp_path):
    """`--topology` downloads nothing; a run calls `fetch`."""
    described = tfds(
        name='oxford_iiit_pet', data_dir=str(tmp_path), features={'label': 'segmentation_mask'}, **SETTINGS
    )
    assert described.info.class_names == SETTINGS['class_names'] and not os.listdir(tmp_path)
    pets.write_as_oxford(tmp_path)
    dataset = described.fetch()
    assert dataset.info.num_examples == pets.COUNT
    found = tfds(name='oxford_iiit_pet', data_dir=str(tmp_path), features={'label': 'segmentation_mask'}, **SETTINGS)
    assert found.info == dataset.info
