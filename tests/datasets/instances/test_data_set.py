"""Settings of all readers of instances: classes, orientation, label maps; cached results."""

import os
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seg.datasets import findings, image_files
from seg.datasets.coco import coco
from tests.datasets import coco_files
from tests.datasets.coco_files import SIZES, SQUARE, annotation, contents, refused, write

folder = coco_files.folder


def test_classes_are_chosen_merged_and_left_out(folder):
    whole = coco(data_dir=str(folder))
    found = coco(data_dir=str(folder), classes=('zebra', 'insect'), merge={'ant': 'insect', 'bee': 'insect'})
    assert found.info.class_names == ('zebra', 'insect') and found.info.original_ids == (90, 7)
    assert found.annotations(0).classes.tolist() == [1, 1] and found.annotations(1).classes.tolist() == [0, 0]
    found, before = coco(data_dir=str(folder), void=('bee',)).annotations(0), whole.annotations(0)
    # The void one is a crowd of every class.
    assert found.classes.tolist() == [0, 0, 1] and found.is_crowd.tolist() == [False, True, True]
    assert found.masks == [before.masks[n] for n in (0, 1, 1)]
    np.testing.assert_array_equal(found.boxes, before.boxes[[0, 1, 1]])
    refused("coco.void: there is no class 'be'. Did you mean 'bee'", folder, void=('be',))


def test_label_maps_have_later_instances_above_earlier_ones(folder):
    dataset, truth = coco(data_dir=str(folder), target='label_map', void=('zebra',)), coco(data_dir=str(folder))
    assert dataset.info.class_names == ('background', 'ant', 'bee')
    for index, (height, width) in enumerate(SIZES):
        label, wanted = dataset.load(tf.constant(index, tf.int64))['label'], np.zeros([height, width], int)
        found = truth.annotations(index)
        for encoded, number, crowd in zip(found.masks, found.classes, found.is_crowd, strict=True):
            wanted[coco_files.decoded(encoded)] = 255 if crowd or number == 2 else number + 1
        np.testing.assert_array_equal(label, wanted)
    assert dataset.class_histogram().pixels.tolist() == [
        int(sum((dataset.load(tf.constant(n, tf.int64))['label'].numpy() == k).sum() for n in range(3)))
        for k in range(3)
    ]


@pytest.fixture
def turned(folder):
    """The first image is stored as JPEG, lying on its side; the annotations fit the upright image."""
    upright = Image.open(folder / 'train/img0.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / 'train/img0.jpg', exif=exif, quality=95)
    data = contents()
    data['images'][0]['file_name'] = 'img0.jpg'
    write(folder, data)
    return folder


def test_orientation_is_applied_by_the_setting(turned):
    dataset = coco(data_dir=str(turned), orientation='apply')
    dataset.verify()
    example = dataset.load(tf.constant(0, tf.int64))
    assert example['image'].shape[:2] == SIZES[0] and dataset.info.max_size == (34, 40)
    refused("EXIF orientation 6.*coco.orientation = 'apply'", turned)
    data = contents()
    data['images'][0] |= {'file_name': 'img0.jpg', 'height': SIZES[0][1], 'width': SIZES[0][0]}
    refused("coco.orientation = 'ignore'", turned, data, orientation='apply')
    refused("coco.orientation = 'yes'", turned, orientation='yes')


def test_a_second_start_reads_no_image_again(folder, monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    for path in (folder / 'train').iterdir():
        os.utime(path, (1, time.time() - 60))
    coco(data_dir=str(folder)).verify()
    read = []
    monkeypatch.setattr(image_files, 'read_header', lambda path: read.append(path) or (_ for _ in ()).throw(ValueError))
    coco(data_dir=str(folder)).verify()
    assert not read
    os.utime(folder / 'train/img1.png', (1, time.time() - 50))
    refused('img1.png: not a readable image', folder)
    assert read == [str(folder / 'train/img1.png')]


def test_findings_are_those_that_a_run_reports(folder):
    data = contents()
    data['annotations'] += [annotation(50, 0, []), annotation(5, 0, [SQUARE])]
    write(folder, data)
    (folder / 'train/img1.png').write_bytes((folder / 'train/img1.png').read_bytes()[:-40])
    dataset = coco(data_dir=str(folder), verify=False)
    dataset.verify()
    found = {finding.kind: finding for finding in findings.of(dataset, full=True)}
    assert found.keys() == {*('unusable_mask', 'odd_mask', 'loose_box', 'strange_area', 'repeated_id', 'unreadable')}
    assert found['unreadable'].images == ('img1',) and found['unreadable'].severity == findings.FIX
    refused('1 of 3 images cannot be used:\n.*img1.png: the file is truncated', folder)
