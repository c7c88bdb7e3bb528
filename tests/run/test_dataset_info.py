"""dataset_info.json: a round trip, and the messages about damaged files."""

import json

import numpy as np
import pytest

from seg.errors import UserError, shown
from seg.run import dataset_info
from seg.run.folder import RunFolder
from seg.structures import ClassHistogram, DatasetInfo

INFO = DatasetInfo('mine/train', ('ground', 'disc'), 3, (40, 72), 254, (0, 7), ((0, 0, 0), (255, 0, 9)))
COUNTS = ClassHistogram(np.array([5, 2]), np.array([5, 7]))

# A key and a value that is none of its own.
DAMAGE = [
    ('name', 7),
    ('class_names', [1, 2]),
    ('class_names', 'ground'),
    ('num_examples', 'three'),
    ('num_examples', -1),
    ('max_size', '40x72'),
    ('max_size', [10**30, 72]),
    ('max_size', [100_000, 100_000]),
    ('max_size', [-40, 72]),
    ('max_size', [40.5, 72]),
    ('max_size', [40]),
    ('ignore_label', True),
    ('original_ids', [7]),
    ('colors', [[0, 0, 0]]),
    ('colors', [[0, 0], [1, 1]]),
    ('colors', ['black', 'red']),
    ('colors', [[0, 0, 256], [0, 0, 0]]),
]


def test_comes_back(tmp_path):
    dataset_info.write(RunFolder(str(tmp_path)), INFO, COUNTS)
    assert dataset_info.read(RunFolder(str(tmp_path))) == INFO
    for found, written in zip(dataset_info.read_class_histogram(RunFolder(str(tmp_path)), INFO), COUNTS, strict=True):
        np.testing.assert_array_equal(found, written)


def test_counts_of_other_data_are_not_taken(tmp_path):
    other = DatasetInfo('mine/train', ('disc', 'ground'), 3, (40, 72))
    assert dataset_info.read_class_histogram(RunFolder(str(tmp_path)), INFO) is None
    dataset_info.write(RunFolder(str(tmp_path)), INFO, COUNTS)
    assert dataset_info.read_class_histogram(RunFolder(str(tmp_path)), other) is None


@pytest.mark.parametrize(('key', 'value'), DAMAGE)
def test_damaged_value(tmp_path, key, value):
    dataset_info.write(RunFolder(str(tmp_path)), INFO, None)
    path = tmp_path / 'dataset_info.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError) as caught:
        dataset_info.read(RunFolder(str(tmp_path)))
    text = str(caught.value)
    assert str(path) in text and f'{key} is {shown(value)}' in text
    assert 'expected' in text and 'Remove the file' in text


@pytest.mark.parametrize('counts', [[[5, 2]], [[5, 2], [5]], [[5, -2], [5, 7]], 'many', [[5, 2], [5, 2**70]]])
def test_damaged_counts(tmp_path, counts):
    dataset_info.write(RunFolder(str(tmp_path)), INFO, COUNTS)
    path = tmp_path / 'dataset_info.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'class_histogram': counts}))
    with pytest.raises(UserError, match='class_histogram is .*expected two lists of 2 counts'):
        dataset_info.read_class_histogram(RunFolder(str(tmp_path)), INFO)


def test_key_left_out(tmp_path):
    dataset_info.write(RunFolder(str(tmp_path)), INFO, None)
    path = tmp_path / 'dataset_info.json'
    values = json.loads(path.read_text())
    del values['max_size']
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="no 'max_size'"):
        dataset_info.read(RunFolder(str(tmp_path)))
