"""What the log says of the memory of a training."""

import logging

import pytest

from seg.engine import machine
from seg.engine.base import Memory
from seg.executor import memory

GIB = 2**30


@pytest.mark.parametrize(('needed', 'batch_size', 'advice'), [(2, 16, ''), (14, 16, '7 may'), (14, 1, '1 does')])
def test_a_warning_names_the_setting_to_lower(caplog, needed, batch_size, advice):
    with caplog.at_level('INFO', logger='absl'):
        memory.tell(needed * GIB, Memory(GIB, 8 * GIB), batch_size)
    said, *warnings = caplog.records
    assert f'about {needed + 1}.0 of 8.0 GiB' in said.getMessage()
    assert [record.levelno for record in warnings] == ([logging.WARNING] if advice else [])
    assert all(advice in record.getMessage() and 'CROP' in record.getMessage() for record in warnings)


def test_no_limit_no_warning(caplog):
    with caplog.at_level('INFO', logger='absl'):
        memory.tell(99 * GIB, Memory(0, None), 1)
    (record,) = caplog.records
    assert '99.0 GiB' in record.getMessage()


def test_the_limit_of_a_container(monkeypatch, tmp_path):
    (tmp_path / 'max').write_text('max\n')
    (tmp_path / 'bytes').write_text('1048576\n')
    monkeypatch.setattr(machine, '_LIMITS', [str(tmp_path / name) for name in ('max', 'bytes', 'missing')])
    assert machine.memory().limit == 2**20
    monkeypatch.setattr(machine, '_LIMITS', [str(tmp_path / 'max')])
    assert machine.memory().limit > machine.memory().used > 2**20
