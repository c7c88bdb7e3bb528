"""Instances in folders in VOC's layout: from the instance map, with the class of their pixels."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from seg.datasets.voc_layout import voc_layout
from seg.errors import UserError

NAMES = ('ground', 'cat', 'dog')
SIZE = (20, 30)


def maps():
    """Two examples: (classes, owners); the first has three instances, one of them in two pieces, the second none."""
    classes, owners = np.zeros([2, *SIZE], np.uint8), np.zeros([2, *SIZE], np.uint8)
    owners[0, 2:8, 3:9], classes[0, 2:8, 3:9] = 1, 2
    owners[0, 10:12, 0:20], classes[0, 10:12, 0:20] = 7, 1
    owners[0, 15:20, 25:30], classes[0, 15:20, 25:30] = 3, 1
    owners[0, 15:17, 3:5], classes[0, 15:17, 3:5] = 3, 1
    classes[0, 8, 3:9] = owners[0, 8, 3:9] = 255
    classes[0, 18, :4] = 2  # A class without an instance.
    return classes, owners


@pytest.fixture
def folder(tmp_path):
    classes, owners = maps()
    for name in ('JPEGImages', 'SegmentationClass', 'SegmentationObject', 'ImageSets/Segmentation'):
        (tmp_path / name).mkdir(parents=True)
    for n in range(2):
        pixels = np.random.default_rng(n).integers(0, 256, [*SIZE, 3], dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'JPEGImages/img{n}.png')
        Image.fromarray(classes[n]).save(tmp_path / f'SegmentationClass/img{n}.png')
        Image.fromarray(owners[n]).save(tmp_path / f'SegmentationObject/img{n}.png')
    (tmp_path / 'ImageSets/Segmentation/train.txt').write_text('img0\nimg1\n')
    (tmp_path / 'class_names.txt').write_text('\n'.join(NAMES))
    return tmp_path


def refused(message, folder, **settings):
    with pytest.raises(UserError, match=message) as caught:
        voc_layout(data_dir=str(folder), target='instances', **settings).verify()
    return str(caught.value)


def test_instances_are_those_of_the_maps(folder):
    dataset = voc_layout(data_dir=str(folder), target='instances')
    dataset.verify()
    first, second = tf.data.Dataset.range(2).map(dataset.load)
    _, owners = maps()
    assert first['classes'].numpy().tolist() == [1, 0, 0]
    np.testing.assert_array_equal(first['image'], Image.open(folder / 'JPEGImages/img0.png'))
    np.testing.assert_array_equal(first['boxes'], [[2, 3, 8, 9], [15, 3, 20, 30], [10, 0, 12, 20]])
    np.testing.assert_array_equal(first['area'], [36, 29, 40])
    assert not first['is_crowd'].numpy().any() and first['is_crowd'].shape == (3,)
    truth = dataset.annotations(0)
    assert (truth.height, truth.width) == SIZE
    for number, ends, mask in zip((1, 3, 7), first['masks'].to_list(), truth.masks, strict=True):
        passed = np.searchsorted(ends, np.arange(owners[0].size), side='right')
        np.testing.assert_array_equal((passed % 2).reshape(SIZE[::-1]).T, owners[0] == number)
        np.testing.assert_array_equal(coco_mask.decode(mask), owners[0] == number)
    for key in ('boxes', 'classes', 'is_crowd', 'area'):
        np.testing.assert_array_equal(first[key], getattr(truth, key))
    assert second['boxes'].shape == (0, 4) and dataset.annotations(1).masks == []


def test_info_and_histogram(folder):
    dataset = voc_layout(data_dir=str(folder), target='instances')
    info, semantic = dataset.info, voc_layout(data_dir=str(folder)).info
    assert (info.class_names, info.original_ids) == (('cat', 'dog'), (1, 2))
    assert info.colors == semantic.colors[1:] and info.num_examples == 2 and info.max_size == SIZE
    classes, _ = maps()
    assert dataset.class_histogram().pixels.tolist() == [(classes == 1).sum(), (classes == 2).sum()]
    spec = tf.data.Dataset.range(2).map(dataset.load).element_spec
    assert spec['masks'].dtype == tf.int32 and spec['boxes'].shape.as_list() == [None, 4]


def test_maps_of_16_bits(folder):
    _, owners = maps()
    many = owners[0].astype(np.uint16)
    many[many == 7] = 3000
    Image.fromarray(many).save(folder / 'SegmentationObject/img0.png')
    dataset = voc_layout(data_dir=str(folder), target='instances')
    dataset.verify()
    assert dataset.annotations(0).area.tolist() == [36, 29, 40]


def test_missing_maps(folder):
    (folder / 'SegmentationObject/img1.png').unlink()
    refused(r'1 of 2 listed names have no instance map in .*SegmentationObject: .img1\.png', folder)
    voc_layout(data_dir=str(folder)).verify()  # Labels of pixels need no instances.
    (folder / 'SegmentationObject').rename(folder / 'other')
    refused('JPEGImages, SegmentationClass, SegmentationObject, ImageSets/Segmentation there', folder)


@pytest.mark.parametrize('verify', [True, False])
def test_maps_of_another_size_or_kind(folder, verify):
    Image.new('L', (30, 21)).save(folder / 'SegmentationObject/img1.png')
    refused(r'img1\.png: the instance map is 30x21 pixels, the image .* is 30x20', folder, verify=verify)
    dataset = voc_layout(data_dir=str(folder), target='instances')
    assert len(list(tf.data.Dataset.range(2).map(dataset.load).ignore_errors())) == 1
    Image.new('RGB', (30, 20)).save(folder / 'SegmentationObject/img1.png')
    refused(r'img1\.png: the instance map is a PNG of type RGB.*Expected greyscale or palette', folder, verify=verify)


def test_damaged_maps(folder):
    path = folder / 'SegmentationObject/img0.png'
    path.write_bytes(path.read_bytes()[:-20])
    refused(r'SegmentationObject/img0\.png: the file is truncated or damaged', folder)
    voc_layout(data_dir=str(folder), target='instances', verify=False).verify()


def test_instances_without_a_single_class(folder):
    classes, owners = maps()
    owners[0, 0, 0:5] = 9
    Image.fromarray(owners[0]).save(folder / 'SegmentationObject/img0.png')
    message = refused(r'img0\.png: 1 of 4 instances have no single class, such as number 9, .* ground in', folder)
    assert message.endswith('the same class.')
    unchecked = voc_layout(data_dir=str(folder), target='instances', verify=False)
    assert unchecked.annotations(0).area.tolist() == [36, 29, 40]  # It is left out.
    classes[0, 15:20, 25:30] = 2
    Image.fromarray(classes[0]).save(folder / 'SegmentationClass/img0.png')
    refused(r'2 of 4 instances .* number 3, which covers cat, dog in', folder)
    Image.fromarray(np.where(owners[0] == 9, 255, classes[0]).astype(np.uint8)).save(
        folder / 'SegmentationClass/img0.png'
    )
    owners[0][owners[0] == 3] = 0
    Image.fromarray(owners[0]).save(folder / 'SegmentationObject/img0.png')
    refused(r'1 of 3 instances .* number 9, which covers ignored pixels only', folder)


def test_background_alone_is_not_a_class(folder):
    (folder / 'class_names.txt').write_text('ground\n')
    refused(r"class_names\.txt names 'ground' only, which is the background", folder)


def test_maps_of_16_bits_have_an_instance_255(folder):
    """300 instances, each of two pixels; 255 is ignored in maps of 8 bits only."""
    numbers = np.repeat(np.arange(300), 2).reshape(SIZE) + 1
    Image.fromarray(numbers.astype(np.uint16)).save(folder / 'SegmentationObject/img0.png')
    Image.fromarray(np.ones(SIZE, np.uint8)).save(folder / 'SegmentationClass/img0.png')
    dataset = voc_layout(data_dir=str(folder), target='instances')
    dataset.verify()
    assert len(dataset.load(tf.constant(0, tf.int64))['classes']) == 300 == len(dataset.annotations(0).classes)


def test_a_border_in_maps_of_16_bits(folder):
    """All of it ignored by the label, too: no instance."""
    _, owners = maps()
    Image.fromarray(owners[0].astype(np.uint16)).save(folder / 'SegmentationObject/img0.png')
    dataset = voc_layout(data_dir=str(folder), target='instances')
    dataset.verify()
    assert dataset.annotations(0).classes.tolist() == [1, 0, 0]


def test_maps_without_an_instance(folder):
    for n in range(2):
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / f'SegmentationObject/img{n}.png')
    refused("voc_layout, split 'train' of .*it has no instance", folder)


def test_void_instances_are_crowds_of_every_class(folder):
    dataset = voc_layout(data_dir=str(folder), target='instances', void=['cat'])
    dataset.verify()
    assert dataset.info.class_names == ('dog',) and dataset.info.original_ids == (2,)
    truth = dataset.annotations(0)
    assert truth.classes.tolist() == [0, 0, 0] and truth.is_crowd.tolist() == [False, True, True]
    two = voc_layout(data_dir=str(folder), target='instances', merge={'cat': 'pet', 'dog': 'pet'})
    assert two.annotations(0).classes.tolist() == [0, 0, 0] and not two.annotations(0).is_crowd.any()
    (folder / 'class_names.txt').write_text('ground\ncat\ndog\nrat\n')
    copies = voc_layout(data_dir=str(folder), target='instances', void=['cat']).annotations(0)
    assert sorted(zip(copies.classes.tolist(), copies.area.tolist(), copies.is_crowd.tolist(), strict=True)) == [
        (0, 29, True), (0, 36, False), (0, 40, True), (1, 29, True), (1, 40, True),
    ]  # fmt: skip
    refused(r'all of its 3 instances .* datasets\.voc_layout\.classes', folder, classes=['rat'])
