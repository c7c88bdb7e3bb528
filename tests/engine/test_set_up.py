"""Which engine a process gets, and what is refused at the start."""

import json
import os
import subprocess
import sys

import keras
import pytest

from seg import engine
from seg.errors import UserError


@pytest.mark.parametrize('ask', [engine.set_up, engine.start, engine.describe])
@pytest.mark.parametrize('backend', ['jax', 'torch', 'no such'])
def test_a_backend_without_engine(monkeypatch, ask, backend):
    monkeypatch.setenv('KERAS_BACKEND', backend)
    with pytest.raises(UserError) as info:
        ask()
    message = str(info.value)
    assert 'KERAS_BACKEND' in message and repr(backend) in message and 'This works: KERAS_BACKEND=tensorflow' in message


def test_a_backend_in_keras_own_file(monkeypatch, tmp_path):
    (tmp_path / 'keras.json').write_text(json.dumps({'backend': 'torch'}))
    monkeypatch.delenv('KERAS_BACKEND', raising=False)
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    with pytest.raises(UserError, match='keras.json asks for the Keras backend .torch., for which there is no engine'):
        engine.set_up()


@pytest.mark.parametrize('content', [None, '{', '[]', '{"floatx": "float32"}'])
def test_without_a_word_it_is_keras_default(monkeypatch, tmp_path, content):
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


def test_the_command_line_refuses_before_anything_is_loaded(tmp_path):
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', '-m', 'seg.seg_main', '--gin_file=gin/deeplab_shapes.gin'],
        env={**os.environ, 'KERAS_BACKEND': 'jax'},
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
    ],
)
def test_unknown_values(settings, named):
    with pytest.raises(UserError, match=f'{named}: expected'):
        engine.set_up(**settings)
