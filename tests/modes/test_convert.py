"""`--mode=convert` of a whole experiment."""

import json

import numpy as np
import pytest
import tensorflow as tf

from seg import seg_main
from seg.datasets.shapes import shapes
from seg.datasets.tfds import tfds
from seg.executor.run_config import RunConfig
from tests.executor import runs


def params(gin_file):
    return (*runs.SMALL, *runs.SMALL_PARTS[gin_file], runs.BACKBONE)


def call(capsys, *args):
    flags = [f'--gin_file={runs.SHAPES}', f'--plugins={runs.BACKBONE_PLUGIN}']
    status = seg_main.main(['seg_main', *flags, *(f'--gin_param={p}' for p in params(runs.SHAPES)), *args])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_converted_data_are_the_same(tmp_path, capsys, caplog):
    """The same examples at the same positions, with the settings and the seed of the run."""
    output = tmp_path / 'records'
    status, out, err = call(capsys, '--mode=convert', f'--output={output}')
    assert status == 0, err
    assert json.loads(out)['examples'] == {'train': 6, 'val': 6}
    assert "train/datasets.tfds.split = 'train'" in caplog.text
    seed = RunConfig(model_dir='', train_steps=1, batch_size=1).seed
    for split in ('train', 'val'):
        source = shapes(split=split, seed=seed, target='label_map', num_examples=6, size=(64, 64), min_object_size=12)
        found = tfds(name=str(output), split=split)
        assert found.info.class_names == source.info.class_names
        for index in range(6):
            one, other = (dataset.load(tf.constant(index, tf.int64)) for dataset in (source, found))
            np.testing.assert_array_equal(one['image'], other['image'])
            np.testing.assert_array_equal(one['label'], other['label'])


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        ([], ['--mode=convert', '--output']),
        (['--output=docs', '--validate'], ['--output=docs', 'Expected an empty folder']),
    ],
)
def test_refused(flags, said, capsys):
    status, _, err = call(capsys, '--mode=convert', *flags)
    assert status == 2 and all(text in err for text in said), err
