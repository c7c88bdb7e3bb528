"""TFRecord files of other frameworks: their keys, classes, index and faults."""

import gzip
import os
import struct
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seg.datasets import contract, findings, layouts
from seg.datasets.records import tfrecord_entries as entries
from seg.datasets.tfrecord import tfrecord
from seg.errors import UserError
from seg.known_classes import VOC_CLASS_NAMES
from tests.datasets.coco_files import decoded
from tests.datasets.records import written

SIZE = (30, 40)
PIXELS = np.random.default_rng(0).integers(0, 256, [*SIZE, 3], dtype=np.uint8)
IMAGE = written.png(PIXELS)
LABEL = (np.arange(1200).reshape(SIZE) % 3).astype(np.uint8)
LABEL[0] = 255


def square(y, x, side=10):
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return {'box': (y, x, y + side, x + side), 'mask': mask, 'label': 18}


TWO = (square(3, 5), square(12, 20) | {'label': 44, 'crowd': True})


def objects_record(id=7, objects=TWO, **more):
    return written.coco(IMAGE, SIZE, id, f'{id:012}.jpg', list(objects), **more)


def label_record(name='a', label=LABEL, **more):
    return written.semantic(IMAGE, written.png(label), name, **more)


def read(folder, records, target, name='train-00000-of-00001', **settings):
    """The data set of one file."""
    written.write(folder / name, records)
    return tfrecord(data_dir=str(folder), target=target, **settings)


def refused(message, folder, records, target, **settings):
    with pytest.raises(UserError, match=message) as caught:
        read(folder, records, target, **settings).verify()
    assert str(caught.value).count('Traceback') == 0
    return str(caught.value)


def loaded(dataset, index=0):
    example = dataset.load(tf.constant(index, tf.int64))
    contract.check(example, dataset.info, 'x', 'label_map' if 'label' in example else 'instances')
    return example


def old(path):
    """Makes a file old enough to be cached."""
    os.utime(path, ns=(0, time.time_ns() - 60 * 10**9))


# ---- Instances -------------------------------------------------------------------------------------------------------


def test_keys_of_the_cloud_tpu_tools(tmp_path):
    dataset = read(
        tmp_path, [objects_record(), objects_record(8, ())], 'instances', class_names=('a', 'b'), values=(18, 44)
    )
    dataset.verify()
    example = loaded(dataset)
    np.testing.assert_array_equal(example['image'], PIXELS)
    np.testing.assert_array_equal(example['boxes'], [[3, 5, 13, 15], [12, 20, 22, 30]])
    assert example['classes'].numpy().tolist() == [0, 1] and example['is_crowd'].numpy().tolist() == [False, True]
    np.testing.assert_array_equal(decoded(dataset.annotations(0).masks[1]), square(12, 20)['mask'])
    assert loaded(dataset, 1)['boxes'].shape == (0, 4)
    assert [dataset.image_id(n) for n in range(2)] == [7, 8] and dataset.image_name(1) == '000000000008'
    assert dataset.info.original_ids == (18, 44) and dataset.info.max_size == SIZE
    assert dataset.image_path(0) is None


def test_optional_keys(tmp_path):
    """Model Garden's defaults: no stated size, areas or crowds; masks of 0 and 255."""
    soft = np.where(square(3, 5)['mask'], 200, 100).astype(np.uint8)
    record = objects_record(
        objects=[square(3, 5)],
        image__height=[-1],
        image__width=None,
        image__object__area=None,
        image__object__is_crowd=None,
        image__source_id=None,
        image__object__mask=[written.png(soft)],
    )
    dataset = read(tmp_path, [record], 'instances', mask_threshold=127)
    example = loaded(dataset)
    assert example['area'].numpy() == [100] and not example['is_crowd'].numpy().any() and dataset.image_id(0) == 1
    np.testing.assert_array_equal(example['boxes'], [[3, 5, 13, 15]])


def test_boxes_are_those_of_coco(tmp_path):
    """Fractions in float32 give back numbers of two decimals."""
    boxes = np.round(np.random.default_rng(1).uniform([0, 0, 15, 20], [14, 19, 30, 40], [50, 4]), 2)
    whole = np.ones(SIZE, bool)
    record = objects_record(objects=[{'box': box, 'mask': whole, 'label': 1} for box in boxes])
    np.testing.assert_array_equal(loaded(read(tmp_path, [record], 'instances'))['boxes'], boxes.astype(np.float32))


