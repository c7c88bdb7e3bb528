"""plan.json and its table."""

import json

import pytest

from seg.errors import UserError
from seg.planner import estimate, table, tables
from tests.planner.test_estimate import FACTS, row


@pytest.fixture(name='plan')
def _plan():
    refused = estimate.refused_row(tables.hardware('v3-32'), FACTS, 'bfloat16', 'it does not divide')
    return table.as_json([row(), refused], tables.prices(), FACTS.steps)


def test_json_has_the_promised_keys(plan):
    first = json.loads(json.dumps(plan))['rows'][0]
    promised = {'hardware', 'images_per_second', 'step_seconds', 'memory_gib', 'hours', 'usd', 'known_by'}
    assert promised <= first.keys() and first['hardware'] == 'v3-8' and first['known_by'] == 'compiled'


def test_text_has_a_line_for_each_row_and_the_date(plan):
    head, first, second, footer = table.text(plan).splitlines()
    assert head.startswith('hardware') and first.startswith('v3-8 ') and 'matrix units' in first
    assert second.startswith('v3-32') and second.endswith('it does not divide')
    assert tables.prices().date in footer and '22,500 steps' in footer


def test_reading(plan, tmp_path):
    path = tmp_path / 'plan.json'
    assert table.read(str(path)) == {}
    path.write_text(json.dumps(plan))
    assert table.read(str(path)) == plan
    for damaged in ({}, plan | {'rows': [{'hardware': 'v3-8'}]}, plan | {'rows': [plan['rows'][0] | {'usd': 'x'}]}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(UserError, match='plan.json'):
            table.read(str(path))
