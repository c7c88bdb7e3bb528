"""Published sets: downloaded, prepared, and equal to what the readers of folders read from the unpacked files."""

import concurrent.futures
import dataclasses
import hashlib
import json
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf

from seg.datasets import contract
from seg.datasets.builders import archives, camvid11, coco2017, prepare, reading, voc2012
from seg.datasets.coco import coco
from seg.datasets.described import Described
from seg.datasets.tfds import tfds
from seg.datasets.voc_layout import voc_layout
from seg.errors import UserError
from seg.known_classes import CAMVID_CLASS_NAMES
from tests import http_files
from tests.datasets.builders import made

VOC, COCO, CAMVID = 'voc2012_segmentation', 'coco2017_instances', 'camvid11'


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of prepared sets; the addresses of the files refuse connections."""
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'sets'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    serve(monkeypatch, http_files.closed_url())
    free_space(monkeypatch, 10**12)
    return tmp_path / 'sets'


def free_space(monkeypatch, free):
    monkeypatch.setattr(prepare.shutil, 'disk_usage', lambda _: types.SimpleNamespace(free=free))


def serve(monkeypatch, url, checksums=None):
    """Replaces the addresses of all files, and their checksums."""
    for module, key in (
        *((voc2012, key) for key in ('VOC', 'SBD')),
        *((coco2017, key) for key in ('ANNOTATIONS', 'TRAIN', 'VAL')),
        (camvid11, 'ARCHIVE'),
    ):
        file = getattr(module, key)
        checksum = (checksums or {}).get(file.name, file.checksum)
        monkeypatch.setattr(module, key, file._replace(url=f'{url}/{file.name}', checksum=checksum))


def files_of(name, target, split):
    return made.archives(prepare.published(name, target, split).files)


def by_hand(home, name, target='label_map', split='train'):
    """Puts the archives of a set in the folder of downloads, as a user does. Returns their contents by name."""
    contents = files_of(name, target, split)
    made.put(home / 'downloads', contents)
    return contents


def examples(dataset):
    """All examples as numpy values, by names of images."""
    found = {}
    for index in range(dataset.info.num_examples):
        example = dataset.load(tf.constant(index, tf.int64))
        found[dataset.image_name(index)] = {
            key: value.to_list() if isinstance(value, tf.RaggedTensor) else value.numpy()
            for key, value in example.items()
        }
    return found


def same(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].keys() == expected[name].keys()
        for key, value in expected[name].items():
            assert np.array(found[name][key] == value).all(), (name, key)


def refused(action, *arguments, **settings):
    with pytest.raises(UserError) as info:
        action(*arguments, **settings)
    return str(info.value)


def sizes(folder):
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('target', ['label_map', 'instances'])
def test_voc_is_read_as_from_its_folder(home, tmp_path, target):
    by_hand(home, VOC, target)
    made.put(tmp_path / 'unpacked', made.voc_contents())
    for split in made.VOC_NAMES:
        described = voc_layout(data_dir=None, split=split, target=target, download=VOC)
        assert isinstance(described, Described) and described.info.num_examples == 1
        found, expected = (
            described.fetch(),
            voc_layout(data_dir=tmp_path / 'unpacked/VOCdevkit', split=split, target=target),
        )
        contract.verify(found, target, 'experiment.train_data')
        same(examples(found), examples(expected))
        assert found.info == dataclasses.replace(expected.info, name=f'{VOC}/{split}')
    both = voc_layout(data_dir=None, split='trainval', target=target, download=VOC).fetch()
    assert both.info.num_examples == 3
    # Images are the files themselves; labels are ids in any reader of TFDS.
    facts = json.loads((home / VOC / target / '1.0.0/metadata.json').read_text())
    assert facts['archives'] == {
        voc2012.VOC.name: 'sha256:' + hashlib.sha256(made.archives([voc2012.VOC])[voc2012.VOC.name]).hexdigest()
    }


@pytest.mark.parametrize('target', ['label_map', 'instances'])
def test_train_aug_has_the_annotations_of_sbd(home, target):
    by_hand(home, VOC, target, 'train_aug')
    found = examples(voc_layout(data_dir=None, split='train_aug', target=target, download=VOC).fetch())
    added = ['2008_000001', '2008_000002']  # Neither in VOC's train nor in its val, by name.
    assert list(found) == [*made.VOC_NAMES['train'], *added]
    by_voc = examples(voc_layout(data_dir=None, split='train', target=target, download=VOC).fetch())
    same({name: found[name] for name in by_voc}, by_voc)
    for name in added:
        label, objects = made.maps(name)
        if target == 'label_map':
            assert np.array_equal(found[name]['label'], label)
        else:
            assert found[name]['boxes'].tolist() == [[5, 4, 20, 19], [15, 25, 38, 47]]
            assert found[name]['classes'].tolist() == [label[10, 10] - 1, label[30, 30] - 1]


@pytest.mark.parametrize('target', ['label_map', 'instances'])
def test_coco_is_read_as_from_its_folder(home, tmp_path, target):
    by_hand(home, COCO, 'instances', 'train2017')
    contents = made.coco_json() | made.coco_contents('train2017') | made.coco_contents('val2017')
    made.put(tmp_path / 'unpacked', contents)
    for split in coco2017.SPLITS:
        found = coco(data_dir=None, split=split, target=target, download=COCO).fetch()
        expected = coco(data_dir=tmp_path / 'unpacked', split=split, target=target)
        contract.verify(found, target, 'experiment.train_data')
        same(examples(found), examples(expected))
        assert found.info == dataclasses.replace(expected.info, name=f'{COCO}/{split}')
        assert [found.image_id(n) for n in range(3)] == [100, 101, 102]
        if target == 'instances':
            assert examples(found)['000000000002']['is_crowd'].tolist() == [False, True]


def test_camvid_by_its_name(home):
    by_hand(home, CAMVID)
    found = tfds(name=CAMVID, split='train').fetch()
    assert found.info.class_names == CAMVID_CLASS_NAMES and found.info.num_examples == 2
    for name, example in examples(found).items():
        expected = made.maps(f'{name}.png')[0].astype(int) % 11
        expected[0] = 255
        assert np.array_equal(example['label'], expected)
    assert tfds(name=CAMVID, split='val+test').info.num_examples == 2
    by_layout = voc_layout(data_dir=None, split='train', download=CAMVID).fetch()
    same(examples(by_layout), examples(found))


def test_tensorflow_datasets_reads_it(home):
    import tensorflow_datasets

    by_hand(home, VOC)
    folder = prepare.prepared('slot', voc2012.published('label_map'))
    source = tensorflow_datasets.builder_from_directory(folder).as_data_source(split='train')
    assert [example['image_name'].decode() for example in source] == made.VOC_NAMES['train']
    label = made.maps(made.VOC_NAMES['train'][0])[0]
    stored = source[0]['label'][..., 0]
    assert set(np.unique(stored)) == {*np.unique(label), 255} and np.array_equal(stored[10:15], label[10:15])


def test_settings_of_classes(home):
    by_hand(home, COCO, 'instances', 'train2017')
    found = coco(data_dir=None, split='train2017', download=COCO, classes=('zebra', 'ant'), void=('bee',)).fetch()
    assert found.info.class_names == ('zebra', 'ant') and found.info.original_ids == (90, 7)


# ---- Downloads -------------------------------------------------------------------------------------------------------


def test_downloaded_once_and_checked(home, monkeypatch):
    contents = files_of(VOC, 'label_map', 'train_aug')
    checksums = {name: 'md5:' + hashlib.md5(content).hexdigest() for name, content in contents.items()}
    with http_files.served({f'/{name}': content for name, content in contents.items()}) as server:
        serve(monkeypatch, server.url, checksums)
        for _ in range(2):
            assert voc_layout(data_dir=None, split='train_aug', download=VOC).fetch().info.num_examples == 4
        assert [path for path, _ in server.requests] == [f'/{voc2012.VOC.name}', f'/{voc2012.SBD.name}']
    assert {path.name for path in (home / 'downloads').iterdir()} >= set(contents)


def test_a_download_with_another_checksum_is_not_used(home, monkeypatch):
    with http_files.served({f'/{voc2012.VOC.name}': b'<html>moved</html>'}) as server:
        serve(monkeypatch, server.url)
        message = refused(voc_layout(data_dir=None, download=VOC).fetch)
    assert f'{server.url}/{voc2012.VOC.name}' in message and voc2012.VOC.checksum in message
    assert not any(name.startswith('downloads') for name in sizes(home))


def test_without_a_network_the_message_says_what_to_fetch(home):
    fetch = voc_layout(data_dir=None, split='train_aug', download=VOC).fetch
    message = refused(fetch)
    assert message.startswith('datasets.voc_layout.data_dir = None: voc2012_segmentation is not prepared in ')
    for part in (voc2012.VOC, voc2012.SBD):
        assert f'{part.name} (' in message and f' from {part.url}' in message
    assert f'Missing in {home}/downloads:' in message and 'Connection refused' in message
    assert 'DATA_DIR' in message.splitlines()[-1] and 'Traceback' not in message
    # One of them is put there: only the other one is missing.
    made.put(home / 'downloads', made.archives([voc2012.VOC]))
    message = refused(fetch)
    assert f'by hand: {home}/downloads/{voc2012.SBD.name}\n' in message and f'{voc2012.VOC.name} (' not in message
    assert 'Missing in' not in message


def test_a_file_by_hand_that_differs_is_used_and_reported(home, caplog):
    by_hand(home, VOC)
    voc_layout(data_dir=None, download=VOC).fetch()
    assert any('that of the published file md5:6cd6e144' in record.getMessage() for record in caplog.records)


def test_unknown_names():
    message = refused(coco(data_dir=None, download='coco_2017').fetch)
    assert "datasets.coco.download = 'coco_2017'" in message and "'coco2017_instances'" in message
    message = refused(reading.read, 'datasets.voc_layout', CAMVID, 'train', 'instances', True, 'ignore')
    assert "datasets.voc_layout.download = 'camvid11'" in message and "'instances'" in message


# ---- Damage ----------------------------------------------------------------------------------------------------------


def damaged_voc(**changes):
    contents = made.voc_contents()
    for name, change in changes.items():
        path = next(path for path in contents if path.endswith(name.replace('__', '.')))
        contents[path] = change
    return contents


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'SegmentationClass/2008_000008__png': b'no PNG'}, ['SegmentationClass/2008_000008.png']),
        ({'SegmentationClass/2008_000008__png': made.image_file('x', kind='PNG')}, ['2008_000008.png', 'one channel']),
        ({'JPEGImages/2008_000008__jpg': made.image_file('x', (9, 9))}, ['2008_000008', '50x40', '9x9']),
        ({'JPEGImages/2008_000008__jpg': b''}, ['2008_000008', 'image cannot be read']),
        ({'Segmentation/val__txt': b'../../up\n'}, ['val.txt', "'../../up'"]),
        ({'Segmentation/val__txt': b'2007_999999\n'}, ["'VOCdevkit/VOC2012/JPEGImages/2007_999999.jpg'"]),
        ({'Segmentation/val__txt': b'\xff\xfe'}, ['val.txt', 'UTF-8']),
    ],
)
def test_a_damaged_archive_is_one_message_and_leaves_nothing(home, changes, said):
    made.put(home / 'downloads', {voc2012.VOC.name: made.archive(voc2012.VOC.name, damaged_voc(**changes))})
    message = refused(voc_layout(data_dir=None, download=VOC).fetch)
    assert message.startswith(str(home / 'downloads' / voc2012.VOC.name))
    for part in said:
        assert part in message
    kept = ('downloads/', f'{VOC}/.config/', f'{VOC}/label_map/.preparing')
    left = [name for name in sizes(home) if not name.startswith(kept)]
    assert left == [] and not list((home / VOC / 'label_map').glob('incomplete*'))


def test_another_archive_and_a_truncated_one(home):
    content = made.archives([voc2012.VOC])[voc2012.VOC.name]
    for changed in (b'<html>', content[:5000], made.archive('a.tar', {'other': b'1'})):
        made.put(home / 'downloads', {voc2012.VOC.name: changed})
        assert refused(voc_layout(data_dir=None, download=VOC).fetch).startswith(str(home / 'downloads'))


def test_after_a_kill_the_set_is_made_again(home):
    by_hand(home, VOC)
    left = home / VOC / 'label_map' / 'incomplete.ABCDEF_1.0.0'
    made.put(left, {'voc2012_segmentation-train.array_record-00000-of-00001': b'half'})
    assert voc_layout(data_dir=None, download=VOC).fetch().info.num_examples == 2
    assert not left.exists()


def test_two_at_once_make_it_once(home, monkeypatch):
    """As the processes of a run on several hosts do, which share the folder."""
    by_hand(home, CAMVID)
    written, write = [], prepare._write
    monkeypatch.setattr(prepare, '_write', lambda *arguments: (written.append(1), write(*arguments)))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: prepare.prepared('slot', camvid11.published()), range(2)))
    assert folders == [str(home / CAMVID / '1.0.0')] * 2
    assert len(written) == 1


def test_downloads_are_announced(home, monkeypatch, caplog):
    caplog.set_level('INFO', 'absl')
    message = refused(coco(data_dir=None, download=COCO).fetch)
    (announced,) = [line.getMessage() for line in caplog.records if 'are downloaded to' in line.getMessage()]
    for text in (message, announced):
        assert str(home / 'downloads') in text and 'datasets.coco.data_dir' in text
        assert all(file.name in text and file.url in text for file in coco2017.published().files)
    assert '20.4 GB' in announced
    free_space(monkeypatch, 30 * 10**9)
    message = refused(coco(data_dir=None, download=COCO).fetch)
    assert '40.8 GB' in message and '30.0 GB free' in message and 'TFDS_DATA_DIR' in message and 'DATA_DIR' in message
    by_hand(home, COCO, 'instances', 'train2017')  # Small ones.
    assert coco(data_dir=None, split='train2017', download=COCO).fetch().info.num_examples == 3


def test_a_full_disk_is_reported(home, monkeypatch):
    by_hand(home, CAMVID)

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(prepare, 'record', full)
    message = refused(tfds(name=CAMVID).fetch)
    assert str(home / CAMVID) in message and 'No space left' in message
    assert not (home / CAMVID / '1.0.0').exists()


def test_the_same_archives_give_the_same_bytes(home, tmp_path):
    by_hand(home, CAMVID)
    first = pathlib.Path(prepare.prepared('slot', camvid11.published()))
    made.put(tmp_path / 'other/downloads', files_of(CAMVID, 'label_map', 'train'))
    second = pathlib.Path(prepare.prepared('slot', camvid11.published(), str(tmp_path / 'other')))
    records = {path.name: path.read_bytes() for path in first.iterdir() if 'array_record' in path.name}
    assert len(records) == 3 and records == {name: (second / name).read_bytes() for name in records}


def test_hostile_names_write_nothing_outside(home, tmp_path):
    contents = made.camvid_contents() | {'../../../escaped.txt': b'1', '/tmp/seg-escaped.txt': b'1'}
    made.put(home / 'downloads', {camvid11.ARCHIVE.name: made.archive('a.zip', contents)})
    assert tfds(name=CAMVID).fetch().info.num_examples == 2
    assert not [path for path in tmp_path.rglob('escaped*')] and not pathlib.Path('/tmp/seg-escaped.txt').exists()
    assert archives.Archive(str(home / 'downloads' / camvid11.ARCHIVE.name)).read('../../../escaped.txt') == b'1'
