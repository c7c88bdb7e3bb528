"""Odd and wrong COCO files: the right value, or one message that names place, value and remedy."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from seg.datasets.coco import coco
from seg.datasets.instances import coco_json
from tests.datasets import coco_files
from tests.datasets.coco_files import SQUARE, annotation, contents, refused, verified, write

folder = coco_files.folder
FILE = 'annotations/instances_train.json'
OTHER = [20, 20, 30, 20, 30, 28, 20, 28]


def truth(folder, segmentation, **more):
    """The first image's instances where one of its two annotations is odd."""
    data = contents()
    data['annotations'] = [annotation(0, 0, segmentation, **more), annotation(1, 0, [OTHER], bbox=[20, 20, 10, 8])]
    write(folder, data)
    return verified(folder).annotations(0)


# ---- Files of another kind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'content, message',
    [
        (b'PK\x03\x04' + bytes(40), 'is not JSON but a ZIP archive: unpack it'),
        (b'\x1f\x8b' + bytes(40), 'is not JSON but a gzip file'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n', 'git lfs pull'),
        (b'[' * 10**6, 'nested too deep'),
        (b'{"images": ' + b'[{"a":' * 10**6, 'nested too deep'),
        (b'{"images": [], "annotations": [' + b'9' * 5000 + b']}', 'thousands of digits'),
        (b'\xff\xfe{}', 'expected UTF-8; byte 0'),
        (b'{"images": [], "annotations": ' + b'"x"' * 1 + b', "' + b'k' * 10**6 + b'": 1}', 'no list annotations'),
    ],
)
def test_files_of_another_kind(folder, content, message):
    (folder / FILE).write_bytes(content)
    assert len(refused(message, folder)) < 1000


def test_panoptic_annotations_are_named(folder):
    data = contents()
    data['annotations'] = [{'image_id': 100, 'file_name': 'img0.png', 'segments_info': []}]
    refused("holds COCO's panoptic annotations .segments_info.*instances_", folder, data)


# ---- Ids and classes -------------------------------------------------------------------------------------------------


def test_ids_as_pandas_and_csv_write_them(folder, caplog):
    wanted = coco(data_dir=str(folder))
    data = contents()
    for image in data['images']:
        image['id'] = float(image['id'])
    for category in data['categories']:
        category['id'] = float(category['id'])
    for entry in data['annotations']:
        entry |= {'image_id': str(entry['image_id']), 'category_id': float(entry['category_id'])}
    write(folder, data)
    with caplog.at_level(logging.WARNING):
        dataset = verified(folder)
    assert dataset.info == wanted.info and [type(i) for i in dataset.info.original_ids] == [int] * 3
    assert [dataset.image_id(n) for n in range(3)] == [100, 101, 102]
    for n in range(3):
        np.testing.assert_array_equal(dataset.annotations(n).boxes, wanted.annotations(n).boxes)
        np.testing.assert_array_equal(dataset.annotations(n).classes, wanted.annotations(n).classes)
    assert '4 annotations have a string as image_id where the list has a number' in caplog.text


def test_values_that_are_not_ids(folder):
    for bad in ([], {}, None, True, 0.5, float('nan'), float('inf'), '\ud800', ''):
        data = contents()
        data['annotations'][0]['image_id'] = bad
        refused('annotation 0: image_id is .*not in images. It lists 100, 101, 102', folder, data)
        data = contents()
        data['images'][0]['id'] = bad
        refused(r'images\[0\]: id is ', folder, data)
        data = contents()
        data['categories'][0]['id'] = bad
        refused(r'categories\[0\] is .*expected', folder, data)
        data = contents()
        data['annotations'][0]['id'] = bad
        write(folder, data)
        assert coco(data_dir=str(folder)).info.num_examples == 3
        if bad is not None:
            data['annotations'][0] |= {'category_id': bad}
            refused('category_id is ', folder, data)
    data = contents()
    data['annotations'][0]['category_id'] = 'ant'
    refused("category_id is 'ant'; categories lists 7, 13, 90", folder, data)


