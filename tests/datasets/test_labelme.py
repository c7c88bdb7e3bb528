"""LabelMe's files: all shapes, groups and places; one message for unusable files."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seg.datasets import findings
from seg.datasets.labelme import labelme
from seg.errors import UserError
from tests.datasets.coco_files import decoded
from tests.datasets.instances.exported import labelme_file, png, shape

SQUARE = [4, 5, 14, 5, 14, 17, 4, 17]


@pytest.fixture
def folder(tmp_path):
    for n in range(2):
        Image.new('RGB', (40, 30), (n, 90, 9)).save(tmp_path / f'img{n}.png')
        put(tmp_path, n, [shape('cat', SQUARE)])
    return tmp_path


def put(folder, n, shapes, **more):
    labelme_file(folder / f'img{n}.json', shapes, f'img{n}.png', 30, 40, **more)


def read(folder, **settings):
    dataset = labelme(data_dir=str(folder), split='train+val', fractions={'train': 0.5, 'val': 0.5}, **settings)
    dataset.verify()
    return dataset


def refused(message, folder, **settings):
    with pytest.raises(UserError, match=message) as caught:
        read(folder, **settings)
    return str(caught.value)


def masks(dataset, index=0):
    return [decoded(mask) for mask in dataset.annotations(index).masks]


def test_shapes(folder):
    stored = np.zeros([30, 40], bool)
    stored[3:9, 20:26] = np.tri(6, dtype=bool)
    put(
        folder,
        0,
        [
            shape('cat', SQUARE),
            shape('cat', [4, 5, 14, 17], shape_type='rectangle'),
            shape('cat', [14, 17, 4, 5], shape_type='rectangle'),
            shape('dog', [20, 15, 26, 15], shape_type='circle'),
            shape('dog', [20, 3, 25, 8], shape_type='mask', mask=png(stored[3:9, 20:26])),
            shape('dog', [20, 15, 26, 15], shape_type='line'),
            shape('dog', [20, 15], shape_type='point'),
            {key: value for key, value in shape('dog', SQUARE).items() if key not in ('shape_type', 'group_id')},
        ],
    )
    dataset = read(folder)
    assert dataset.info.class_names == ('cat', 'dog')
    found = masks(dataset)
    wanted = np.zeros([30, 40], bool)
    wanted[5:17, 4:14] = True
    for n in (0, 1, 2, 5):
        np.testing.assert_array_equal(found[n], wanted)
    rows, columns = np.mgrid[:30, :40] + 0.5
    assert (found[3] != (np.hypot(rows - 15, columns - 20) < 6)).sum() < 12
    np.testing.assert_array_equal(found[4], stored)
    assert dataset.annotations(0).classes.tolist() == [0, 0, 0, 1, 1, 1]
    assert any('2 shapes are points or lines' in finding.text for finding in dataset.findings(full=False))


def test_groups_join_shapes_of_one_label(folder):
    other = [20, 20, 30, 20, 30, 28, 20, 28]
    box = np.ones([3, 4], bool)
    put(
        folder,
        0,
        [
            shape('cat', SQUARE, group_id=3),
            shape('dog', SQUARE, group_id=3),
            shape('cat', other, group_id=3),
            shape('dog', [20, 3, 23, 5], group_id=3, shape_type='mask', mask=png(box)),
        ],
    )
    dataset = read(folder)
    cat, dog = masks(dataset)
    assert cat.sum() == 120 + 80 and cat[22, 22] and cat[6, 6]
    assert dog.sum() == 120 + 12 and dog[4, 21]
    example = dataset.load(tf.constant(0, tf.int64))
    assert example['boxes'].numpy().tolist() == [[5, 4, 28, 30], [3, 4, 17, 24]]
    assert example['area'].numpy().tolist() == [200, 132]


def test_names_with_a_meaning(folder):
    put(folder, 0, [shape('__ignore__', SQUARE), shape('_background_', SQUARE), shape('dog', SQUARE)])
    dataset = read(folder)
    assert dataset.info.class_names == ('cat', 'dog')
    found = dataset.annotations(0)
    assert found.classes.tolist() == [0, 1, 1] and found.is_crowd.tolist() == [True, True, False]
    label = read(folder, target='label_map').load(tf.constant(0, tf.int64))['label'].numpy()
    assert label[6, 6] == 2 and label[0, 0] == 0


def test_images_are_found_where_they_lie(folder):
    data = json.loads((folder / 'img0.json').read_text())
    for path in ('C:\\photos\\img0.png', '../elsewhere/img0.png', None, 'other.png'):
        (folder / 'img0.json').write_text(json.dumps(data | {'imagePath': path}))
        assert read(folder).image_name(0) == 'img0'
    (folder / 'img0.png').rename(folder / 'img0.jpg')
    Image.new('RGB', (40, 30)).save(folder / 'img0.jpg')
    assert read(folder).image_path(0).endswith('img0.jpg')
    (folder / 'img0.jpg').unlink()
    assert 'Add it as JPEG or PNG' in refused("img0.json: its image 'other.png' is not in", folder)
    put(folder, 0, [shape('cat', SQUARE)], imageData='abcd')
    assert 'save them as img0.jpg' in refused('imageData', folder)


def test_sizes_may_be_missing_and_must_fit(folder):
    put(folder, 0, [shape('cat', SQUARE)], imageHeight=None)
    assert read(folder).annotations(0).height == 30
    put(folder, 0, [shape('cat', SQUARE)], imageHeight=31)
    refused('img0.png is 40x30 pixels .*, but 40x31', folder)


def test_folders_of_splits(folder):
    for name in ('train', 'val'):
        (folder / name).mkdir()
        n = ('train', 'val').index(name)
        for ending in ('png', 'json'):
            (folder / f'img{n}.{ending}').rename(folder / f'{name}/img{n}.{ending}')
    put(folder / 'val', 1, [shape('dog', SQUARE)])
    dataset = labelme(data_dir=str(folder), split='val')
    assert dataset.info.class_names == ('cat', 'dog') and dataset.image_name(0) == 'val/img1'
    with pytest.raises(UserError, match="labelme.split = 'test': there are folders 'train' and 'val'"):
        labelme(data_dir=str(folder), split='test')


@pytest.mark.parametrize(
    'content, message',
    [
        ('{', 'img0.json: it is not a complete JSON file: the file is truncated'),
        ('[]', 'img0.json: expected LabelMe'),
        ('{"images": [], "annotations": []}', "It is COCO's annotations: read it by datasets.coco"),
        ('{"_via_settings": {}, "_via_img_metadata": {}}', 'VIA .*COCO format'),
        ('{"img0.png123": {"filename": "img0.png", "regions": []}}', 'VIA .*COCO format'),
        ('{"objects": [], "size": {"height": 3, "width": 4}, "tags": []}', 'Supervisely: export'),
        ('{"imgHeight": 3, "imgWidth": 4, "objects": []}', 'Cityscapes: .*datasets.cityscapes'),
        ('{"shapes": [5]}', r'shapes\[0\] is 5, expected an object'),
        ('{"shapes": [{"label": 7, "points": []}]}', r'shapes\[0\].label is 7, expected a name'),
        ('{"shapes": [{"label": "a", "group_id": [1]}]}', r'shapes\[0\].group_id is \[1\]'),
    ],
)
def test_files_of_other_kinds_are_named(folder, content, message):
    (folder / 'img0.json').write_text(content)
    text = refused(message, folder)
    assert 'datasets.labelme' in text and '1 of 2 JSON files' in text


def test_damaged_shapes_are_dropped_and_counted(folder):
    put(
        folder,
        0,
        [
            shape('cat', SQUARE),
            shape('cat', [1, 2, 3, 4]),
            shape('cat', SQUARE) | {'points': 'none'},
            shape('cat', [20, 3, 23, 5], shape_type='mask', mask='no PNG'),
            shape('cat', [50, 50, 60, 50, 60, 60]),
        ],
    )
    dataset = read(folder)
    assert len(masks(dataset)) == 1
    (found,) = [finding for finding in findings.of(dataset, full=True) if finding.kind == 'unusable_mask']
    assert '4 of 6 instances have no usable mask' in found.text and "'cat' in 'img0.png'" in found.text


def test_folders_without_files(folder, tmp_path_factory):
    refused('no JSON file', tmp_path_factory.mktemp('empty'))
    refused('there is no such folder', folder / 'nowhere')
    refused('it is a file', folder / 'img0.json')
    for n in range(2):
        put(folder, n, [])
    refused('none of 2 JSON files has a shape', folder)


def test_a_mask_outside_of_the_image_is_dropped_and_reported(folder):
    box = png(np.ones([30, 10], bool))
    corners = ([0, 45], [0, -45], [60, 0], [-60, 0])
    shapes = [shape('cat', [*corner, 9, 9], shape_type='mask', mask=box) for corner in corners]
    put(folder, 0, [shape('cat', SQUARE), *shapes, shape('cat', [35, 20, 9, 9], shape_type='mask', mask=box)])
    dataset = read(folder)
    assert [mask.sum() for mask in masks(dataset)] == [120, 5 * 10]
    (found,) = [finding for finding in findings.of(dataset, full=True) if finding.kind == 'unusable_mask']
    assert found.count == 4 and "'cat' in 'img0.png'" in found.text


@pytest.mark.parametrize('kind', ['polygon', 'mask'])
def test_a_damaged_part_of_a_group_is_reported(folder, kind):
    sound = shape('cat', SQUARE, group_id=1)
    if kind == 'mask':
        sound = shape('cat', [20, 3, 23, 5], group_id=1, shape_type='mask', mask=png(np.ones([3, 4], bool)))
    bad = shape('cat', [20, 20, 30, 1e300, 30, 28], group_id=1)
    put(folder, 0, [sound, bad, shape('cat', [30, 1, 38, 1, 38, 9, 30, 9], group_id=1)])
    dataset = read(folder)
    assert [mask.sum() for mask in masks(dataset)] == [64 + (12 if kind == 'mask' else 120)]
    (found,) = [finding for finding in findings.of(dataset, full=True) if finding.kind == 'odd_mask']
    assert found.count == 1 and 'an empty polygon' in found.text and "'cat' in 'img0.png'" in found.text


def test_a_broken_link_to_an_image_is_one_message(folder):
    (folder / 'img0.png').unlink()
    (folder / 'img0.png').symlink_to(folder / 'nowhere.png')
    put(folder, 0, [shape('cat', SQUARE)], imageHeight=None)
    refused('img0.json: imageHeight and imageWidth are missing, and img0.png is not readable', folder)
    (folder / 'img0.png').unlink()
    (folder / 'img0.png').symlink_to('img0.png')
    refused('img0.json: imageHeight and imageWidth are missing, and img0.png is not readable', folder)
    put(folder, 0, [shape('cat', SQUARE)])
    refused('img0.png', folder)


def test_missing_sizes_are_those_of_the_orientation(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending, orientation, size in (('png', 'ignore', (40, 30)), ('jpg', 'apply', (30, 40))):
        Image.new('RGB', (30, 40)).save(folder / f'img0.{ending}', exif=exif)
        labelme_file(folder / 'img0.json', [shape('cat', SQUARE)], f'img0.{ending}', None, None)
        truth = read(folder, orientation=orientation).annotations(0)
        assert (truth.height, truth.width) == size and truth.boxes.tolist() == [[5, 4, 17, 14]]


def test_linked_folders_are_read_once(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    for ending in ('png', 'json'):
        (folder / f'img1.{ending}').rename(other / f'img1.{ending}')
    (folder / 'z').mkdir()
    for link, place in {'b': other, 'c': other, 'a': folder / 'z', 'z/up': folder, 'top': '/', 'self': 'self'}.items():
        (folder / link).symlink_to(place)
    Image.new('RGB', (40, 30)).save(folder / 'z/img2.png')
    labelme_file(folder / 'z/img2.json', [shape('cat', SQUARE)], 'img2.png', 30, 40)
    dataset = labelme(data_dir=str(folder), split='all', fractions={'all': 1})
    assert [dataset.image_name(n) for n in range(3)] == ['b/img1', 'img0', 'z/img2'] and dataset.info.num_examples == 3


def test_a_folder_that_cannot_be_read_is_one_message(folder, monkeypatch):
    (folder / 'closed').mkdir()
    scan = os.scandir

    def scandir(path):
        if str(path).endswith('closed'):
            raise PermissionError(13, 'Permission denied', path)
        return scan(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    refused('closed: this folder cannot be read: Permission denied', folder)
