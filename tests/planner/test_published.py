"""The plan against published speeds, from the stored figures of the compiled steps."""

import pytest

from seg import files
from seg.planner import tables
from tools import published as tool

PUBLISHED = files.read_object(str(tool.PUBLISHED), '')
ROWS = {row['name']: row for row in PUBLISHED['rows']}


def speed(name):
    found = tool.predicted(PUBLISHED, ROWS[name], tables.calibration()['tpu'])
    if found is None:
        pytest.skip(f'{name}: python tools/published.py --compile has not compiled its step yet')
    return found


def test_no_speed_is_used_twice():
    assert len(ROWS) == len(PUBLISHED['rows']) and all(row['source'] for row in ROWS.values())
    uses = [row['use'] for row in ROWS.values()]
    assert uses.count('calibration') == 2 and set(uses) == {'calibration', 'check'}


def test_the_factors_are_those_of_the_two_rows():
    """By hand: t = loops + work / efficiency + exchange."""
    factors = tool.solved(PUBLISHED, tables.calibration()['tpu'])
    if factors is None:
        pytest.skip('python tools/published.py --compile has not compiled the steps of the calibration yet')
    assert factors._replace(source='') == tables.calibration()['tpu']._replace(source='')
    for row in ROWS.values():
        if row['use'] == 'calibration':
            assert speed(row['name']) == pytest.approx(row['images_per_second'], rel=0.005)


def test_two_unknowns_from_two_rows():
    """A step of 0.1 s and one of 0.4 s of work at full efficiency, which take 0.3 and 0.9 s."""
    step = {'flops': 0.0, 'memory': 1.0, 'limit': None, 'largest': 0, 'fixed': 0.1, 'loops': True}
    rows = [
        {'use': 'calibration', 'recipe': 'r', 'hardware': 'v3-8', 'batch': 32, 'images_per_second': 32 / 0.9},
        {'use': 'calibration', 'recipe': 'r', 'hardware': 'v3-8', 'batch': 8, 'images_per_second': 8 / 0.3},
    ]
    made = {
        'rows': rows,
        'recipes': {'r': {'train_steps': 1}},
        'exchanged': {'r': 0.0},
        'steps': {
            'r v3-8 x 4': step | {'images': 4, 'bytes': 0.4 * 450e9},
            'r v3-8 x 1': step | {'images': 1, 'bytes': 0.1 * 450e9},
        },
    }
    factors = tool.solved(made, tables.calibration()['tpu'])
    assert factors.efficiency == pytest.approx(0.5) and factors.loops_seconds == pytest.approx(0.1)


@pytest.mark.xfail(reason='the plan misses it by 19 %: docs/planning.md says why', strict=True)
def test_v4_is_predicted():
    name = 'Mask R-CNN, v4-16, MLPerf v0.7'
    assert speed(name) == pytest.approx(ROWS[name]['images_per_second'], rel=0.15)


def test_the_page_says_what_is_missed():
    """Rows that are off by more than 15 % are named above the table, with the reason."""
    text = tool.PAGE.read_text(encoding='utf-8').partition('## Against published speeds')[2].partition(tool.BEGIN)[0]
    missed = [
        row
        for name, row in ROWS.items()
        if not row.get('least') and speed(name) != pytest.approx(row['images_per_second'], rel=0.15)
    ]
    assert {row['hardware'] for row in missed} == {'v4-16', 'v2-8', 'v3-8'}
    for row in missed:
        percent = round(100 * abs(speed(row['name']) / row['images_per_second'] - 1))
        assert row['hardware'] in text and f'{percent} %' in text


def test_what_was_announced_of_v2_and_v3():
    """Of April 2019: v3-8 is about 1.7 times as fast; 12 epochs take less than 50 USD, or 20 for preemptible TPUs."""
    assert speed('DeepLab v3+, v3-8') / speed('DeepLab v3+, v2-8') == pytest.approx(1.7, rel=0.1)
    row = ROWS['Mask R-CNN, v2-8, 12 epochs']
    hours = PUBLISHED['recipes'][row['recipe']]['train_steps'] * row['batch'] / speed(row['name']) / 3600
    prices = tables.prices(str(tool.FOLDER / 'prices_2019_04.json')).per_hour(tables.hardware(row['hardware']))
    assert all(price * hours < most for price, most in zip(prices, (50, 20), strict=True))


def test_the_page_has_the_table():
    page = tool.PAGE.read_text(encoding='utf-8')
    assert tool.page(PUBLISHED, tables.calibration()['tpu']) == page, 'run python tools/published.py'
