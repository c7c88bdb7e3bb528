"""`--mode=check_data` and `--mode=show_data` of a whole experiment."""

import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from seg import seg_main
from tests.executor import runs

FIGURE = re.compile(r'<img src="data:image/jpeg;base64,')


def call(capsys, *args):
    status = seg_main.main(['seg_main', *args])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def small(gin_file):
    """The parameters of a small experiment."""
    params = (*runs.SMALL, *runs.SMALL_PARTS[gin_file], runs.BACKBONE)
    return [f'--gin_file={gin_file}', f'--plugins={runs.BACKBONE_PLUGIN}', *(f'--gin_param={p}' for p in params)]


@pytest.fixture
def folder(tmp_path):
    """A folder in VOC's layout with a fault in each split."""
    root = tmp_path / 'mine'
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (root / name).mkdir(parents=True)
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, [64, 64, 3], np.uint8)
        label = np.zeros((64, 64), np.uint8)
        label[20:40, 20:40] = 5 if number == 5 else 1
        Image.fromarray(pixels).save(root / 'JPEGImages' / f'{number}.png')
        Image.fromarray(label).save(root / 'SegmentationClass' / f'{number}.png')
    (root / 'class_names.txt').write_text('ground\nthing\n')
    (root / 'ImageSets/Segmentation/train.txt').write_text('0\n1\n2\n')
    (root / 'ImageSets/Segmentation/val.txt').write_text('3\n4\n5\n')
    (root / 'JPEGImages' / '1.png').write_bytes((root / 'JPEGImages' / '1.png').read_bytes()[:2000])
    return root


def test_data_with_faults(folder, tmp_path, capsys):
    """Each fault is listed once, with its image; the status is 1; the page is complete and makes no request."""
    output = tmp_path / 'found'
    status, out, err = call(
        capsys,
        '--mode=check_data',
        '--gin_file=gin/deeplab_camvid.gin',
        f'--plugins={runs.BACKBONE_PLUGIN}',
        f'--gin_param=DATA_DIR="{folder}"',
        f'--gin_param={runs.BACKBONE}',
        f'--output={output}',
    )
    assert status == 1, err
    results = json.loads(out)
    record = json.loads((output / 'check_data.json').read_text())
    assert results['fix'] == record['fix'] == 2 and results['report'] == str(output / 'check_data.json')
    fixes = {finding['data']: finding for finding in record['findings'] if finding['severity'] == 'fix'}
    assert '1.png' in str(fixes['voc_layout/train']['lines']) and '5.png' in str(fixes['voc_layout/val']['lines'])
    assert '5 (400 pixels)' in str(fixes['voc_layout/val'])
    page = (output / 'check_data.html').read_text()
    assert len(FIGURE.findall(page)) >= 5 and '://' not in page
    assert 'Must be fixed' in page and "default-src 'none'" in page


def test_sound_data(tmp_path, capsys):
    """The demo's data, with its anchors and limits; the folder of the run holds the page."""
    run = tmp_path / 'run'
    status, out, err = call(capsys, '--mode=check_data', f'--model_dir={run}', *small(runs.INSTANCES))
    assert status == 0, err
    assert json.loads(out)['fix'] == 0 and sorted(path.name for path in run.iterdir()) == [
        'check_data.html',
        'check_data.json',
    ]
    record = json.loads((run / 'check_data.json').read_text())
    assert [data['images'] for data in record['data']] == [6, 6] and record['data'][0]['side']['median'] > 10


def test_a_folder_that_is_not_there(tmp_path, capsys):
    status, out, _ = call(
        capsys,
        '--mode=check_data',
        '--gin_file=gin/deeplab_camvid.gin',
        '--gin_param=DATA_DIR="/not/there"',
        f'--model_dir={tmp_path}',
    )
    assert status == 1 and json.loads(out)['fix'] == 2
    assert '/not/there' in (pathlib.Path(tmp_path) / 'check_data.html').read_text()


def test_the_gin_file_of_a_folder_is_all_of_the_output(folder, tmp_path, capsys, monkeypatch):
    """So that it can be saved, also if something must be fixed; of its own lines none is said to have no effect."""
    monkeypatch.chdir(tmp_path)
    status, out, err = call(
        capsys, '--mode=check_data', f'--input={folder}', f'--plugins={runs.BACKBONE_PLUGIN}',
        f'--gin_param={runs.BACKBONE}',
    )  # fmt: skip
    assert status == 1 and 'without effect' not in err
    (tmp_path / 'my.gin').write_text(out)
    assert out.splitlines()[:2] == ["include 'gin/deeplab_camvid.gin'", f'DATA_DIR = {str(folder)!r}']
    status, out, _ = call(
        capsys, '--mode=check_data', f'--gin_file={tmp_path}/my.gin', f'--plugins={runs.BACKBONE_PLUGIN}',
        f'--gin_param={runs.BACKBONE}',
    )  # fmt: skip
    assert status == 1 and json.loads(out)['fix'] == 2


def test_output_among_the_data(tmp_path, capsys):
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'a.png').touch()
    status, _, err = call(capsys, '--mode=check_data', f'--input={tmp_path}', f'--output={tmp_path}/checked')
    assert status == 2 and f'--output={tmp_path}/checked' in err and not (tmp_path / 'checked').exists()


def test_training_examples(tmp_path, capsys):
    run = tmp_path / 'run'
    status, out, err = call(capsys, '--mode=show_data', f'--model_dir={run}', *small(runs.SHAPES))
    assert status == 0, err
    results = json.loads(out)
    page = (run / 'show_data.html').read_text()
    assert results['examples'] == len(FIGURE.findall(page)) == 24 and results['page'] == str(run / 'show_data.html')
    assert page.count('<h2>Batch ') == 6


def test_checks_are_not_validated(capsys):
    status, _, err = call(capsys, '--mode=check_data', '--gin_file=gin/deeplab_shapes.gin', '--validate')
    assert status == 2 and '--validate' in err and '--mode=check_data' in err