def test_categories_of_other_types(folder):
    for bad in (5, 'ant', {'7': 'ant'}, True, 0, {}):
        data = contents() | {'categories': bad}
        refused('categories is .*, expected a list', folder, data)
    for bad in (5, None, [], {'id': 7, 'name': ['ant']}, {'id': 7, 'name': '\ud800'}, {'id': '7', 'name': 'ant'}):
        data = contents()
        data['categories'][1] = bad
        refused(r'categories\[1\] is .*expected', folder, data)


@pytest.mark.parametrize('parent', [('ant', ''), ('animals', 'none'), ('animals', None)])
def test_the_parent_of_all_categories_is_not_a_class(folder, parent):
    """Whether it has annotations does not matter, so that all splits have the same classes."""
    wanted, data = coco(data_dir=str(folder)).info, contents()
    for category in data['categories']:
        category['supercategory'] = parent[0]
    data['categories'].insert(0, {'id': 0, 'name': parent[0], 'supercategory': parent[1]})
    for annotations in (data['annotations'], data['annotations'][:1]):
        write(folder, data | {'annotations': annotations})
        dataset = verified(folder)
        assert dataset.info == wanted
        (found,) = [finding for finding in dataset.findings(False) if finding.kind == 'parent_category']
        assert f'{parent[0]!r} (id 0)' in found.text and found.severity == 'warn'
    data['annotations'].append(annotation(9, 0, [SQUARE], 0))
    refused(f'{parent[0]!r} .id 0. has annotations, but it is not a class: .* remove its name', folder, data)
    data['annotations'][-1]['category_id'] = '0'  # Not the ordinary form.
    refused(f'{parent[0]!r} .id 0. has annotations, but it is not a class', folder, data)


def test_other_supercategories_are_ignored(folder):
    """As in COCO, where the supercategory of person is person; a class without annotations is a class."""
    wanted, data = coco(data_dir=str(folder)).info, contents()
    for category in data['categories']:
        category['supercategory'] = 'zebra'
    write(folder, data | {'annotations': data['annotations'][:1]})
    assert coco(data_dir=str(folder)).info == wanted
    data['categories'][0]['supercategory'] = 'insect'
    write(folder, data)
    assert coco(data_dir=str(folder)).info == wanted


# ---- Marks and numbers -----------------------------------------------------------------------------------------------


def test_crowd_marks_in_all_spellings(folder):
    spellings = {False: [0, 0.0, '0', 'false', 'False ', False, None, ''], True: [1, 1.0, '1', 'true', 'TRUE', True]}
    for crowd, marks in spellings.items():
        for mark in marks:
            assert truth(folder, [SQUARE], iscrowd=mark).is_crowd.tolist() == [crowd, False], mark
    for mark in (2, -1, 0.5, 'no', '00', [], [0], {}, float('nan')):
        data = contents()
        data['annotations'][0]['iscrowd'] = mark
        refused('annotation 0: iscrowd is .*, expected 0 or 1', folder, data)


def test_extreme_areas_and_boxes_are_replaced_by_the_masks(folder):
    for area in (1e308, 10**400, -(10**400), 1e39, 1201, 1e-300, float('nan'), '120', True and [], {}):
        assert truth(folder, [SQUARE], area=area).area[0] == 120
    for bad in (1e308, -1e308, 10**400, float('inf'), 'x', None, [], {}):
        for place in range(4):
            box = [4, 5, 10, 12]
            box[place] = bad
            with np.errstate(all='raise'):
                found = truth(folder, [SQUARE], bbox=box).boxes[0]
            inside = (found >= 0).all() and (found <= [30, 40, 30, 40]).all()
            assert inside and (found[2:] > found[:2]).all()


# ---- Masks -----------------------------------------------------------------------------------------------------------


def decoded(truth, n=0):
    return coco_mask.decode(truth.masks[n])


def test_a_part_that_is_lost_is_reported(folder, caplog):
    wanted = decoded(truth(folder, [SQUARE]))
    with caplog.at_level(logging.WARNING):
        found = truth(folder, [SQUARE, [20, 2, 30, 2, 30, 9, 20, 9, 20]])
    np.testing.assert_array_equal(decoded(found), wanted)
    assert '1 of 2 instances are kept, but' in caplog.text
    assert "a polygon with an odd number of values, a part that is omitted; annotation 0 of 'img0.png'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = truth(folder, [[9, 9], SQUARE])  # A stray point covers no pixel.
    np.testing.assert_array_equal(decoded(found), wanted)
    assert not caplog.text


