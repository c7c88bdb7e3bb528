"""Names of images as tools write them: found, or refused by a message with their place."""

import logging
import os
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seg.datasets.coco import coco
from tests.datasets import coco_files
from tests.datasets.coco_files import contents, refused, write

folder = coco_files.folder


def renamed(number, name):
    """The contents with another name for one image."""
    data = contents()
    data['images'][number]['file_name'] = name
    return data


def loads(dataset):
    return [example['image'].shape[:2] for example in tf.data.Dataset.range(3).map(dataset.load)]


@pytest.mark.parametrize(
    'name',
    ['../img0.png', 'train/../../img0.png', '..\\..\\x\\img0.png', '/elsewhere/img0.png', 'C:\\x\\img0.png', '..', '.'],
)
def test_names_that_lead_out_of_the_folder_are_refused(folder, name):
    Image.new('RGB', (40, 30)).save(folder / 'img0.png')
    message = refused('1 of 3 file names lead out of the folder of the images, .*/train', folder, renamed(0, name))
    assert repr(name) in message
    if name.endswith('img0.png'):
        assert "write 'img0.png', without folders" in message


def test_names_from_the_root_and_detours_within_the_folder(folder, monkeypatch):
    sizes = loads(coco(data_dir=str(folder)))
    names = [str(folder / 'train/img0.png'), 'train/../img0.png', '../train/img0.png', './img0.png', 'img0.png']
    for name in names:
        if name.startswith('../'):
            refused('lead out', folder, renamed(0, name))
            continue
        write(folder, renamed(0, name))
        dataset = coco(data_dir=str(folder))
        dataset.verify()
        assert dataset.image_name(0) == 'img0' and loads(dataset) == sizes
    # A relative data_dir, and one by way of a link.
    write(folder, renamed(0, names[0]))
    monkeypatch.chdir(folder.parent)
    assert loads(coco(data_dir=folder.name)) == sizes
    (folder.parent / 'link').symlink_to(folder)
    assert loads(coco(data_dir=str(folder.parent / 'link'))) == sizes


def test_other_spellings_of_a_name_are_found(folder, caplog):
    composed, apart = (unicodedata.normalize(form, 'Prüfung é.png') for form in ('NFC', 'NFD'))
    (folder / 'train/img0.png').rename(folder / 'train' / apart)
    (folder / 'train/img1.png').rename(folder / 'train/Écran 1.png')
    data = renamed(0, composed)
    data['images'][1]['file_name'] = '%C3%89cran%201.png'
    write(folder, data)
    with caplog.at_level(logging.WARNING):
        dataset = coco(data_dir=str(folder))
    dataset.verify()
    assert dataset.image_name(0) == apart[:-4] and dataset.image_name(1) == 'Écran 1'
    assert '2 images were found under another spelling' in caplog.text and r'e\u0301' in caplog.text
    for name in ('%2e%2e%2fimg0.png', 'img0.png%00'):
        refused(r'\d of 3 images are not in .*%', folder, renamed(0, name))


def test_names_that_are_not_possible(folder):
    for name in ('img0.png\0', '\ud800.png', '', 7, ['img0.png'], None):
        refused(r'images\[0\], id 100: file_name is ', folder, renamed(0, name))
    data = contents()
    data['images'][0] = {'id': 100, 'height': 30, 'width': 40, 'coco_url': 'http://x.org/train2017/1.jpg'}
    refused(r"images\[0\], id 100: there is no file_name.*'http://x.org/train2017/1.jpg'", folder, data)


def test_the_message_names_the_folder_of_the_images(folder):
    data = contents()
    for image in data['images']:
        image['file_name'] = 'train/' + image['file_name']
    write(folder, data)
    assert coco(data_dir=str(folder)).image_name(0) == 'train/img0'  # Names relative to the data set's folder.
    message = refused('3 of 3 images are not in .*/train: ', folder, data, images='train')
    assert f'They are in {folder}: set datasets.coco.images to it' in message


