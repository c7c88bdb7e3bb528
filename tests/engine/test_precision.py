"""What a slow precision costs is told."""

import logging

import pytest

from seg import engine as engines
from seg.engine import precision as precisions
from seg.errors import UserError


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


@pytest.mark.parametrize(
    ('flags', 'isa', 'has', 'fails'),
    [
        ('avx512f avx512_bf16', '', True, False),
        ('avx512f avx512_bf16', 'DEFAULT', True, False),
        ('avx512f avx512_bf16', 'AVX512_CORE_AMX', True, False),
        ('avx512f avx512_bf16', 'avx512_core', False, False),
        ('avx512f avx512_bf16', 'AVX2', False, True),
        ('avx512f', 'AVX2_VNNI', False, True),
        ('avx2', 'AVX2', False, False),
    ],
)
def test_what_onednn_may_use(monkeypatch, flags, isa, has, fails):
    monkeypatch.setattr(precisions, '_cpu_flags', lambda: set(flags.split()))
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', isa)
    monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', '1')
    assert (precisions.cpu_has_bfloat16(), precisions.onednn_fails_in_bfloat16()) == (has, fails)
    monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', '0')
    assert not precisions.onednn_fails_in_bfloat16()


def test_a_precision_that_onednn_is_kept_from_is_refused(monkeypatch):
    monkeypatch.setattr(precisions, 'onednn_fails_in_bfloat16', lambda: True)
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2')
    with pytest.raises(UserError, match='--precision=bfloat16.*ONEDNN_MAX_CPU_ISA=AVX2'):
        engines.set_up('one', 'bfloat16', engine='tensorflow')