def test_masks_in_other_forms_are_read(folder, caplog):
    wanted = decoded(truth(folder, [SQUARE]))
    assert wanted.sum() == 120
    pairs = np.reshape(SQUARE, [4, 2]).tolist()
    counts = np.diff(np.flatnonzero(np.diff(wanted.T.reshape(-1))) + 1, prepend=0, append=1200).tolist()
    forms = {
        'a list of pairs': (pairs, 'pairs [x, y]'),
        'a list of a list of pairs': ([pairs], ''),
        'one flat list': (SQUARE, ''),
        'numbers as text': ([list(map(str, SQUARE))], ''),
        'counts as floats': ({'size': [30.0, 40.0], 'counts': list(map(float, counts))}, ''),
        'counts as a polygon': ([counts], 'run lengths in place of a polygon'),
        'counts as a flat polygon': (counts, 'run lengths in place of a polygon'),
    }
    for form, (segmentation, note) in forms.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = truth(folder, segmentation)
        np.testing.assert_array_equal(decoded(found), wanted, form)
        assert note in caplog.text and bool(note) == bool(caplog.text), form


def test_reasons_are_given_once_where_no_mask_is_usable(folder, caplog):
    data = contents()
    data['annotations'] = [annotation(n, 0, [[0.1, 0.2, 0.7, 0.2, 0.7, 0.9]]) for n in range(3)]
    with caplog.at_level(logging.WARNING):
        refused('none of its 3 instances has a usable mask: 3 with coordinates from 0 to 1', folder, data)
    assert not caplog.text


HOSTILE = {
    'one long outline': [[19990, 19990, -19990, -19990] * 25_000],
    'many far outlines': [[19990, 19990, -19990, -19990, 0, 0]] * 20_000,
    'many small outlines': [[n % 37, n % 29, n % 37, n % 29 + 2, n % 37 + 2, n % 29 + 2] for n in range(10_000)],
    'many numbers': [np.random.default_rng(0).uniform(0, 30, 200_000).round(1).tolist()],
    'many counts': {'size': [30, 40], 'counts': [0] * 400_001 + [1200]},
    'a long string': {'size': [30, 40], 'counts': '0' * 10_000_000},
}


PROGRAM = """
import resource, sys, time
from seg.datasets.instances import coco_json
def used():
    return int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
for path in sys.argv[1:]:
    resource.setrlimit(resource.RLIMIT_AS, (used() + 400 * 2**20, resource.RLIM_INFINITY))
    began = time.process_time()
    instances = coco_json.read(path).instances
    print(len(instances.classes), round(time.process_time() - began))
"""


def test_masks_that_would_take_all_memory_or_time(folder):
    """In a process of its own, with little memory: where pycocotools gets none, the process dies without a message."""
    paths = []
    for kind, segmentation in HOSTILE.items():
        data = contents()
        data['annotations'] = [annotation(0, 0, segmentation), annotation(1, 0, [SQUARE])]
        write(folder, data, kind)
        paths.append(str(folder / kind))
    done = subprocess.run([sys.executable, '-c', PROGRAM, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [instances for instances, _ in found] == [1, 1, 2, 1, 2, 1] and max(seconds for _, seconds in found) < 10


# ---- Nothing to learn ------------------------------------------------------------------------------------------------


def test_a_split_without_an_instance_is_refused(folder):
    data = contents()
    for entry in data['annotations']:
        entry['iscrowd'] = 1
    refused("coco, split 'train' of .*all of its 4 instances are crowds.*CVAT", folder, data)
    refused('it has no instance', folder, contents() | {'annotations': [], 'categories': []})


def test_a_file_that_changes_while_it_is_read(folder, monkeypatch):
    """The list of annotations is read again, piece by piece; if that fails, the file is read anew as a whole."""
    wanted, piece = coco(data_dir=str(folder)).annotations(0), coco_json._piece
    for changed in (lambda path, place: piece(path, place)[:-9], lambda path, place: piece('/not/there', place)):
        monkeypatch.setattr(coco_json, '_piece', changed)
        found = coco(data_dir=str(folder)).annotations(0)
        assert all(np.array_equal(part, kept) for part, kept in zip(found, wanted, strict=True))
