"""What a slow precision costs is told."""

import logging

import pytest

from seg.engine import precision as precisions


@pytest.mark.parametrize(
    ('precision', 'native', 'level', 'said'),
    [
        ('bfloat16', True, None, ''),
        ('bfloat16', False, logging.WARNING, '--precision=float32'),
        ('float32', True, logging.INFO, '--precision=bfloat16'),
        ('float32', False, logging.INFO, 'bfloat16'),
    ],
)
def test_the_cost_of_a_precision(caplog, precision, native, level, said):
    with caplog.at_level('INFO', logger='absl'):
        precisions.tell_cost(precision, native)
    assert [record.levelno for record in caplog.records] == ([level] if level else [])
    assert all(said in record.getMessage() for record in caplog.records)
