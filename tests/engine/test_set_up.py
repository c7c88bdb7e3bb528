"""Which engine a process gets, and what is refused at the start."""

import json
import os
import subprocess
import sys

import keras
import pytest

from seg import engine
from seg.engine import tpu
from seg.errors import UserError


@pytest.mark.parametrize('ask', [engine.set_up, engine.start, engine.describe])
@pytest.mark.parametrize('backend', ['torch', 'no such'])
def test_a_backend_without_engine(monkeypatch, ask, backend):
    monkeypatch.setenv('KERAS_BACKEND', backend)
    with pytest.raises(UserError) as info:
        ask()
    message = str(info.value)
    assert 'KERAS_BACKEND' in message and repr(backend) in message and 'KERAS_BACKEND=tensorflow' in message


def test_a_backend_in_keras_own_file(monkeypatch, tmp_path):
    (tmp_path / 'keras.json').write_text(json.dumps({'backend': 'torch'}))
    monkeypatch.delenv('KERAS_BACKEND', raising=False)
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    with pytest.raises(UserError, match='keras.json requests the Keras backend .torch., for which there is no engine'):
        engine.set_up()


@pytest.mark.parametrize('content', [None, '{', '[]', '{"floatx": "float32"}'])
def test_by_default_it_is_keras_own_backend(monkeypatch, tmp_path, content):
    if content is not None:
        (tmp_path / 'keras.json').write_text(content)
    monkeypatch.delenv('KERAS_BACKEND', raising=False)
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    assert engine.set_up('one', 'float32', 'off').describe()['strategy'] == 'OneDeviceStrategy'


def test_a_second_backend_in_one_process(monkeypatch):
    monkeypatch.setenv('KERAS_BACKEND', 'tensorflow')
    monkeypatch.setattr(keras.backend, 'backend', lambda: 'jax')
    with pytest.raises(UserError, match="Keras runs on 'jax' in this process already.*Start a new process"):
        engine.set_up()


def test_a_second_engine_in_one_process():
    """Keras runs on TensorFlow here."""
    for ask in (engine.start, lambda name: engine.set_up(engine=name)):
        with pytest.raises(UserError, match='--engine=jax requests .*Keras runs on .tensorflow. .*Start a new process'):
            ask('jax')
    assert engine.set_up('one', 'float32', 'off', engine='tensorflow').describe()['engine'] == 'tensorflow'
    assert engine.describe()['engine'] == 'tensorflow'


@pytest.fixture
def bus(monkeypatch, tmp_path):
    """A function that makes a machine of these PCI devices (vendor, device); JAX and its package for TPUs are there."""

    def machine(*devices):
        for i, (vendor, device) in enumerate(devices):
            (tmp_path / str(i)).mkdir()
            (tmp_path / str(i) / 'vendor').write_text(f'{vendor}\n')
            (tmp_path / str(i) / 'device').write_text(f'{device}\n')

    monkeypatch.setattr(tpu, '_BUS', str(tmp_path))
    monkeypatch.setattr(tpu.importlib.util, 'find_spec', lambda name: None if name in absent else name)
    monkeypatch.delenv('JAX_PLATFORMS', raising=False)
    absent = []
    machine.absent = absent
    return machine


# A disk and a network card; the latter is of the vendor of TPUs.
OTHERS = (('0x8086', '0x0062'), ('0x1ae0', '0x0042'))


def test_a_tpu_is_seen(bus, monkeypatch):
    assert not tpu.is_usable()
    bus(*OTHERS, ('0x1ae0', '0x0063'))
    assert tpu.is_usable()
    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    assert not tpu.is_usable()


def test_no_tpu_is_seen(bus):
    bus(*OTHERS)
    assert not tpu.is_usable()


def test_a_tpu_without_its_package(bus, caplog):
    bus(('0x1ae0', '0x006f'))
    bus.absent.append('libtpu')
    with caplog.at_level('WARNING', 'absl'):
        assert not tpu.is_usable()
    assert 'no libtpu' in caplog.text and '[tpu]' in caplog.text


def test_auto_is_jax_where_a_tpu_is_seen(bus, monkeypatch, tmp_path):
    """In a process without Keras. Nothing that the user has set is overruled."""
    monkeypatch.delenv('KERAS_BACKEND', raising=False)
    monkeypatch.setenv('KERAS_HOME', str(tmp_path / 'none'))
    monkeypatch.delitem(sys.modules, 'keras')
    assert engine._backend()[0] == 'tensorflow'
    bus(('0x1ae0', '0x005e'))
    assert engine._backend()[0] == 'jax'
    monkeypatch.setenv('KERAS_BACKEND', 'tensorflow')
    assert engine._backend()[0] == 'tensorflow'


def test_the_command_line_refuses_before_anything_is_loaded(tmp_path):
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', '-m', 'seg.seg_main', '--gin_file=gin/deeplab_shapes.gin'],
        env={**os.environ, 'KERAS_BACKEND': 'torch'},
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = [line for line in done.stderr.splitlines() if not line.startswith('import time:')]
    assert done.returncode == 2 and len(told) == 1 and told[0].startswith('seg_main: The environment (KERAS_BACKEND)')
    assert not [name for name in ('tensorflow', 'jax', 'keras') if f'| {name}\n' in done.stderr]


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        ({'strategy': 'two'}, '--strategy=two'),
        ({'strategy': 'mirrored:0'}, '--strategy=mirrored:0'),
        ({'strategy': 'one:2'}, '--strategy=one:2'),
        ({'precision': 'float16'}, '--precision=float16'),
        ({'jit': 'yes'}, '--jit=yes'),
        ({'engine': 'torch'}, '--engine=torch'),
    ],
)
def test_unknown_values(settings, named):
    with pytest.raises(UserError, match=f'{named}: expected'):
        engine.set_up(**settings)
