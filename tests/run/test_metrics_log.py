"""metrics.jsonl: whole lines come back, damaged ones are counted, and what came after a step is cut."""

import pytest

from seg.run.metrics_log import MetricsLog

DAMAGED = [
    b'{"kind": "train", "st',
    b'\xff\xfe\x00',
    b'[1, 2]',
    b'{"kind": "train", "step": NaN}',
    b'{"kind": "train", "step": -1}',
    b'{"kind": "train", "step": 1e3}',
    b'{"kind": "train", "step": ' + b'1' * 400 + b'}',
    b'{"kind": "other", "step": 4}',
    b'{"kind": ["train"], "step": 4}',
    b'{"kind": "train", "step": 2, "lo\xff": 1}',
    b'{"kind": "eval", "miou": 1}',
    b'\x00\x00',
    b'[' * 10**5,
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'metrics.jsonl'


def test_nothing_there(path):
    assert MetricsLog(str(path)).read() == ([], 0)


@pytest.mark.parametrize('damage', DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_lines_are_counted_and_left_out(path, caplog, damage):
    log = MetricsLog(str(path))
    log.add('train', 2, {'loss': 0.5})
    with open(path, 'ab') as file:
        file.write(damage + b'\n\n')
    log.add('train', 4, {'loss': 0.25})
    assert [line['step'] for line in log.read().lines] == [2, 4] and log.read().damaged == 1
    with caplog.at_level('WARNING'):
        log.cut(4)
    assert 'metrics.jsonl: line 2 is damaged' in caplog.text and len(caplog.text) < 500
    assert log.read().damaged == 0 and len(path.read_text().splitlines()) == 2


def test_the_last_line_of_a_step_counts(path):
    log = MetricsLog(str(path))
    for step, loss in ((4, 0.3), (2, 0.5), (4, 0.2)):
        log.add('train', step, {'loss': loss})
    log.add('eval', 4, {'miou': 0.1})
    assert [(line['step'], line['loss']) for line in log.read().by_step('train')] == [(2, 0.5), (4, 0.2)]
    assert [line['miou'] for line in log.read().by_step('eval')] == [0.1]
    log.cut(3)
    assert [line['step'] for line in log.read().lines] == [2]