def test_label_maps_of_instances(tmp_path):
    label = loaded(read(tmp_path, [objects_record()], 'label_map'))['label'].numpy()
    assert sorted(np.unique(label)) == [0, 1, 255] and (label == 1).sum() == 100


def test_classes_of_instances(tmp_path):
    def names(*records, **settings):
        dataset = read(tmp_path, records, 'instances', **settings)
        return dataset.info.class_names, dataset.info.original_ids

    assert names(objects_record()) == (('class 18', 'class 44'), (18, 44))
    text = {'image__object__class__text': [b'dog', b'bottle']}
    coco, ids = names(objects_record(**text))
    assert len(coco) == 80 and coco[16] == 'dog' and ids[:12] == (*range(1, 12), 13) and ids[-1] == 90
    assert names(objects_record(objects=[square(3, 5) | {'label': 90}]))[0] == coco
    text = {'image__object__class__text': [b'wolf', b'bottle']}
    assert names(objects_record(**text)) == (('wolf', 'bottle'), (18, 44))
    chosen = {'class_names': ('x', 'y', 'z'), 'values': (44, 18, 3)}
    assert names(objects_record(), **chosen) == (('x', 'y', 'z'), (44, 18, 3))
    (tmp_path / 'class_names.txt').write_text('\n'.join(f'n{n}' for n in range(1, 51)))
    assert names(objects_record())[0][17] == 'n18'
    refused(
        r'ids without a name: 18 \(1 instances\), 44', tmp_path, [objects_record()], 'instances', class_names=('a',)
    )
    wrong = {'class_names': ('a',), 'values': (18, 44)}
    refused('values = .* 2 values for 1 classes', tmp_path, [objects_record()], 'instances', **wrong)


def test_names_that_are_not_unique(tmp_path):
    one, other = ({'image__object__class__text': [name, b'x']} for name in (b'dog', b'cat'))
    refused('record 1 .*class 18', tmp_path, [objects_record(**one), objects_record(**other)], 'instances')
    same = {'image__object__class__text': [b'x', b'x']}
    refused("18, 44 have the same name 'x'", tmp_path, [objects_record(**same)], 'instances')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'image__object__mask': None}, r'2 boxes and no .*include_masks'),
        ({'image__object__mask': [written.png(LABEL)]}, r"mask' has 1 values, .* has 2"),
        ({'image__object__area': [1.0]}, r"area' has 1 values, .* has 2"),
        ({'image__object__mask': [written.png(LABEL[1:])] * 2}, '40x29 pixels, the image 40x30'),
        ({'image__object__mask': [IMAGE[:90]] * 2}, 'value 0 of .* not a readable mask'),
        ({'image__object__mask': [IMAGE] * 2}, '3 channels'),
        ({'image__encoded': [b'GIF89a']}, 'no readable image: .*GIF'),
        ({'image__encoded': None}, 'has 0 values'),
        ({'image__height': [31]}, r'40x30 pixels \(width x height\), but 40x31|40x30 pixels, the image 40x31'),
    ],
)
def test_records_that_cannot_be_used(tmp_path, changes, message):
    text = refused(message, tmp_path, [objects_record(), objects_record(9, **changes)], 'instances')
    assert 'train-00000-of-00001: record 1, at byte' in text and '000000000009' in text


def test_damaged_image_is_a_finding(tmp_path):
    damaged = objects_record(9, image__encoded=[IMAGE[:-900]])
    (found,) = [
        f for f in findings.of(read(tmp_path, [objects_record(), damaged], 'instances'), True) if f.severity == 'fix'
    ]
    assert found.kind == 'unreadable' and found.images == ('000000000009',)


# ---- Label maps ------------------------------------------------------------------------------------------------------


