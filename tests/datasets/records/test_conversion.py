"""`--mode=convert`: any data set becomes a set of TFDS that gives the same examples."""

import dataclasses
import hashlib
import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_datasets import builder_from_directory

from seg.datasets import layouts
from seg.datasets.base import Dataset, instances
from seg.datasets.coco import coco
from seg.datasets.records import conversion
from seg.datasets.tfds import tfds
from seg.datasets.voc_layout import voc_layout
from seg.errors import UserError
from seg.masks import ragged
from seg.structures import DatasetInfo
from tests.datasets import small
from tests.datasets.coco_files import folder as coco_folder  # noqa: F401  A fixture.


@pytest.fixture(autouse=True)
def _two_examples_in_a_file(monkeypatch):
    monkeypatch.setattr(conversion, 'SHARD', 2)


class ManyClasses(small.LabelMaps):
    """300 classes, and -1 for ignored pixels."""

    def __init__(self):
        super().__init__()
        self.info = DatasetInfo('many/all', tuple(f'class {n}' for n in range(300)), 5, small.SIZE, ignore_label=-1)

    def load(self, index):
        label = tf.reshape(tf.range(48) * 6 + tf.cast(index, tf.int32), small.SIZE)
        return super().load(index) | {'label': tf.where(label % 7 == 0, -1, label)}


class Empty(Dataset):
    """Instances with a box and an area of their own, an empty mask, an image without any, and numbers for ids."""

    info = DatasetInfo('some/train', ('a', 'b'), 3, small.SIZE, original_ids=(7, 90), colors=((1, 2, 3), (4, 5, 6)))

    def load(self, index):
        masks = np.zeros([3, 2, *small.SIZE], bool)
        masks[0, 0, 1:, 2:] = masks[1, 0, :, :] = masks[1, 1, 2, 3] = True
        count = tf.gather([1, 2, 0], index)
        made = instances(ragged.from_dense(tf.constant(masks)[index][:count]), tf.range(count), small.SIZE[0])
        made |= {'boxes': made['boxes'] * 0.7, 'area': made['area'] + 0.3, 'is_crowd': made['classes'] == 1}
        return {'image': tf.fill([*small.SIZE, 3], tf.cast(index * 9, tf.uint8)), **made}

    def image_name(self, index):
        return f'ä/{index}.5'

    def image_id(self, index):
        return 100 - index


@pytest.fixture
def voc(tmp_path):
    """JPEG, JPEG that is turned, grey JPEG, PNG with alpha and palette PNG."""
    root = tmp_path / 'voc'
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (root / name).mkdir(parents=True)
    random, turn = np.random.default_rng(0), Image.Exif()
    turn[0x0112] = 6
    names = ('plain.jpg', 'turned.jpg', 'grey.jpg', 'alpha.png', 'palette.png')
    for name in names:
        image = Image.fromarray(random.integers(0, 256, [24, 32, 3], np.uint8))
        mode = {'grey.jpg': 'L', 'alpha.png': 'RGBA', 'palette.png': 'P'}.get(name, 'RGB')
        more = {'exif': turn} if name == 'turned.jpg' else {}
        image.convert(mode).save(root / 'JPEGImages' / name, **more)
        size = (32, 24) if name == 'turned.jpg' else (24, 32)
        label = Image.fromarray(random.choice(np.uint8([0, 1, 2, 255]), size))
        label.save(root / 'SegmentationClass' / f'{name.partition(".")[0]}.png')
    (root / 'ImageSets/Segmentation/train.txt').write_text(''.join(f'{name.partition(".")[0]}\n' for name in names))
    (root / 'class_names.txt').write_text('ground\ntree\nlake\n')
    return root


def load(dataset, index):
    return {
        key: part.to_list() if isinstance(part, tf.RaggedTensor) else part.numpy()
        for key, part in dataset.load(tf.constant(index, tf.int64)).items()
    }


