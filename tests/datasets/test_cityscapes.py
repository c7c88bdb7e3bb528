"""Cityscapes' layout: train ids from label ids, instances and groups from instance ids."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seg.datasets.cityscapes import cityscapes
from seg.errors import UserError

SIZE = (8, 12)
CLASSES = (
    'road sidewalk building wall fence pole,traffic light,traffic sign,vegetation terrain sky person rider car truck '
    'bus train motorcycle bicycle'
)
NAMES = tuple(name for part in CLASSES.split(',') for name in ([part] if part.startswith('traffic') else part.split()))
TRAIN_IDS = dict(
    zip([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33], range(19), strict=True)
)


def maps():
    """Label ids 0 to 33 in the corner, and instances: two cars, a group of persons, a trailer, a bicycle."""
    ids = np.full(SIZE, 7, np.uint8)
    ids.ravel()[:34] = range(34)
    numbers = ids.astype(np.uint16)
    numbers[numbers >= 24] = 7
    for place, value in {(4, 0): 26000, (4, 4): 26013, (6, 0): 24, (6, 4): 30001, (6, 8): 33000}.items():
        window = slice(place[0], place[0] + 2), slice(place[1], place[1] + 3)
        numbers[window], ids[window] = value, value // 1000 or value
    return ids, numbers


@pytest.fixture
def folder(tmp_path):
    ids, numbers = maps()
    for split, city, stem in (
        ('train', 'aachen', 'aachen_000000_000019'),
        ('val', 'ulm', 'ulm_1'),
        ('val', 'ulm', 'ulm_2'),
    ):
        for place in ('leftImg8bit', 'gtFine'):
            (tmp_path / place / split / city).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, [*SIZE, 3], dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png')
        Image.fromarray(ids).save(tmp_path / f'gtFine/{split}/{city}/{stem}_gtFine_labelIds.png')
        Image.fromarray(ids).save(tmp_path / f'gtFine/{split}/{city}/{stem}_gtFine_color.png')
        Image.fromarray(numbers).save(tmp_path / f'gtFine/{split}/{city}/{stem}_gtFine_instanceIds.png')
    return tmp_path


def refused(folder, **settings):
    with pytest.raises(UserError) as caught:
        cityscapes(data_dir=str(folder), **settings).verify()
    return str(caught.value)


def test_label_maps_have_train_ids(folder):
    dataset = cityscapes(data_dir=str(folder), split='val+train')
    dataset.verify()
    info = dataset.info
    assert info.class_names == NAMES and info.original_ids == tuple(TRAIN_IDS) and info.num_examples == 3
    assert info.colors[0] == (128, 64, 128) and info.colors[13] == (0, 0, 142) and info.name == 'cityscapes/val+train'
    assert dataset.image_name(0) == 'aachen/aachen_000000_000019'
    ids, _ = maps()
    expected = np.vectorize(lambda value: TRAIN_IDS.get(value, 255))(ids)
    np.testing.assert_array_equal(dataset.load(tf.constant(0, tf.int64))['label'], expected)
    assert (
        dataset.class_histogram().pixels.tolist() == (3 * np.bincount(expected[expected != 255], minlength=19)).tolist()
    )


def test_labels_may_be_merged_and_chosen(folder):
    dataset = cityscapes(data_dir=str(folder), merge={'parking': 'road', 'sidewalk': 'road'}, void=['sky'])
    assert dataset.info.class_names == tuple(name for name in NAMES if name not in ('sidewalk', 'sky'))
    ids, _ = maps()
    found = dataset.load(tf.constant(0, tf.int64))['label'].numpy()
    assert (found[(ids == 7) | (ids == 8) | (ids == 9)] == 0).all() and (found[ids == 23] == 255).all()
    assert cityscapes(data_dir=None, classes=['parking', 'car']).info.class_names == ('parking', 'car')
    assert "datasets.cityscapes.void: there is no class 'skye'" in refused(folder, void=['skye'])


def test_instances_and_groups(folder):
    dataset = cityscapes(data_dir=str(folder), target='instances', split='val')
    dataset.verify()
    names = dataset.info.class_names
    assert names == NAMES[11:] and dataset.info.original_ids == (24, 25, 26, 27, 28, 31, 32, 33)
    truth = dataset.annotations(1)
    solid = [(names[c], a) for c, a, crowd in zip(truth.classes, truth.area, truth.is_crowd, strict=True) if not crowd]
    assert sorted(solid) == [('bicycle', 6), ('car', 6), ('car', 6)]
    crowds = [names[c] for c, crowd in zip(truth.classes, truth.is_crowd, strict=True) if crowd]
    assert sorted(crowds) == sorted(['person', *names])  # The group; the trailer, in every class.
    cars = cityscapes(data_dir=str(folder), target='instances', classes=['car'], split='val')
    assert cars.annotations(0).is_crowd.tolist().count(False) == 2 and cars.info.class_names == ('car',)


def test_missing_files(folder):
    assert "'train', 'val'" in refused(folder, split='test')
    assert 'gtCoarse' in refused(folder, annotations='gtCoarse')
    path = folder / 'gtFine/val/ulm/ulm_2_gtFine_labelIds.png'
    path.unlink()
    message = refused(folder, split='val')
    assert "1 of 2 images have no file …_gtFine_labelIds.png, such as 'ulm/ulm_2'" in message
    (folder / 'gtFine').rename(folder / 'SegmentationClass')
    (folder / 'leftImg8bit').rename(folder / 'JPEGImages')
    (folder / 'ImageSets/Segmentation').mkdir(parents=True)
    (folder / 'ImageSets/Segmentation/train.txt').touch()
    assert '@datasets.voc_layout' in refused(folder)


def test_values_that_are_not_label_ids(folder):
    path = folder / 'gtFine/val/ulm/ulm_2_gtFine_labelIds.png'
    ids, numbers = maps()
    ids[4, 4] = 200
    Image.fromarray(ids).save(path)
    message = refused(folder, split='val')
    assert 'ulm_2_gtFine_labelIds.png' in message and '200 (1 pixels)' in message and '0..33' in message
    numbers[0, 0] = 59000
    Image.fromarray(numbers).save(str(path).replace('labelIds', 'instanceIds'))
    assert '59000' in refused(folder, split='val', target='instances')


def test_one_name_in_two_splits(folder):
    for place in ('leftImg8bit', 'gtFine'):
        shutil.copytree(folder / place / 'train', folder / place / 'val', dirs_exist_ok=True)
    message = refused(folder, split='train+val')
    assert 'leftImg8bit/train/' in message and 'leftImg8bit/val/' in message