def test_keys_of_research_deeplab(tmp_path):
    photo = written.encoded(Image.fromarray(PIXELS), 'JPEG')
    record = written.semantic(photo, written.png(LABEL), 'leftImg8bit/train/a.png', image__source_id=[b'x1'])
    dataset = read(tmp_path, [label_record('b'), record], 'label_map', class_names=('r', 's', 't'))
    dataset.verify()
    assert [dataset.image_name(n) for n in range(2)] == ['b', 'leftImg8bit/train/a']
    np.testing.assert_array_equal(loaded(dataset)['label'], LABEL)
    np.testing.assert_array_equal(loaded(dataset)['image'], PIXELS)
    decode = tf.io.decode_jpeg(photo, dct_method='INTEGER_ACCURATE')
    np.testing.assert_array_equal(loaded(dataset, 1)['image'], decode)
    counts = [int((LABEL == n).sum()) * 2 for n in range(3)]
    assert dataset.class_histogram().pixels.tolist() == counts


def test_classes_of_label_maps(tmp_path):
    assert read(tmp_path, [label_record()], 'label_map').info.class_names == ('class 0', 'class 1', 'class 2')
    assert read(tmp_path, [label_record('2007_000032')], 'label_map').info.class_names == VOC_CLASS_NAMES
    # DeepLab2's and Model Garden's ADE20K: 0 is ignored, the classes begin at 1.
    settings = {'class_names': ('wall', 'sky'), 'values': (1, 2), 'ignore_values': (0, 255)}
    dataset = read(tmp_path, [label_record()], 'label_map', **settings)
    np.testing.assert_array_equal(loaded(dataset)['label'], np.uint8([255, 0, 1])[LABEL % 255])
    assert dataset.info.original_ids == (1, 2)
    refused('label values out of range: 2', tmp_path, [label_record()], 'label_map', class_names=('a', 'b'))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'image__segmentation__class__format': [b'raw']}, 'raw, the panoptic form of DeepLab2'),
        ({'image__segmentation__class__encoded': None}, 'test split'),
        ({'image__segmentation__class__encoded': [IMAGE]}, 'label map is RGB'),
        ({'image__segmentation__class__encoded': [written.png(LABEL[1:])]}, '40x29 pixels, the image .*40x30'),
        ({'image__segmentation__class__encoded': [written.png(LABEL)[:90]]}, 'truncated or damaged'),
    ],
)
def test_label_maps_that_cannot_be_used(tmp_path, changes, message):
    text = refused(message, tmp_path, [label_record(), label_record('bad', **changes)], 'label_map')
    assert 'train-00000-of-00001' in text and 'record 1' in text and 'bad' in text


def test_other_records(tmp_path):
    refused('label maps, and the task learns from instances', tmp_path, [label_record()], 'instances')
    for features, message in (
        ({'image/encoded': [IMAGE], 'image/class/label': [3]}, 'an image without annotations'),
        ({'image/encoded': [IMAGE], 'image/panoptic/category_mask': [IMAGE]}, 'panoptic'),
        ({'image': [IMAGE], 'label': [IMAGE]}, "keys 'image', 'label'"),
    ):
        refused(message, tmp_path, [written.example(features)], 'label_map')
    refused('tf.train.Example', tmp_path, [b'\xff\xff'], 'label_map')
    refused('there is no record', tmp_path, [], 'label_map')


# ---- Files -----------------------------------------------------------------------------------------------------------


def test_files_of_a_split(tmp_path):
    for name in ('train-0', 'train-1', 'trainval-0', 'val-0'):
        written.write(tmp_path / f'{name}000-of-00002.tfrecord', [label_record(name)])
    written.write(tmp_path / 'mine_test.record', [label_record('test')])

    def names(**settings):
        dataset = tfrecord(data_dir=str(tmp_path), **settings)
        return [dataset.image_name(n) for n in range(dataset.info.num_examples)]

    assert names() == ['train-0', 'train-1'] and names(split='test') == ['test']
    assert names(split='val', files='{split}-*, train-1*') == ['train-1', 'val-0']
    with pytest.raises(UserError, match="split = 'x'.*no TFRecord file"):
        names(split='x')
    with pytest.raises(UserError, match=r"files: no file matches '.*y\*'"):
        names(files='y*')


def test_records_of_one_name_or_none(tmp_path):
    records = [label_record(name) for name in ('a.png', 'a.png', '', '../../etc/b.png', '/home/c.jpg')]
    dataset = read(tmp_path, records, 'label_map', name='train-00000-of-00003')
    assert [dataset.image_name(n) for n in range(5)] == ['a', 'a-2', 'train-00000-of-00003/2', 'b', 'c']
    kinds = {found.kind: found for found in findings.of(dataset, full=False)}
    assert kinds['same_names'].images == ('a',) and kinds['missing_files'].count == 2


