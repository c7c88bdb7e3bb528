"""oneDNN: on by default on every processor, and reported correctly."""

import os
import runpy
import sys

import pytest
import tensorflow as tf
from tensorflow.python.util import _pywrap_util_port

import seg
from seg import engine
from seg.engine.tensorflow import devices

NAME = 'TF_ENABLE_ONEDNN_OPTS'


@pytest.mark.parametrize('given', [None, '0', '1'])
def test_importing_seg_turns_it_on_unless_the_user_has_decided(monkeypatch, given):
    monkeypatch.delitem(sys.modules, 'tensorflow')
    monkeypatch.setenv(NAME, given or '')
    if given is None:
        monkeypatch.delenv(NAME)
    runpy.run_path(seg.__file__)
    assert os.environ[NAME] == (given or '1')


def test_not_set_after_the_import_of_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow', tf)
    monkeypatch.delenv(NAME, raising=False)
    runpy.run_path(seg.__file__)
    assert NAME not in os.environ


def test_these_tests_run_with_it():
    assert devices.has_onednn() == (os.environ[NAME] == '1')
    assert engine.describe()['onednn'] == ('on' if devices.has_onednn() else 'off')


@pytest.mark.parametrize(('is_on', 'given', 'told'), [(False, None, True), (False, '0', False), (True, None, False)])
def test_a_slow_process_warns(monkeypatch, caplog, is_on, given, told):
    monkeypatch.setattr(_pywrap_util_port, 'IsMklEnabled', lambda: is_on)
    monkeypatch.setenv(NAME, given or '')
    if given is None:
        monkeypatch.delenv(NAME)
    with caplog.at_level('WARNING', logger='absl'):
        engine.set_up('one', 'float32', 'off')
    assert any('import seg first' in record.getMessage() for record in caplog.records) == told
