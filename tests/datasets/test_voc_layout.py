"""Folders in VOC's layout: examples as stored, and every mistake found before the first step."""

import io
import os
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seg.datasets.voc_layout import voc_layout
from seg.drawing.palette import class_palette, voc_palette
from seg.errors import UserError
from seg.known_classes import VOC_CLASS_NAMES

NAMES = ('sky', 'road', 'car')


def smooth(height, width, seed=0):
    """An image that JPEG changes little, and whose data is longer than its header."""
    coarse = np.random.default_rng(seed).integers(0, 256, [6, 6, 3], dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save_label(path, label, palette=True):
    image = Image.fromarray(np.asarray(label, np.uint8))
    if palette:
        image = Image.frombytes('P', image.size, image.tobytes())
        image.putpalette(np.array(voc_palette(256), np.uint8).ravel().tolist())
    image.save(path, 'PNG')


@pytest.fixture
def folder(tmp_path):
    """A folder without faults: five examples of three classes, sizes 30x40 and up; `train` lists all, `val` two."""
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (tmp_path / name).mkdir(parents=True)
    stems = [f'img{n}' for n in range(5)]
    for n, stem in enumerate(stems):
        smooth(30 + n, 40 + 2 * n, n).save(tmp_path / f'JPEGImages/{stem}.jpg', quality=95, subsampling=0)
        label = np.full([30 + n, 40 + 2 * n], n % 2)
        label[:5] = 255
        label[10:20, :n] = 2
        save_label(tmp_path / f'SegmentationClass/{stem}.png', label, palette=n != 3)
    (tmp_path / 'ImageSets/Segmentation/train.txt').write_text('\n'.join(stems) + '\n\n')
    (tmp_path / 'ImageSets/Segmentation/val.txt').write_bytes(b'\xef\xbb\xbfimg1\r\nimg4\r\n')
    (tmp_path / 'class_names.txt').write_text('\n'.join(NAMES) + '\n')
    return tmp_path


def refused(message, **settings):
    """Builds, verifies, and returns the text of the error."""
    with pytest.raises(UserError, match=message) as caught:
        voc_layout(**{k: str(v) if k == 'data_dir' else v for k, v in settings.items()}).verify()
    return str(caught.value)


def test_examples_are_the_stored_pixels_and_ids(folder):
    dataset = voc_layout(data_dir=str(folder))
    pipeline = tf.data.Dataset.range(5).map(dataset.load)
    assert pipeline.element_spec == {
        'image': tf.TensorSpec([None, None, 3], tf.uint8),
        'label': tf.TensorSpec([None, None], tf.int32),
    }
    for n, example in enumerate(pipeline.as_numpy_iterator()):
        stored = np.array(Image.open(folder / f'JPEGImages/img{n}.jpg')).astype(int)
        assert np.abs(example['image'].astype(int) - stored).max() <= 1
        np.testing.assert_array_equal(example['label'], np.array(Image.open(folder / f'SegmentationClass/img{n}.png')))
        eager = dataset.load(tf.constant(n, tf.int64))
        np.testing.assert_array_equal(eager['image'], example['image'])
        np.testing.assert_array_equal(eager['label'], example['label'])


def test_info_and_names(folder):
    dataset = voc_layout(data_dir=str(folder), split='val')
    info = dataset.info
    assert (info.name, info.class_names, info.num_examples) == ('voc_layout/val', NAMES, 2)
    assert info.max_size == (34, 48) and info.ignore_label == 255
    assert info.colors == class_palette(NAMES) and (0, 0, 0) not in info.colors
    assert [dataset.image_name(i) for i in range(2)] == ['img1', 'img4']


def test_the_palette_of_the_labels(folder):
    path = folder / 'SegmentationClass/img0.png'
    image = Image.open(path)
    image.putpalette([70, 130, 180, 128, 64, 128, 0, 0, 142])
    image.save(path)
    assert voc_layout(data_dir=str(folder)).info.colors == ((70, 130, 180), (128, 64, 128), (0, 0, 142))


def test_largest_size_is_taken_by_side(folder):
    smooth(90, 10).save(folder / 'JPEGImages/img0.jpg')
    save_label(folder / 'SegmentationClass/img0.png', np.zeros([90, 10]))
    assert voc_layout(data_dir=str(folder)).info.max_size == (90, 48)


@pytest.mark.parametrize('verify_first', [True, False])
def test_class_histogram(folder, verify_first):
    dataset = voc_layout(data_dir=str(folder))
    if verify_first:
        dataset.verify()
    labels = [np.array(Image.open(folder / f'SegmentationClass/img{n}.png')) for n in range(5)]
    counts = np.array([[(label == class_id).sum() for class_id in range(3)] for label in labels])
    histogram = dataset.class_histogram()
    np.testing.assert_array_equal(histogram.pixels, counts.sum(axis=0))
    present = [sum(row.sum() for row in counts if row[class_id]) for class_id in range(3)]
    np.testing.assert_array_equal(histogram.present_pixels, present)
    assert histogram.pixels.dtype == np.int64 == histogram.present_pixels.dtype


def test_nothing_is_decoded_twice(folder):
    dataset = voc_layout(data_dir=str(folder))
    dataset.verify()
    for path in [*folder.glob('JPEGImages/*'), *folder.glob('SegmentationClass/*')]:
        path.unlink()
    dataset.verify()
    assert dataset.info.num_examples == 5 and dataset.class_histogram().pixels.sum() > 0


@pytest.mark.parametrize('below', ['VOC2012', 'VOCdevkit/VOC2012'])
def test_the_devkit_around_the_folder_is_accepted(folder, tmp_path_factory, below):
    above = tmp_path_factory.mktemp('above')
    (above / below).parent.mkdir(parents=True, exist_ok=True)
    (above / below).symlink_to(folder)
    assert voc_layout(data_dir=str(above)).info.class_names == NAMES


def test_without_class_names_the_classes_are_vocs(folder):
    (folder / 'class_names.txt').unlink()
    info = voc_layout(data_dir=str(folder)).info
    assert info.class_names == VOC_CLASS_NAMES and info.num_classes == 21
    assert info.class_names[15] == 'person' and info.colors[15] == (192, 128, 128)


def test_other_endings_of_images(folder):
    smooth(30, 40).save(folder / 'JPEGImages/img0.PNG')
    (folder / 'JPEGImages/img0.jpg').unlink()
    (folder / 'JPEGImages/img1.jpg').rename(folder / 'JPEGImages/img1.JPEG')
    dataset = voc_layout(data_dir=str(folder))
    dataset.verify()
    assert dataset.load(tf.constant(0, tf.int64))['image'].shape == (30, 40, 3)


def test_two_images_of_one_name_are_reported(folder):
    Image.new('RGB', (40, 30)).save(folder / 'JPEGImages/img0.png')
    dataset = voc_layout(data_dir=str(folder))
    (found,) = [finding for finding in dataset.findings(False) if finding.kind == 'several_files_of_a_name']
    assert found.severity == 'warn' and list(found.images) == ['img0']
    assert 'img0.jpg, which is read, and' in found.text and dataset.image_path(0).endswith('img0.jpg')


def test_missing_folder(tmp_path):
    message = refused(r'voc_layout.data_dir = .*nowhere.*There is no such folder', data_dir=tmp_path / 'nowhere')
    assert 'JPEGImages, SegmentationClass, ImageSets/Segmentation' in message and 'DATA_DIR' in message
    refused('It is empty', data_dir=tmp_path)
    (tmp_path / 'images').mkdir()
    (tmp_path / 'masks').mkdir()
    refused("It holds 'images', 'masks'", data_dir=tmp_path)
    refused("voc_layout.data_dir = ''", data_dir='')


def test_union_of_splits_has_every_image_once(folder):
    (folder / 'ImageSets/Segmentation/last.txt').write_text('img4\nimg2\n')
    dataset = voc_layout(data_dir=str(folder), split='val+last')
    assert [dataset.image_name(i) for i in range(dataset.info.num_examples)] == ['img1', 'img4', 'img2']
    assert dataset.info.name == 'voc_layout/val+last'
    refused(r"split = 'val\+test': there is no .*test\.txt", data_dir=folder, split='val+test')


def test_missing_and_empty_split(folder):
    refused(
        r"voc_layout.split = 'test': there is no .*test\.txt.*lists 'train', 'val'\.", data_dir=folder, split='test'
    )
    (folder / 'ImageSets/Segmentation/none.txt').write_text('\n \n')
    refused(r"voc_layout.split = 'none': .*none\.txt is empty", data_dir=folder, split='none')


def test_listed_without_image_or_label(folder):
    stems = [f'gone{n}' for n in range(7)]
    with (folder / 'ImageSets/Segmentation/train.txt').open('a') as file:
        file.write('\n'.join(stems))
    message = refused(r'7 of 12 listed names have no image in .*JPEGImages: .gone0\.jpg', data_dir=folder)
    assert "'gone4.jpg', …" in message and 'gone5' not in message and 'train.txt' in message
    for stem in stems:
        smooth(8, 8).save(folder / f'JPEGImages/{stem}.jpg')
    smooth(8, 8).save(folder / 'SegmentationClass/gone0.bmp')
    refused(r'7 of 12 .* no label .*gone0\.png.*There is gone0\.bmp, but a label must end in \.png', data_dir=folder)


@pytest.mark.parametrize('line', ['img0.jpg', 'img0  1', '/JPEGImages/img0.jpg /SegmentationClass/img0.png'])
def test_names_listed_with_more_than_the_name(folder, line):
    """With the ending, with the flags of VOC's lists of classes, or in pairs of paths."""
    (folder / 'ImageSets/Segmentation/train.txt').write_text(f'{line}\n')
    assert f"'img0', not '{line}'" in refused('without folder, ending', data_dir=folder)


def test_names_in_folders(folder):
    for name, ending in (('JPEGImages', 'jpg'), ('SegmentationClass', 'png')):
        (folder / name / 'aachen').mkdir()
        (folder / name / f'img1.{ending}').rename(folder / name / f'aachen/img1.{ending}')
    (folder / 'ImageSets/Segmentation/train.txt').write_text('img0\naachen/img1\n')
    dataset = voc_layout(data_dir=str(folder))
    dataset.verify()
    assert dataset.image_name(1) == 'aachen/img1'
    assert dataset.load(tf.constant(1, tf.int64))['label'].shape == (31, 42)
    (folder / 'ImageSets/Segmentation/train.txt').write_text(f'../{folder.name}/JPEGImages/img0\n')
    refused('have no image', data_dir=folder)


@pytest.mark.parametrize('name', ['class_names.txt', 'ImageSets/Segmentation/train.txt'])
def test_a_fifo_in_place_of_a_text_file(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(f"{name}' is a FIFO", data_dir=folder)


@pytest.mark.parametrize('name', ['JPEGImages/img2.jpg', 'SegmentationClass/img2.png'])
def test_a_fifo_or_a_device_among_the_images(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(f'{name}: .* a FIFO', data_dir=folder)
    (folder / name).unlink()
    (folder / name).symlink_to('/dev/zero')
    refused(f'{name}: .* a device', data_dir=folder)


def test_lists_of_any_bytes(folder):
    """Each ends in a data set or in one message."""
    random = np.random.default_rng(0)
    for name in ('class_names.txt', 'ImageSets/Segmentation/train.txt'):
        sound = (folder / name).read_bytes()
        for _ in range(150):
            content = bytearray(sound)
            for place in random.integers(0, len(content), random.integers(1, 9)):
                content[place] = random.choice([*b'\0\n\r/. ', 0x85, 0xED, 0xFF, random.integers(0, 256)])
            (folder / name).write_bytes(content)
            try:
                assert voc_layout(data_dir=str(folder)).info.num_examples
            except UserError as error:
                assert len(str(error)) < 8100
        (folder / name).write_bytes(sound)


def test_stray_names_that_are_not_utf8(folder):
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (folder / os.fsdecode(name.encode() + b'/caf\xe9.txt')).touch()
    voc_layout(data_dir=str(folder)).verify()
    refused("lists 'train', 'val'", data_dir=folder, split='test')


def test_truncated_and_damaged_files_are_found(folder):
    image, label = folder / 'JPEGImages/img1.jpg', folder / 'SegmentationClass/img2.png'
    image.write_bytes(image.read_bytes()[:-20])
    contents = bytearray(label.read_bytes())
    contents[-30] ^= 255
    label.write_bytes(contents)
    message = refused('2 of 5 examples cannot be used', data_dir=folder)
    assert re.search(r'img1\.jpg: the file is truncated or damaged', message)
    assert re.search(r'img2\.png: the file is truncated or damaged', message)
    # The headers are undamaged, so that without decoding nothing is found; the graph raises.
    unchecked = voc_layout(data_dir=str(folder), verify=False)
    unchecked.verify()
    examples = tf.data.Dataset.range(5).map(unchecked.load).ignore_errors().as_numpy_iterator()
    assert [example['image'].shape[0] for example in examples] == [30, 33, 34]
    image.write_bytes(b'')
    refused(r'img1\.jpg: not a readable image: the file is empty', data_dir=folder, verify=False)


def test_at_most_five_offenders_are_named(folder):
    stems = [f'more{n}' for n in range(8)]
    for stem in stems:
        (folder / f'JPEGImages/{stem}.jpg').write_bytes(b'GIF89a')
        save_label(folder / f'SegmentationClass/{stem}.png', np.zeros([4, 4]))
    (folder / 'ImageSets/Segmentation/train.txt').write_text('\n'.join(stems))
    message = refused(r'8 of 8 examples.*\n.*more0\.jpg.* JPEG or PNG file: it is a GIF', data_dir=folder)
    assert 'more4.jpg' in message and 'more5.jpg' not in message and '… and 3 more.' in message


@pytest.mark.parametrize('verify', [True, False])
def test_label_of_another_size(folder, verify):
    save_label(folder / 'SegmentationClass/img0.png', np.zeros([40, 30]))
    message = refused(r'img0\.png: the label is 30x40 pixels, .*img0\.jpg is 40x30', data_dir=folder, verify=verify)
    assert 'EXIF' not in message
    turned = Image.Exif()
    turned[0x0112] = 6
    smooth(30, 40).save(folder / 'JPEGImages/img0.jpg', exif=turned)
    refused(r'EXIF orientation 6.*auto-orient', data_dir=folder, verify=verify)
    save_label(folder / 'SegmentationClass/img0.png', np.zeros([30, 40]))
    voc_layout(data_dir=str(folder), verify=verify).verify()


def test_label_values_out_of_range(folder):
    label = np.zeros([31, 42])
    label[0, :7], label[1, :3] = 3, 200
    save_label(folder / 'SegmentationClass/img1.png', label)
    message = refused(r'img1\.png: label values out of range: 3 \(7 pixels\), 200 \(3 pixels\)\.', data_dir=folder)
    assert re.search(r'Classes are 0\.\.2 from .*class_names\.txt; 255 is ignored', message)
    with pytest.raises(UserError, match='out of range'):
        voc_layout(data_dir=str(folder), verify=False).class_histogram()


def test_remedies_for_labels_out_of_range(folder):
    for n in range(5):
        save_label(
            folder / f'SegmentationClass/img{n}.png', np.random.default_rng(n).integers(1, 4, [30 + n, 40 + 2 * n])
        )
    refused(r'(?s)img1\.png.*start at 1: subtract 1', data_dir=folder)
    (folder / 'class_names.txt').write_text('ground\ncell\n')
    for n in range(5):
        save_label(folder / f'SegmentationClass/img{n}.png', np.eye(30 + n, 40 + 2 * n) * 128)
    refused(r"(?s)128 \(30 pixels\).*If 128 marks 'cell', write 1 instead", data_dir=folder)
    (folder / 'class_names.txt').unlink()
    refused(r'Classes are 0\.\.20 from PASCAL VOC, because there is no .*class_names\.txt', data_dir=folder)


def test_a_remedy_keeps_the_classes_apart(folder):
    """Two classes numbered 1 and 2: written as 1, number 2 would be one with the background."""
    (folder / 'class_names.txt').write_text('ground\ncell\n')
    for n in range(5):
        save_label(folder / f'SegmentationClass/img{n}.png', 1 + np.eye(30 + n, 40 + 2 * n))
    assert 'write 1' not in refused(r'(?s)2 \(30 pixels\).*subtract 1', data_dir=folder)
    save_label(folder / 'SegmentationClass/img0.png', np.eye(30, 40))
    message = refused(r'2 \(31 pixels\)', data_dir=folder)
    assert 'write 1' not in message and 'subtract' not in message


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ((0, 0), 'all labels hold 0 only'),
        ((2, 2), 'all labels hold 2 only'),
        ((255, 255), "all labels hold 255 only.*such as 0 for 'sky'"),
        ((0, 255), "all labels hold 0 and 255 only.*255 is ignored.*such as 1 for 'road'"),
        ((1, 255), "all labels hold 1 and 255 only.*such as 0 for 'sky'"),
    ],
)
def test_labels_of_one_class(folder, values, message):
    for n in range(5):
        save_label(folder / f'SegmentationClass/img{n}.png', np.where(np.eye(30 + n, 40 + 2 * n), *values))
    refused(message, data_dir=folder)


def test_one_class_name(folder):
    (folder / 'class_names.txt').write_text('instance\n')
    refused(r"class_names\.txt names 'instance' only.*background", data_dir=folder)


def test_hints(folder, caplog):
    """Suspicious data that are reported: a mask of 0 and 255 among labels, missing class names, dark images."""
    save_label(folder / 'SegmentationClass/img2.png', np.eye(32, 44) * 255)
    (folder / 'class_names.txt').unlink()
    Image.fromarray(np.full([30, 40], 4095, np.uint16)).save(folder / 'JPEGImages/img0.png')
    (folder / 'JPEGImages/img0.jpg').unlink()
    with caplog.at_level('WARNING'):
        voc_layout(data_dir=str(folder)).verify()
    mask, names, dark = (record.getMessage() for record in caplog.records)
    assert "2 of 5 labels hold 0 and 255 only, such as 'img0', 'img2'" in mask
    assert 'class_names.txt, so the classes are the 21 of PASCAL VOC' in names and '3, 4, 5, 6, 7, …' in names
    assert "1 of 5 images are nearly black, such as 'img0'" in dark


def test_labels_that_are_not_ids(folder):
    path = folder / 'SegmentationClass/img0.png'
    smooth(30, 40).save(path)
    refused(r'img0\.png: the label is a PNG of type RGB.*Expected greyscale or palette', data_dir=folder)
    stream = io.BytesIO()
    smooth(30, 40).save(stream, 'JPEG')
    path.write_bytes(stream.getvalue())
    refused(r'img0\.png: the label is a JPEG file, which blurs ids', data_dir=folder)


@pytest.mark.parametrize(
    ('contents', 'message'),
    [
        (b'', r'class_names\.txt is empty'),
        (b'sky\n\ncar', r'class_names\.txt has an empty line 2'),
        (b'sky\ncar\nsky', r"class_names\.txt names 'sky' twice"),
        ('\n'.join(map(str, range(256))).encode(), r'class_names\.txt has 256 names; the id 255 means ignored'),
        (b'sky\nl\xe4ke', r'class_names\.txt: expected a text file in UTF-8; byte 5'),
    ],
)
def test_broken_class_names(folder, contents, message):
    (folder / 'class_names.txt').write_bytes(contents)
    refused(message, data_dir=folder)


def test_kinds_of_labels(folder):
    refused("target 'panoptic'", data_dir=folder, target='panoptic')


def test_classes_are_merged_reordered_and_ignored(folder):
    settings = {'data_dir': str(folder), 'merge': {'car': 'road'}, 'classes': ['road', 'sky']}
    dataset = voc_layout(**settings)
    dataset.verify()
    info = dataset.info
    sky, road, _ = class_palette(NAMES)
    assert (info.class_names, info.original_ids, info.colors) == (('road', 'sky'), (1, 0), (road, sky))
    stored = np.array(Image.open(folder / 'SegmentationClass/img2.png'))
    expected = np.array([1, 0, 0] + [9] * 252 + [255])[stored]
    np.testing.assert_array_equal(dataset.load(tf.constant(2, tf.int64))['label'], expected)
    labels = [np.array(Image.open(folder / f'SegmentationClass/img{n}.png')) for n in range(5)]
    road = sum(((label == 1) | (label == 2)).sum() for label in labels)
    assert dataset.class_histogram().pixels.tolist() == [road, sum((label == 0).sum() for label in labels)]
    void = voc_layout(data_dir=str(folder), void=['car'], ignore_values=(255, 0))
    np.testing.assert_array_equal(
        void.load(tf.constant(2, tf.int64))['label'], np.array([255, 1, 255] + [9] * 252 + [255])[stored]
    )
    refused("voc_layout.merge.'cra'", data_dir=folder, merge={'cra': 'road'})
    refused(r'ignore_values = 255', data_dir=folder, ignore_values=255)


def test_orientation_is_applied_on_request(folder):
    turned = Image.Exif()
    turned[0x0112] = 6
    smooth(30, 40).save(folder / 'JPEGImages/img0.jpg', exif=turned)
    save_label(folder / 'SegmentationClass/img0.png', np.eye(40, 30))
    refused("set datasets.voc_layout.orientation = 'apply'", data_dir=folder)
    dataset = voc_layout(data_dir=str(folder), orientation='apply')
    dataset.verify()
    assert dataset.load(tf.constant(0, tf.int64))['image'].shape == (40, 30, 3) and dataset.info.max_size == (40, 48)
    save_label(folder / 'SegmentationClass/img0.png', np.eye(30, 40))
    refused("set datasets.voc_layout.orientation = 'ignore'", data_dir=folder, orientation='apply')
    refused("voc_layout.orientation = 'yes'", data_dir=folder, orientation='yes')