def check_same(source, folder, target, split):
    """Compares a data set with what `datasets.tfds` reads: examples, names, ids and facts."""
    found = tfds(name=str(folder), split=split, target=target)
    found.verify()
    info = dataclasses.asdict(source.info)
    differ = {'name', 'max_size'} | (set() if source.info.colors else {'colors'})
    assert {k: v for k, v in dataclasses.asdict(found.info).items() if k not in differ} == {
        key: value for key, value in info.items() if key not in differ
    }
    sides = []
    for index in range(source.info.num_examples):
        one, other = load(source, index), load(found, index)
        assert one.keys() == other.keys()
        for key, value in one.items():
            if key == 'masks':
                assert value == other[key]
                continue
            np.testing.assert_array_equal(value, other[key], err_msg=f'{index} {key}')
            assert value.dtype == other[key].dtype
        assert found.image_name(index) == source.image_name(index)
        assert found.image_id(index) == source.image_id(index)
        sides.append(one['image'].shape[:2])
        if target == 'instances':
            one, other = source.annotations(index), found.annotations(index)
            assert all(np.array_equal(a, b) for a, b in zip(one[:6], other[:6], strict=True))
            assert one.masks == other.masks
    assert found.info.max_size == tuple(np.max(sides, axis=0))
    for one, other in zip(source.class_histogram(), found.class_histogram(), strict=True):
        np.testing.assert_allclose(one, other, atol=1)
    return found


def convert(data, target, folder):
    data = {'experiment.train_data': data} if isinstance(data, Dataset) else data
    return conversion.convert(conversion.plan(data, target), str(folder))


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pathlib.Path(folder).iterdir()}


def test_label_maps_in_files(voc, tmp_path):
    source = voc_layout(data_dir=str(voc), orientation='apply')
    result = convert(source, 'label_map', tmp_path / 'out')
    assert (result['examples'], result['files'], result['kept']) == ({'train': 5}, 3, 0)
    check_same(source, tmp_path / 'out', 'label_map', 'train')
    read = builder_from_directory(str(tmp_path / 'out')).as_data_source(split='train')  # By TFDS itself.
    assert len(read) == 5
    for index, example in enumerate(read):
        one = load(source, index)
        assert example['image_name'].decode() == source.image_name(index)
        assert example['image'].shape == one['image'].shape  # Its decoder has slightly other values for JPEG.
        assert np.abs(example['image'] - one['image'].astype(int)).max() <= 4
        np.testing.assert_array_equal(example['label'][..., 0], one['label'])
    raw = tf.train.Example.FromString(read.data_source[0]).features.feature
    assert raw['image'].bytes_list.value[0] == (voc / 'JPEGImages/plain.jpg').read_bytes()
    for place in range(1, 5):  # Turned by EXIF, or of another number of channels.
        raw = tf.train.Example.FromString(read.data_source[place]).features.feature
        assert raw['image'].bytes_list.value[0].startswith(b'\x89PNG')


@pytest.mark.parametrize('target', ['instances', 'label_map'])
def test_coco(coco_folder, tmp_path, target):  # noqa: F811
    source = coco(data_dir=str(coco_folder), target=target)
    convert(source, target, tmp_path / 'out')
    found = check_same(source, tmp_path / 'out', target, 'train')
    assert found.image_id(0) == 100


def test_label_maps_of_instances(coco_folder, tmp_path):  # noqa: F811
    """Instances that were converted give label maps as well, those of the reader of the files."""
    convert(coco(data_dir=str(coco_folder), void=('bee',)), 'instances', tmp_path / 'out')
    source = coco(data_dir=str(coco_folder), target='label_map', void=('bee',))
    found = tfds(name=str(tmp_path / 'out'), target='label_map')
    assert found.info.class_names == source.info.class_names
    for index in range(3):
        # A void instance was converted as one crowd of each class.
        np.testing.assert_array_equal(load(found, index)['label'], load(source, index)['label'])


def test_300_classes_and_a_negative_ignore_label(tmp_path):
    convert(ManyClasses(), 'label_map', tmp_path / 'out')
    found = check_same(ManyClasses(), tmp_path / 'out', 'label_map', 'all_split')
    assert found.info.ignore_label == -1


def test_instances_with_boxes_and_areas_of_their_own(tmp_path):
    convert(Empty(), 'instances', tmp_path / 'out')
    check_same(Empty(), tmp_path / 'out', 'instances', 'train')


def test_a_converted_set_is_converted_again_to_the_same_records(tmp_path):
    convert(Empty(), 'instances', tmp_path / 'one')
    convert(tfds(name=str(tmp_path / 'one'), target='instances'), 'instances', tmp_path / 'two')
    one, two = hashes(tmp_path / 'one'), hashes(tmp_path / 'two')
    names = [name for name in one if 'array_record' in name]
    assert len(names) == 2 and all(one[name] == two[name] for name in names)


