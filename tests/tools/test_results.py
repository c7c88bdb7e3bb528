"""The tables of results: those of the pages are the present ones, and mistakes of a record have one message."""

import copy
import json
import re

import pytest

from seg.errors import UserError
from tools import results

RUN = {
    'seed': 0,
    'precision': 'float32',
    'hardware': '1 core',
    'machine': ['cpu', 1],
    'load': 'none',
    'minutes': None,
    'cpu_seconds': 80,
    'commit': None,
    'results': {'step': 1200, 'metrics': {'miou': 0.5, 'loss': 0.25}, 'train_seconds': 90.0},
}
VALUES = {
    'title': 'A net',
    'data': 'Some scenes',
    'command': 'seg_main',
    'scores': {'mIoU': 'miou', 'loss': 'loss'},
    'runs': [RUN],
    'evaluations': [],
}


@pytest.fixture
def read(tmp_path):
    """A function from the changes of a record to its experiment: {'runs.0.seed': 1} changes the first run's seed."""

    def read(changes):
        values = copy.deepcopy(VALUES)
        for path, value in changes.items():
            *folders, last = (int(name) if name.isdecimal() else name for name in path.split('.'))
            place = values
            for folder in folders:
                place = place[folder]
            place[last] = value
        (tmp_path / 'net').mkdir(exist_ok=True)
        (tmp_path / 'net' / 'results.json').write_text(json.dumps(values))
        return results.Experiment.read(tmp_path / 'net' / 'results.json')

    return read


def test_pages_hold_what_the_command_makes():
    for page, text in results.pages().items():
        assert page.read_text(encoding='utf-8') == text, f'run python tools/results.py: {page} differs'


def test_every_experiment_has_a_row():
    folders = {path.parent.name for path in results.ROOT.glob('experiments/*/results.json')}
    text = results.pages()[results.ROOT / 'README.md']
    assert folders == set(re.findall(r'\]\(experiments/(\w+)\) \|', text))


def test_scores_of_several_seeds(read):
    other = copy.deepcopy(RUN) | {'seed': 3}
    other['results'] = {'step': 1200, 'metrics': {'miou': 0.75, 'loss': 0.5}, 'train_seconds': 600.0}
    found = read({'runs': [RUN, other]})
    scores = 'mIoU 0.625 (0.500 to 0.750), loss 0.375 (0.250 to 0.500)'
    row = f'| Some scenes | {scores} | 90 s and 10 min | 1 core | 0.001 and 0.006 | 0, 3 |'
    assert row in results.summary([found])
    page = results.section(found)
    assert '|  | seed 0 | seed 3 |' in page and '| mIoU | 0.500 | 0.750 |' in page
    assert 'of 2 seeds: mIoU 0.625 (0.500 to 0.750), loss 0.375 (0.250 to 0.500).' in page


def test_other_evaluations_and_what_was_not_recorded(read):
    flipped = {'step': 1200, 'metrics': {'miou': 0.6, 'loss': 0.2}, 'eval_images_per_second': 1.25}
    found = read({'evaluations': [{'what': 'flip', 'seed': 0, 'command': 'seg_main --mode=eval', 'results': flipped}]})
    assert '| the same, flip | the same | mIoU 0.600, loss 0.200 |' in results.summary([found])
    page = results.section(found)
    for row in (
        '|  | seed 0 | seed 0, flip |',
        '| mIoU | 0.500 | 0.600 |',
        '| images/s in evaluation | not recorded | 1.2 |',
        '| CPU time of the whole command | 80 s |  |',
        '| whole command | not recorded |  |',
        '| commit | not recorded |  |',
    ):
        assert row in page


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'runs': []}, 'runs'),
        ({'runs.0.colour': 'red'}, 'colour'),
        ({'price': 3}, 'price'),
        ({'scores': {'AP': 'mask_ap'}}, 'mask_ap'),
    ],
)
def test_mistakes_of_a_record(read, changes, named):
    with pytest.raises(UserError, match=rf'net/results\.json.*{named}'):
        read(changes)
