"""YOLO's text files: layouts and spellings of data.yaml, outlines and boxes, one message for unusable files."""

import pytest
import tensorflow as tf
import yaml
from PIL import Image

from seg.datasets import findings
from seg.datasets.yolo import yolo
from seg.errors import UserError
from tests.datasets.coco_files import decoded

SQUARE = '0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6'  # x 4 to 20, y 6 to 18.


@pytest.fixture
def folder(tmp_path):
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (tmp_path / kind / split).mkdir(parents=True)
        for n in range(2):
            Image.new('RGB', (40, 30), (n, 9, 9)).save(tmp_path / f'images/{split}/{split}{n}.jpg')
            (tmp_path / f'labels/{split}/{split}{n}.txt').write_text(f'{SQUARE}\n\n')
    describe(tmp_path)
    return tmp_path


def describe(folder, **more):
    content = {'train': 'images/train', 'val': 'images/val', 'names': ['cat', 'dog']} | more
    (folder / 'data.yaml').write_text(yaml.safe_dump({key: v for key, v in content.items() if v is not None}))


def read(folder, split='train', **settings):
    dataset = yolo(data_dir=str(folder), split=split, **settings)
    dataset.verify()
    return dataset


def refused(message, folder, split='train', **settings):
    with pytest.raises(UserError, match=message) as caught:
        read(folder, split, **settings)
    return str(caught.value)


def test_outlines_are_fractions_of_the_image(folder):
    dataset = read(folder)
    truth = dataset.annotations(1)
    assert dataset.image_name(1) == 'images/train/train1' and dataset.info.class_names == ('cat', 'dog')
    assert truth.boxes.tolist() == [[6, 4, 18, 20]] and truth.area.tolist() == [192]
    assert decoded(truth.masks[0])[6:18, 4:20].all()
    assert dataset.load(tf.constant(1, tf.int64))['boxes'].numpy().tolist() == [[6, 4, 18, 20]]


@pytest.mark.parametrize(
    'more',
    [
        {'names': {0: 'cat', 1: 'dog'}},
        {'path': '.'},
        {'path': '/datasets/of/another/machine'},
        {'train': '../images/train'},
        {'train': ['images/train']},
        {'train': 'train.txt'},
        {'train': None, 'val': None},
        {'nc': 2, 'roboflow': {'license': 'MIT'}},
    ],
)
def test_spellings_of_the_description(folder, more):
    (folder / 'train.txt').write_text('./images/train/train0.jpg\nimages/train/train1.jpg\n')
    describe(folder, **more)
    dataset = read(folder)
    assert dataset.info.num_examples == 2 and dataset.info.class_names == ('cat', 'dog')
    assert read(folder / 'data.yaml').info == dataset.info


def test_roboflow_layout_and_files_beside_the_images(folder):
    for kind in ('images', 'labels'):
        (folder / 'valid').mkdir(exist_ok=True)
        (folder / kind / 'val').rename(folder / 'valid' / kind)
    describe(folder, val='../valid/images')
    assert read(folder, 'val').annotations(0).boxes.tolist() == [[6, 4, 18, 20]]
    for path in (folder / 'labels/train').iterdir():
        path.rename(folder / 'images/train' / path.name)
    assert read(folder).annotations(0).boxes.tolist() == [[6, 4, 18, 20]]


def test_one_folder_is_divided_and_names_come_from_a_list(folder):
    (folder / 'data.yaml').unlink()
    (folder / 'classes.txt').write_text('cat\ndog\n')
    for kind in ('images', 'labels'):
        for path in (folder / kind).glob('*/*'):
            path.rename(folder / kind / path.name)
        for split in ('train', 'val'):
            (folder / kind / split).rmdir()
    sizes = [read(folder, split).info.num_examples for split in ('train', 'val')]
    assert sum(sizes) == 4 and min(sizes) > 0
    assert read(folder, 'train', fractions={'train': 0.5, 'val': 0.5}).info.num_examples == 2