def test_an_image_that_is_listed_twice(folder):
    data = contents()
    data['images'].append({**data['images'][1], 'id': 9, 'file_name': './img1.png'})
    refused("1 of 4 entries of images .*\n.*'img1.png' is the image of the ids 101 and 9", folder, data)


def test_stray_names_that_are_not_utf8(folder):
    for place in ('train', 'annotations', '.'):
        (folder / place / os.fsdecode(b'gr\xfc\xdfe.png')).touch()
    coco(data_dir=str(folder)).verify()
    refused('Splits there', folder, split='val')


def test_roboflow_layout(folder):
    for split in ('valid', 'test'):
        (folder / split).mkdir()
        (folder / 'annotations/instances_train.json').rename(folder / split / '_annotations.coco.json')
        write(folder, contents())
    for n in range(3):
        (folder / f'train/img{n}.png').rename(folder / f'valid/img{n}.png')
    dataset = coco(data_dir=str(folder), split='valid')
    dataset.verify()
    assert dataset.info.num_examples == 3
    message = refused(
        "coco.split = 'val': there is no annotations/instances_val.json and no val/_annot", folder, split='val'
    )
    assert "Splits there: 'train', 'test', 'valid'." in message


def test_files_that_are_not_regular(folder):
    (folder / 'train/img1.png').unlink()
    os.mkfifo(folder / 'train/img1.png')
    (folder / 'train/img2.png').unlink()
    (folder / 'train/img2.png').symlink_to('/dev/zero')
    message = refused('2 of 3 images cannot be used', folder)
    assert 'it is a FIFO' in message and 'it is a device' in message
    path = folder / 'annotations/instances_train.json'
    path.unlink()
    os.mkfifo(path)
    refused('instances_train.json. is a FIFO, expected a file', folder)


def moved(folder, annotations, images):
    """The files at other places, as other tools put them."""
    (folder / 'annotations/instances_train.json').rename(folder / annotations)
    (folder / images).parent.mkdir(exist_ok=True)
    (folder / 'train').rename(folder / images)


@pytest.mark.parametrize(
    'annotations, images',
    [
        ('annotations/instances_default.json', 'images/default'),  # CVAT
        ('result.json', 'images'),  # Label Studio
        ('_annotations.coco.json', 'export'),  # Roboflow, not divided
        ('labels.json', 'my photos'),
    ],
)
def test_one_file_for_all_images_is_found_and_divided(folder, annotations, images):
    whole = coco(data_dir=str(folder))
    sizes = loads(whole)
    moved(folder, annotations, images)
    settings = {'data_dir': str(folder), 'fractions': {'train': 0.6, 'val': 0.4}}
    train, val = (coco(split=split, **settings) for split in ('train', 'val'))
    assert train.info.class_names == val.info.class_names == whole.info.class_names
    assert (train.info.num_examples, val.info.num_examples) == (2, 1)
    names = [dataset.image_name(n) for dataset in (train, val) for n in range(dataset.info.num_examples)]
    assert sorted(names) == ['img0', 'img1', 'img2']
    for dataset in (train, val):
        for n in range(dataset.info.num_examples):
            name = dataset.image_name(n)
            index = int(name[-1])
            assert dataset.image_id(n) == whole.image_id(index)
            for part, wanted in zip(dataset.annotations(n), whole.annotations(index), strict=True):
                assert np.array_equal(part, wanted)
    assert loads(coco(split='train+val', **settings)) == sizes
    refused("coco.split = 'test': .*Expected 'train' or 'val'", folder, split='test', fractions=settings['fractions'])


def test_names_with_the_images_folder_as_label_studio_writes_them(folder):
    data = contents()
    for image in data['images']:
        image['file_name'] = 'images/' + image['file_name']
    write(folder, data)
    moved(folder, 'result.json', 'images')
    assert coco(data_dir=str(folder), split='train').image_name(0) == 'images/img0'


def test_a_file_of_a_split_is_not_divided(folder):
    (folder / 'val').mkdir()
    refused("coco.split = 'val': .*Splits there: 'train'", folder, split='val')
    assert coco(data_dir=str(folder), fractions={'train': 0.6, 'val': 0.4}).info.num_examples == 2