def test_an_index_is_cached_until_the_file_changes(tmp_path, monkeypatch):
    path = written.write(tmp_path / 'train.tfrecord', [label_record('a'), label_record('b')])
    old(path)
    tfrecord(data_dir=str(tmp_path)).verify()
    looked = []
    original = entries.read
    monkeypatch.setattr(entries, 'read', lambda *given: looked.append(1) or original(*given))
    again = tfrecord(data_dir=str(tmp_path))
    again.verify()
    assert not looked and again.image_name(1) == 'b'
    np.testing.assert_array_equal(loaded(again, 1)['label'], LABEL)
    written.write(path, [label_record('c')])
    assert tfrecord(data_dir=str(tmp_path)).image_name(0) == 'c' and looked == [1]


def test_damaged_files(tmp_path):
    path = written.write(tmp_path / 'train.tfrecord', [label_record(str(n)) for n in range(4)])
    content = path.read_bytes()
    length = struct.unpack('<Q', content[:8])[0] + 16

    def reported(changed):
        path.write_bytes(changed)
        old(path)
        for _ in range(2):  # Faults are not cached.
            dataset = tfrecord(data_dir=str(tmp_path))
            (found,) = [f for f in findings.of(dataset, full=True) if f.severity == 'fix']
            assert found.kind == 'damaged_record' and found.count == 1 and str(path) in found.lines[0]
        with pytest.raises(UserError, match='1 of . records cannot be used'):
            dataset.verify()
        return found.lines[0], [dataset.image_name(n) for n in range(dataset.info.num_examples)]

    text, names = reported(content[:-5])
    assert f'record 3, at byte {3 * length}, is cut off' in text and names == ['0', '1', '2']
    text, names = reported(content[: length + 7])
    assert f'record 1, at byte {length}, is cut off' in text and names == ['0']
    flipped = bytearray(content)
    flipped[length + 100] ^= 1
    text, names = reported(bytes(flipped))
    assert f'record 1, at byte {length}, is damaged' in text and names == ['0', '2', '3']
    flipped = bytearray(content)
    flipped[2 * length + 1] ^= 1
    text, names = reported(bytes(flipped))
    assert f'record 2, at byte {2 * length}, is damaged' in text and names == ['0', '1']
    for changed, message in ((gzip.compress(content), 'compressed by gzip'), (b'\x89PNG' * 9, 'not a TFRecord file')):
        path.write_bytes(changed)
        with pytest.raises(UserError, match=message):
            tfrecord(data_dir=str(tmp_path))


def test_a_record_that_is_damaged_later(tmp_path):
    """Its image has weight 0; the others are read, by several threads."""
    names = [str(n) for n in range(8)]
    path = written.write(tmp_path / 'train.tfrecord', [label_record(n) for n in names])
    dataset = tfrecord(data_dir=str(tmp_path))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    examples = tf.data.Dataset.range(8).map(dataset.load, num_parallel_calls=4)
    assert len(list(examples.ignore_errors())) == 7


def test_layouts(tmp_path):
    for split in ('train', 'val'):
        written.write(tmp_path / 'labels' / f'{split}-00000-of-00001', [label_record()])
        written.write(tmp_path / 'objects' / f'coco_{split}.record', [objects_record()])
    layout, folder = layouts.guess(str(tmp_path / 'labels'))
    assert (layout.reader, layout.recipe) == ('tfrecord', 'gin/deeplab_camvid.gin')
    assert layout.train == {'split': 'train'} and layout.evaluation == {'split': 'val'}
    assert tfrecord(data_dir=folder, **layout.evaluation).info.num_examples == 1
    layout, folder = layouts.guess(str(tmp_path / 'objects'))
    assert layout.recipe == 'gin/maskrcnn_coco.gin' and layout.evaluation == {'split': 'val'}
    (tmp_path / 'labels/val-00000-of-00001').write_bytes(b'x')
    (tmp_path / 'labels/train-00000-of-00001').write_bytes(gzip.compress(b'x'))
    with pytest.raises(UserError, match='gzip'):
        layouts.guess(str(tmp_path / 'labels'))
    assert 'train-00000-of-00001' in layouts.described(str(tmp_path / 'labels'), 'coco')