def test_boxes_and_images_without_a_file_are_reported(folder):
    (folder / 'labels/train/train0.txt').write_text(f'1 0.5 0.5 0.2 0.2\n{SQUARE}\n')
    (folder / 'labels/train/train1.txt').unlink()
    dataset = read(folder)
    assert [len(dataset.annotations(n).masks) for n in range(2)] == [1, 0]
    found = {finding.kind: finding.text for finding in findings.of(dataset, full=True)}
    assert '1 with a box only, no segmentation' in found['unusable_mask'] and 'line 1 of' in found['unusable_mask']
    assert "1 images have no text file, and so no instance: 'images/train/train1.jpg'" in found['images_without_labels']
    (folder / 'labels/train/train0.txt').write_text('1 0.5 0.5 0.2 0.2\n')
    refused('none of its 1 instances has a usable mask: 1 with a box only', folder)


@pytest.mark.parametrize(
    'line, message',
    [
        ('2 0.1 0.2 0.5 0.2 0.5 0.6', 'train0.txt, line 2: the class is 2, but .*data.yaml has names for 0 to 1'),
        ('-1 0.1 0.2 0.5 0.2 0.5 0.6', 'the class is -1'),
        ('0.5 0.1 0.2 0.5 0.2 0.5 0.6', 'the class is 0.5'),
        ('nan 0.1 0.2 0.5 0.2 0.5 0.6', 'the class is nan'),
        ('0 4 6 20 6 20 18', 'line 2: the coordinate 4; expected fractions .* Divide'),
        ('0 0.1 0.2 0.5 nan 0.5 0.6', 'the coordinate nan'),
        ('0 0.1 0.2 0.5 0.2 0.5', 'line 2: 6 numbers; expected the class, then x and y of three points or more'),
        ('0 0.1 0.2 0.5 0.2 0.5 0.6 0.3', 'line 2: 8 numbers'),
        ('cat 0.1 0.2', "line 2: 'cat 0.1 0.2': expected numbers"),
    ],
)
def test_lines_that_cannot_be_used(folder, line, message):
    (folder / 'labels/train/train0.txt').write_text(f'{SQUARE}\n{line}\n')
    text = refused(message, folder)
    assert '1 of 2 text files cannot be used' in text


def test_an_outline_a_little_beyond_the_image_is_cut(folder):
    (folder / 'labels/train/train0.txt').write_text('1.0 -0.003 0 1.004 0 1.004 1 -0.003 1')
    assert read(folder).annotations(0).boxes.tolist() == [[0, 0, 30, 40]]


def test_descriptions_that_cannot_be_used(folder):
    describe(folder, names=None)
    refused('data.yaml has no names. Expected class names', folder)
    describe(folder, names={0: 'cat', 2: 'dog'})
    refused(r'names has the numbers \[0, 2\], expected 0 to 1', folder)
    describe(folder, names=['cat', 'cat'])
    refused("names has 'cat' twice", folder)
    describe(folder, names='cat')
    refused("names is 'cat', expected a list", folder)
    describe(folder, train='photos')
    refused("data.yaml: train is 'photos', but there is neither .*photos", folder)
    describe(folder, train=5)
    refused('data.yaml: train is 5, expected a folder', folder)
    describe(folder)
    refused("yolo.split = 'test': there is no folder .*data.yaml has train and val", folder, 'test')
    (folder / 'data.yaml').write_text('names: [cat')
    refused('data.yaml: it is not YAML', folder)
    (folder / 'data.yaml').write_text('- cat')
    refused('data.yaml: it holds', folder)


def test_folders_of_other_kinds(folder):
    (folder / 'data.yaml').unlink()
    (folder / 'instances.json').write_text('{"images": [], "annotations": []}')
    refused("COCO's format, one file for all images: @datasets.coco reads it", folder)
    refused('there is no such folder', folder / 'nowhere')
    describe(folder)
    for path in (folder / 'labels/train').iterdir():
        path.unlink()
    refused('none of its 2 images has a text file; the first would be .*labels/train/train0.txt', folder)
    (folder / 'images/train/train0.jpg').write_bytes(b'GIF89a')
    refused('1 of 2 images cannot be used:\n.*train0.jpg: not a readable image', folder)


