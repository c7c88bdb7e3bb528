"""Faults of one split are all found: one does not hide the others; a run refuses the data by the first."""

import functools

import numpy as np
import pytest
from PIL import Image

from seg.datasets.cityscapes import cityscapes
from seg.datasets.coco import coco
from seg.datasets.folders import folders
from seg.datasets.labelme import labelme
from seg.datasets.voc_layout import voc_layout
from seg.datasets.yolo import yolo
from seg.errors import UserError
from seg.inspection import check
from tests.datasets.instances import exported

FRACTIONS = {'train': 1.0}
in_folders = functools.partial(
    folders, images='JPEGImages', labels='SegmentationClass', class_names=('background', *exported.NAMES),
    fractions=FRACTIONS,
)  # fmt: skip
in_cities = functools.partial(cityscapes, classes=('road', 'person', 'rider', 'car'))
# Reader, its files, the folder of the images, a file of the first image that is removed; and the kind of this fault.
CASES = {
    'coco': (coco, exported.coco, 'train', 'train/photo0.png', 'missing_image'),
    'labelme': (labelme, exported.labelme, 'train', 'train/photo0.png', 'unusable_annotations'),
    'voc': (voc_layout, exported.voc, 'JPEGImages', 'JPEGImages/photo0.png', 'missing_file'),
    'folders': (in_folders, exported.voc, 'JPEGImages', 'SegmentationClass/photo0.png', 'missing_file'),
    'cityscapes': (
        in_cities, exported.cityscapes, 'leftImg8bit/train/town', 'gtFine/train/town/photo0_gtFine_labelIds.png',
        'missing_file',
    ),
}  # fmt: skip


def of_kinds(dataset, target):
    checked = check.check({'experiment.train_data': dataset.readable()}, target)
    return {finding.kind: finding for _, finding in checked.found if finding.severity == 'fix'}


@pytest.mark.parametrize('name', CASES)
def test_a_missing_file_and_a_truncated_one(name, tmp_path):
    reader, write, images, removed, kind = CASES[name]
    write(tmp_path / 'data')
    (tmp_path / 'data' / removed).unlink()
    (cut,) = (tmp_path / 'data' / images).glob('photo2*.png')
    cut.write_bytes(cut.read_bytes()[:-40])
    target = 'instances' if name in ('coco', 'labelme') else 'label_map'
    dataset = reader(data_dir=str(tmp_path / 'data'), target=target)
    found = of_kinds(dataset, target)
    assert len(found) == 2 and '1 of 3' in found.pop(kind).text
    (damaged,) = found.values()
    assert damaged.kind in ('unreadable', 'damaged_file') and [name[-6:] for name in damaged.images] == ['photo2']
    with pytest.raises(UserError, match='1 of 3 .*photo0' if name != 'labelme' else 'photo0'):
        dataset.verify()


def test_faults_of_headers_of_pixels_and_of_values(tmp_path):
    exported.voc(tmp_path / 'data')
    labels = tmp_path / 'data/SegmentationClass'
    Image.new('L', (9, 9)).save(labels / 'photo0.png')
    Image.fromarray(np.full(exported.SIZES[2], 77, np.uint8)).save(labels / 'photo2.png')
    (labels / 'photo1.png').write_bytes((labels / 'photo1.png').read_bytes()[:-30])
    found = of_kinds(voc_layout(data_dir=str(tmp_path / 'data'), target='label_map'), 'label_map')
    assert {kind: list(finding.images) for kind, finding in found.items()} == {
        'size_mismatch': ['photo0'],
        'damaged_file': ['photo1'],
        'unknown_values': ['photo2'],
    }


def test_faults_of_images_and_texts(tmp_path):
    exported.yolo(tmp_path / 'data')
    (tmp_path / 'data/images/train/photo0.png').write_bytes(b'no image')
    (tmp_path / 'data/labels/train/photo1.txt').write_text('7 0.1 0.1 0.9 0.1 0.9 0.9')
    (tmp_path / 'data/labels/train/photo2.txt').write_text('1 0.1 0.1 0.9 0.1 0.9 0.9')
    found = of_kinds(yolo(data_dir=str(tmp_path / 'data'), target='instances'), 'instances')
    assert {kind: list(finding.images) for kind, finding in found.items()} == {
        'unreadable': ['images/train/photo0'],
        'unusable_annotations': ['images/train/photo1'],
    }


def test_what_follows_from_what_was_left_out_is_not_told(tmp_path):
    exported.labelme(tmp_path / 'data')
    for image in (1, 2):
        (tmp_path / f'data/train/photo{image}.png').rename(tmp_path / f'{image}.png')
    (tmp_path / 'data/train').rename(tmp_path / 'data/all')
    with pytest.raises(UserError, match='2 of 3 JSON files cannot be used'):
        labelme(data_dir=str(tmp_path / 'data'), target='instances', split='val')
