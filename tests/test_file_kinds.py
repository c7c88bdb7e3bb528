"""Gin files and plugin files as editors and people leave them: read, or refused with the place and the remedy."""

import os
import pathlib

import pytest

from seg import config, modes, plugins
from seg.errors import UserError


@pytest.fixture(autouse=True)
def _no_settings():
    config.clear()
    yield
    config.clear()


def test_byte_order_mark_is_no_part_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path('bom.gin').write_bytes(b'\xef\xbb\xbfSTEPS = 3\r\n# Gr\xc3\xb6\xc3\x9fe\r\n')
    config.parse(['bom.gin'])
    assert config.snapshot().endswith('STEPS = 3\n')


def test_include_beside_the_file_and_in_the_home_directory(tmp_path, monkeypatch):
    (tmp_path / 'mine' / 'parts').mkdir(parents=True)
    (tmp_path / 'mine' / 'run.gin').write_text("include 'base.gin'\ninclude 'parts/net.py'\nB = 2\n")
    (tmp_path / 'mine' / 'base.gin').write_text('A = 1\n')
    (tmp_path / 'mine' / 'parts' / 'net.py').write_text('loaded = True\n')
    monkeypatch.setenv('HOME', str(tmp_path / 'mine'))
    monkeypatch.chdir(tmp_path)
    for name in ('mine/run.gin', '~/run.gin'):
        config.clear()
        config.parse([name])
        text = config.snapshot()
        assert 'A = 1' in text and 'B = 2' in text and str(tmp_path / 'mine' / 'parts' / 'net.py') in text


@pytest.mark.parametrize(
    ('content', 'parts'),
    [
        (b'STEPS = 3\n# Gr\xf6e\n', ['line 2', '0xf6', 'UTF-8']),
        ('STEPS = 3\n'.encode('utf-16'), ['line 1', '0xff', 'UTF-8']),
        (b'STEPS\0 = 3\n', ['zero byte']),
    ],
)
def test_files_that_are_no_text(tmp_path, content, parts):
    path = tmp_path / 'a.gin'
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        config.parse([str(path)])
    assert all(part in str(caught.value) for part in [str(path), '--gin_file', *parts])


@pytest.mark.parametrize('ending', ['gin', 'py'])
def test_fifos_and_folders_are_no_files(tmp_path, ending):
    os.mkfifo(tmp_path / f'pipe.{ending}')
    (tmp_path / f'folder.{ending}').mkdir()
    read = (lambda path: config.parse([path])) if ending == 'gin' else (lambda path: plugins.load([path]))
    for name, kind in (('pipe', 'a FIFO'), ('folder', 'a folder')):
        path = str(tmp_path / f'{name}.{ending}')
        with pytest.raises(UserError) as caught:
            read(path)
        assert repr(path) in str(caught.value) and kind in str(caught.value)


@pytest.mark.parametrize('content', [b'x = "\0"\n', b'x = "\xf6"\n'])
def test_plugin_file_that_is_no_python(tmp_path, content):
    path = tmp_path / 'bad.py'
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        plugins.load([str(path)])
    assert str(path) in str(caught.value) and 'SyntaxError' in str(caught.value)


@pytest.mark.parametrize('value', ['losses.dice', '[losses.dice]', '[@losses.ohem_cross_entropy, losses.dice]'])
def test_reference_without_its_sign(value):
    modes.load_parts()
    with pytest.raises(UserError) as caught:
        config.parse((), [f'tasks.semantic.losses={value}'])
    text = str(caught.value)
    assert '@losses.dice' in text.replace(f'losses={value}', '') and 'ast.' not in text


@pytest.mark.parametrize('value', ['[1, f(2)]', '{1: [x]}', '(a.b, 3)'])
def test_other_values_that_are_none(value):
    with pytest.raises(UserError) as caught:
        config.parse((), [f'STEPS={value}'])
    assert 'Python literals' in str(caught.value) and 'object at' not in str(caught.value)