def test_orientation_turns_the_image_before_its_fractions_count(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (30, 40), 'red').save(folder / 'images/train/train0.jpg', exif=exif)
    assert read(folder, orientation='apply').annotations(0).boxes.tolist() == [[6, 4, 18, 20]]
    assert read(folder).annotations(0).boxes.tolist() == [[8, 3, 24, 15]]


def test_lists_of_class_names(folder):
    describe(folder, names=None)
    names = folder / 'classes.txt'
    names.write_text('cat\n\ndog\n')
    refused('classes.txt has an empty line 2, which would shift all later ids', folder)
    names.write_bytes('Stra\xdfe\ndog\n'.encode('latin-1'))
    refused('classes.txt: expected a text file in UTF-8; byte 4', folder)
    names.write_text('Stra\xdfe\r\ndog\n\n\n', 'utf-8')
    assert read(folder).info.class_names == ('Stra\xdfe', 'dog')
    names.write_text('\n'.join(f'c{n}' for n in range(1203)))
    assert len(read(folder).info.class_names) == 1203


@pytest.mark.parametrize(
    'text, message',
    [
        ('names: [yes, no]', r'names is \[True, False\].* Quote the names'),
        ('names: {0: cat, 1: dog, 1: bird}', 'the key 1 occurs twice'),
        ('names: [cat, dog]\nnames: [cat]', 'the key names occurs twice .* line 3'),
        ('names: [cat, dog]\nnc: 5', 'nc is 5, but there are 2 names'),
    ],
)
def test_ambiguous_class_names(folder, text, message):
    (folder / 'data.yaml').write_text(f'train: images/train\n{text}\n')
    assert str(folder / 'data.yaml') in refused(message, folder)


def test_images_out_of_the_folder_are_refused(folder):
    root = folder / 'set'
    root.mkdir()
    for name in ('images', 'labels'):
        (root / name).symlink_to(folder / name)  # Links are the user's own.
    outside = str(folder / 'images/train')
    (folder / 'elsewhere').mkdir()
    for more in ({'train': '../elsewhere'}, {'train': outside}, {'train': ['images/train', outside]}):
        describe(root, **more)
        refused('data.yaml: train is .*, which leads out of the folder of the data set', root)
    for more in (
        {'path': '..'},
        {'path': str(folder)},
        {'train': '../images/train'},
        {'train': f'{root}/images/train'},
    ):
        describe(root, **more)
        assert read(root).image_name(0) == 'images/train/train0'
    describe(root, train='lists/train.txt')
    (root / 'lists').mkdir()
    (root / 'lists/train.txt').write_text(f'../images/train/train0.jpg\n{root}/images/train/train1.jpg\n')
    assert [read(root).image_name(n) for n in range(2)] == ['images/train/train0', 'images/train/train1']
    (root / 'lists/train.txt').write_text(f'../images/train/train0.jpg\n{outside}/train1.jpg\n../../images/a.jpg\n')
    refused("train.txt: 2 of 3 listed images lead out of the folder .*train1.jpg', '../../images/a.jpg'", root)
    (root / 'data.yaml').write_text('names: [cat, dog]')
    refused("yolo.split = '../../images/train': there are folders 'train' and 'val'", root, '../../images/train')


def test_the_folder_may_be_the_working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert read('.').annotations(0).boxes.tolist() == [[6, 4, 18, 20]]


def test_splits(folder):
    assert read(folder, 'train+val').info.num_examples == 4
    for split in (5, None, ['train'], ''):
        refused('datasets.yolo.split = ', folder, split)


def test_text_files_without_an_image_are_reported(folder):
    for n in range(6):
        (folder / f'labels/train/spare{n}.txt').write_text(f'\n{SQUARE}\n')
    (folder / 'labels/train/classes.txt').write_text('cat\ndog\n')
    describe(folder, train='train.txt')
    (folder / 'train.txt').write_text('images/train/train0.jpg\n')  # The other image is of another split.
    (found,) = [each for each in read(folder).findings(False) if each.kind == 'labels_without_image']
    assert found.severity == findings.WARN and found.count == 6
    assert 'spare0.txt' in found.text and 'spare5' not in found.text and 'classes' not in found.text
