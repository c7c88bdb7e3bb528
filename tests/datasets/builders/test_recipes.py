"""The recipes for VOC and COCO without DATA_DIR."""

import json
import types

import pytest

from seg import modes, seg_main
from seg.datasets.builders import coco2017, prepare, voc2012
from seg.engine import set_up
from tests import http_files
from tests.datasets.builders import made

SMALL = (
    'TRAIN_STEPS=2',
    'BATCH_SIZE=2',
    'CROP=(33, 33)',
    'BACKBONE=@backbones.tiny',
    'backbones.tiny.channels=8',
    'RunConfig.eval_batch_size=1',
    'RunConfig.iterations_per_loop=2',
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of prepared sets, on a disk with room; the addresses of the files refuse connections."""
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'sets'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(prepare.shutil, 'disk_usage', lambda _: types.SimpleNamespace(free=10**12))
    url = http_files.closed_url()
    for module, key in ((voc2012, 'VOC'), (coco2017, 'ANNOTATIONS'), (coco2017, 'TRAIN'), (coco2017, 'VAL')):
        monkeypatch.setattr(module, key, getattr(module, key)._replace(url=f'{url}/{key}'))
    return tmp_path / 'sets'


@pytest.mark.parametrize(
    ('name', 'files'),
    [
        ('deeplab_voc', [voc2012.VOC]),
        ('maskrcnn_coco', [coco2017.ANNOTATIONS, coco2017.VAL, coco2017.TRAIN]),
        ('cascade_coco', [coco2017.ANNOTATIONS, coco2017.VAL, coco2017.TRAIN]),
    ],
)
def test_without_network_and_files_one_message_says_what_is_needed(home, tmp_path, capsys, name, files):
    command = ['seg_main', f'--gin_file=gin/{name}.gin', f'--model_dir={tmp_path}/run', '--validate']
    assert seg_main.main(command) == 2
    said = capsys.readouterr().err
    assert 'data_dir = None' in said and 'DATA_DIR' in said and 'Traceback' not in said
    for file in files:
        assert file.name in said
    assert f'{home}/downloads' in said and f'{files[0].url.rpartition("/")[0]}' not in said  # The test's own address.


def losses(folder, *params):
    modes.run(
        ['gin/deeplab_voc.gin'],
        model_dir=str(folder),
        mode='train',
        gin_params=[*SMALL, *params],
        plugin_specs=['experiments.tiny_backbone.plugin'],
        engine=set_up('one', 'float32', 'off'),
    )
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [(line.get('step'), line.get('loss'), line.get('miou')) for line in lines]


def test_a_training_takes_the_same_steps_as_with_the_folder(home, tmp_path):
    made.put(home / 'downloads', made.archives([voc2012.VOC]))
    made.put(tmp_path / 'unpacked', made.voc_contents())
    prepared = losses(tmp_path / 'prepared')
    assert prepared == losses(tmp_path / 'folder', f"DATA_DIR='{tmp_path}/unpacked/VOCdevkit'")
    assert any(loss is not None for _, loss, _ in prepared)
