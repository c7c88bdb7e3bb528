"""The guess of a folder's layout, from the names of files and their beginnings."""

import json

import pytest

from seg import config, modes
from seg.datasets import layouts
from seg.datasets.folders import folders
from seg.datasets.voc_layout import voc_layout
from seg.errors import UserError

LABELME = json.dumps({'version': '5', 'shapes': [], 'imagePath': 'a.jpg'})
COCO = json.dumps({'images': [], 'annotations': [], 'categories': []})


def made(root, *names, **contents):
    """Makes empty files, and those with a content: keys have `__` for slashes and `_dot_` for dots."""
    texts = dict.fromkeys(names, '') | {
        name.replace('__', '/').replace('_dot_', '.'): text for name, text in contents.items()
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


def numbered(*patterns):
    return [pattern.format(i) for pattern in patterns for i in range(3)]


CASES = {
    'two folders': (numbered('photos/{}.jpg', 'masks/{}.png'), 'folders', {'images': 'photos', 'labels': 'masks'}),
    'two folders with a suffix': (
        numbered('a/img{}.png', 'b/img{}_mask.png'),
        'folders',
        {'images': 'a', 'labels': 'b'},
    ),
    'two folders, masks named first': (
        numbered('annotations/{}.png', 'pictures/{}.jpg'),
        'folders',
        {'images': 'pictures', 'labels': 'annotations'},
    ),
    'folders of splits': (
        numbered('train/images/{}.jpg', 'train/masks/{}.png', 'test/images/{}.jpg', 'test/masks/{}.png'),
        'folders',
        {'images': '{split}/images', 'labels': '{split}/masks', 'eval': 'test'},
    ),
    'splits within': (
        numbered('images/training/{}.jpg', 'labels/training/{}.tif', 'images/val/{}.jpg', 'labels/val/{}.tif'),
        'folders',
        {'images': 'images/{split}', 'labels': 'labels/{split}', 'train': 'training', 'eval': 'val'},
    ),
    'VOC': (
        ['JPEGImages/a.jpg', 'SegmentationClass/a.png', *(f'ImageSets/Segmentation/{s}.txt' for s in ('train', 'val'))],
        'voc_layout',
        {'train': 'train', 'eval': 'val'},
    ),
    'COCO': (
        [f'annotations/instances_{split}2017.json' for split in ('val', 'train')],
        'coco',
        {'train': 'train2017', 'eval': 'val2017'},
    ),
    'Roboflow': (
        [f'{split}/_annotations.coco.json' for split in ('train', 'valid', 'test')],
        'coco',
        {'train': 'train', 'eval': 'valid'},
    ),
    'YOLO': (numbered('images/train/{}.jpg', 'labels/train/{}.txt', 'labels/val/{}.txt'), 'yolo', {'eval': 'val'}),
    'Cityscapes': (
        ['leftImg8bit/train/a/a_leftImg8bit.png', 'gtFine/train/a/a_gtFine_labelIds.png'],
        'cityscapes',
        {'train': 'train', 'eval': 'val'},
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_layouts_by_their_names(case, tmp_path):
    names, reader, expected = CASES[case]
    layout, inside = layouts.guess(made(tmp_path, *names))
    found = {**layout.settings, 'train': layout.train['split'], 'eval': layout.evaluation['split']}
    assert layout.reader == reader and inside == str(tmp_path)
    assert {key: found[key] for key in expected} == expected


def test_layouts_by_their_files(tmp_path):
    layout, _ = layouts.guess(made(tmp_path / 'labelme', 'a.jpg', a_dot_json=LABELME))
    assert layout.reader == 'labelme'
    layout, _ = layouts.guess(made(tmp_path / 'one', result_dot_json=COCO))
    assert (layout.reader, dict(layout.train), dict(layout.evaluation)) == (
        'coco',
        {'split': 'train'},
        {'split': 'val'},
    )
    layout, _ = layouts.guess(made(tmp_path / 'two', my_train_dot_json=COCO, my_test_dot_json=COCO))
    assert layout.train['annotations'] == 'my_train.json' and layout.evaluation['annotations'] == 'my_test.json'
    layout, _ = layouts.guess(made(tmp_path / 'yolo', data_dot_yaml='train: images/train\nval: images/val\nnc: 2\n'))
    assert (layout.reader, layout.evaluation['split']) == ('yolo', 'val')


def test_a_folder_that_holds_the_data_set(tmp_path):
    made(tmp_path, *(f'VOCdevkit/VOC2012/{name}' for name in CASES['VOC'][0]))
    layout, inside = layouts.guess(str(tmp_path))
    assert layout.reader == 'voc_layout' and inside == f'{tmp_path}/VOCdevkit/VOC2012'


@pytest.mark.parametrize(
    ('name', 'content', 'named'),
    [
        (
            'via_project.json',
            {'_via_settings': {}, '_via_img_metadata': {}},
            ['VIA', 'Export Annotations (COCO format)'],
        ),
        ('regions.json', {'a.jpg1': {'regions': [{'shape_attributes': {}}]}}, ['VIA', 'COCO']),
        ('meta.json', {'classes': [], 'tags': []}, ['Supervisely', 'Export to COCO']),
    ],
)
def test_projects_that_no_reader_reads(tmp_path, name, content, named):
    made(tmp_path, 'a.jpg')
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        layouts.guess(str(tmp_path))
    assert all(part in str(caught.value) for part in (*named, f'{tmp_path}/{name}'))


def test_folders_that_are_not_data_sets(tmp_path):
    for folder, named in (
        (tmp_path / 'none', 'nothing there'),
        (tmp_path, "'notes.txt'"),
        (tmp_path / 'notes.txt', 'a file'),
    ):
        (tmp_path / 'notes.txt').touch()
        with pytest.raises(UserError) as caught:
            layouts.guess(str(folder))
        assert named in str(caught.value) and f'--input={folder}' in str(caught.value)


def test_label_maps_in_jpeg_files(tmp_path):
    with pytest.raises(UserError, match=r"'drawn', 'pictures' .*PNG: JPEG blurs"):
        layouts.guess(made(tmp_path, *numbered('pictures/{}.jpg', 'drawn/{}_mask.jpg')))


@pytest.mark.parametrize('case', ['COCO', 'VOC', 'YOLO', 'folders of splits'])
def test_the_lines_bind_the_reader(case, tmp_path):
    layout, inside = layouts.guess(made(tmp_path / "it's", *CASES[case][0]))
    modes.load_parts()
    config.parse([layout.recipe], layout.bindings(inside))
    bound = config.bound_values()
    assert bound['experiment.train_data'] == f'@train/datasets.{layout.reader}'
    assert bound[f'eval/datasets.{layout.reader}.split'] == repr(layout.evaluation['split'])
    assert layout.text(inside).startswith(f"include '{layout.recipe}'\n")


@pytest.mark.parametrize(
    'files, reader',
    [
        (dict.fromkeys(CASES['VOC'][0], ''), '@datasets.voc_layout'),
        ({'leftImg8bit/a': '', 'gtFine/a': ''}, '@datasets.cityscapes'),
        ({'annotations/instances_train.json': '{"images": [], "annotations": []}'}, '@datasets.coco'),
        ({'photos/a.json': '{"version": "5.0", "shapes": []}'}, '@datasets.labelme'),
        ({'data.yaml': 'names: [a]'}, '@datasets.yolo'),
    ],
)
def test_readers_that_fit(tmp_path, files, reader):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert reader in layouts.described(str(tmp_path), 'folders')
    with pytest.raises(UserError, match=reader):
        folders(data_dir=str(tmp_path), images='pictures', labels='masks')
    if 'JPEGImages/a.jpg' not in files:
        with pytest.raises(UserError, match=reader):
            voc_layout(data_dir=str(tmp_path))


def test_other_folders(tmp_path):
    (tmp_path / 'pictures').mkdir()
    assert layouts.described(str(tmp_path), 'folders') == "It holds 'pictures'."
    with pytest.raises(UserError, match='@datasets.folders'):
        voc_layout(data_dir=str(tmp_path))


def test_two_folders_in_each_folder(tmp_path):
    for n in range(60):  # Of so many folders, only those beside each other are compared.
        for folder, ending in (('image', 'jpg'), ('mask', 'png')):
            (tmp_path / f'patients/{n}/{folder}').mkdir(parents=True)
            (tmp_path / f'patients/{n}/{folder}/slice_1.{ending}').touch()
    (tmp_path / 'patients/again').symlink_to(tmp_path)
    layout, _ = layouts.guess(str(tmp_path))
    assert layout.settings == {'images': 'patients/*/image', 'labels': 'patients/*/mask'}