def test_an_interrupted_conversion_continues_to_the_same_bytes(tmp_path, monkeypatch):
    source = {'experiment.train_data': small.LabelMaps(), 'experiment.eval_data': Other()}
    convert(source, 'label_map', tmp_path / 'whole')
    record, made = conversion.Encoder.record, []

    def interrupted(self, index):
        made.append(index)
        if len(made) == 8:
            raise KeyboardInterrupt
        return record(self, index)

    monkeypatch.setattr(conversion.Encoder, 'record', interrupted)
    folder = tmp_path / 'out'
    with pytest.raises(KeyboardInterrupt):
        convert(source, 'label_map', folder)
    assert not (folder / 'dataset_info.json').exists()
    finished = sorted(path.name for path in folder.glob('*array_record*'))
    assert finished and not any('tmp' in name for name in finished)
    (folder / 'mine-train.array_record-00009-of-00003.tmp-999999999').write_text('of a killed process')
    times = {name: os.stat(folder / name).st_mtime_ns for name in finished}
    result = convert(source, 'label_map', folder)
    assert result['kept'] == len(finished)
    assert hashes(folder) == hashes(tmp_path / 'whole')
    assert all(os.stat(folder / name).st_mtime_ns == times[name] for name in finished)
    # A file that was damaged in between is written again.
    path = folder / finished[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert convert(source, 'label_map', folder)['kept'] == 5
    assert hashes(folder) == hashes(tmp_path / 'whole')


class Other(small.LabelMaps):
    def __init__(self):
        super().__init__()
        self.info = dataclasses.replace(self.info, name='mine/val')


def test_manifest(tmp_path):
    convert(small.LabelMaps(), 'label_map', tmp_path / 'out')
    manifest = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
    assert manifest['splits']['train']['examples'] == 5 and manifest['splits']['train']['source'] == 'mine/train'
    assert [each['examples'] for each in manifest['files'].values()] == [1, 2, 2]
    for name, facts in manifest['files'].items():
        assert facts['sha256'] == hashes(tmp_path / 'out')[name]


def test_a_converted_set_is_recognised(tmp_path):
    convert(small.LabelMaps(), 'label_map', tmp_path / 'labels/1.0.0')
    convert(small.Instances(), 'instances', tmp_path / 'objects')
    layout, folder = layouts.guess(str(tmp_path / 'labels'))
    assert (layout.reader, layout.recipe) == ('tfds', 'gin/deeplab_camvid.gin')
    assert folder == str(tmp_path / 'labels/1.0.0') and layout.train == layout.evaluation == {'split': 'train'}
    assert 'datasets.tfds.name = %DATA_DIR' in layout.bindings(folder)
    assert layouts.guess(str(tmp_path / 'objects'))[0].recipe == 'gin/maskrcnn_coco.gin'
    assert '@datasets.tfds' in layouts.described(str(tmp_path / 'labels'), 'folders')


def test_other_content_is_never_replaced(tmp_path):
    folder = tmp_path / 'out'
    folder.mkdir()
    (folder / 'mine.txt').write_text('mine')
    with pytest.raises(UserError, match=r'--output=.*holds "?\'?mine.txt'):
        convert(small.LabelMaps(), 'label_map', folder)
    (folder / 'mine.txt').unlink()
    convert(small.LabelMaps(), 'label_map', folder)
    with pytest.raises(UserError, match='conversion of other data: train .5 examples.'):
        convert(small.Instances(), 'instances', folder)


def test_two_data_sets_of_one_split(tmp_path):
    same = {'experiment.train_data': small.LabelMaps(), 'experiment.eval_data': small.LabelMaps()}
    assert convert(same, 'label_map', tmp_path / 'out')['examples'] == {'train': 5}
    different = small.LabelMaps()
    different.info = dataclasses.replace(different.info, num_examples=3)
    with pytest.raises(UserError, match=r'experiment.eval_data: mine/train and .* same split .train.'):
        conversion.plan(same | {'experiment.eval_data': different}, 'label_map')


def test_wrong_examples(tmp_path):
    wrong = small.LabelMaps(label=tf.fill(small.SIZE, 2))
    with pytest.raises(UserError, match='image 0.*label holds 2'):
        convert(wrong, 'label_map', tmp_path / 'out')
    endless = small.LabelMaps()
    endless.info = dataclasses.replace(endless.info, num_examples=None)
    with pytest.raises(UserError, match='experiment.train_data: mine/train.*number of examples'):
        conversion.plan({'experiment.train_data': endless}, 'label_map')
