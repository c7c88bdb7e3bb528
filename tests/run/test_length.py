"""The length of a run: its changes are refused, told and recorded."""

import json

import pytest

from seg.errors import UserError
from seg.run import length
from seg.run.folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'run.json').write_text('{"train_steps": 30}')
    lines = [{'kind': 'train', 'step': step, 'learning_rate': 1 / step} for step in (20, 30)]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return RunFolder(str(tmp_path))


def rate(step):
    return step / 100


def test_no_change(folder):
    assert length.change(folder, 20, 30, rate) is None and length.changes(folder, None) == []


@pytest.mark.parametrize('step, after, rates', [(30, 50, (1 / 30, 0.3)), (20, 25, (0.05, 0.2)), (20, 20, (0.05, None))])
def test_change(folder, step, after, rates):
    """To more steps and to fewer, down to those that were taken."""
    found = length.change(folder, step, after, rate)
    assert (found.step, found.before, found.after) == (step, 30, after)
    assert (found.last_rate, found.next_rate) == pytest.approx(rates)
    assert f'RunConfig.train_steps: 30 -> {after}' in found.text() and f'step {step}' in found.text()
    if after > step:
        assert f'{rates[0]:.4g} in step {step} to {rates[1]:.4g} in step {step + 1}' in found.text()


def test_rate_that_is_not_recorded(folder):
    found = length.change(folder, 25, 50, rate)
    assert found.last_rate is None and 'step 26 is 0.25' in found.text()


def test_fewer_steps_than_taken(folder):
    with pytest.raises(UserError) as caught:
        length.change(folder, 20, 19, rate)
    text = str(caught.value)
    assert 'RunConfig.train_steps = 19' in text and folder.path in text and '20' in text and '--fresh' in text


def test_records_of_all_changes(folder):
    first = {'step': 10, 'before': 20, 'after': 30, 'last_rate': None, 'next_rate': 0.1}
    with open(folder.run, 'w') as file:
        json.dump({'train_steps': 30, 'train_steps_changes': [first]}, file)
    second = length.change(folder, 30, 50, rate)
    records = length.changes(folder, second)
    assert records[0] == first and records[1]['after'] == 50 and length.changes(folder, None) == [first]
