"""The settings and variables of each file in gin/ are those of tests/golden/."""

import pytest

from tools import golden


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('golden') / 'data'
    golden.write_data(folder)
    return folder


@pytest.mark.parametrize('gin_file', golden.GIN_FILES, ids=lambda path: path.stem)
def test_settings_and_variables(gin_file, data):
    found = golden.text(gin_file, data)
    assert str(data.parent) not in found
    difference = golden.difference(golden.FOLDER / f'{gin_file.stem}.txt', found)
    assert not difference, f'{gin_file.stem} has changed:\n{difference}\n{golden.ADVICE}'


def test_each_text_belongs_to_a_gin_file():
    texts = {path.stem for path in golden.FOLDER.glob('*.txt')}
    assert texts == {path.stem for path in golden.GIN_FILES}, golden.ADVICE


def test_records_are_compared_number_by_number():
    old = {'steps': [{'loss': 2.0, 'n': 3}], 'metrics': {'miou': 0.0, 'gone': 1, 'none': None}}
    assert not golden.changes(old, {**old, 'steps': [{'loss': 2.000001, 'n': 3}]})
    new = {'steps': [{'loss': 2.00001, 'n': 3}], 'metrics': {'miou': 0.0, 'new': 1, 'none': None}}
    assert golden.changes(old, new) == [
        'steps/0/loss: 2.0 -> 2.00001',
        'metrics/gone: 1 -> (absent)',
        'metrics/new: (absent) -> 1',
    ]
