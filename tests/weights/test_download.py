"""Downloads of weights, from a server on this machine."""

import hashlib

import pytest

from seg.errors import UserError
from seg.weights import download
from tests import http_files

CONTENT = bytes(range(256)) * 12
SHA256 = 'sha256:' + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server of one file; downloads go to tmp_path/models."""
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with http_files.served({'/weights.pth': CONTENT}) as server:
        yield server


def files(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / 'models').iterdir()}


def put(tmp_path, name, content):
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / name).write_bytes(content)


def message(server, name, checksum=SHA256, hint=''):
    with pytest.raises(UserError) as info:
        download.cached(f'{server.url}/{name}', checksum, 'Weights of a network', hint)
    return str(info.value)


def test_fetched_once(server, tmp_path):
    for _ in range(2):
        path = download.cached(f'{server.url}/weights.pth?download=1', SHA256, 'Weights')
        assert path == str(tmp_path / 'models' / 'weights.pth')
    assert files(tmp_path) == {'weights.pth': CONTENT}
    assert server.requests == [('/weights.pth?download=1', None)]


def test_usual_place(monkeypatch, tmp_path):
    monkeypatch.delenv('KERAS_HOME', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert download.folder() == str(tmp_path / '.keras' / 'models')


def test_failure_leaves_nothing_and_says_what_to_do(server, tmp_path):
    text = message(server, 'absent.pth', hint='Or install it: pip install weights')
    assert text.startswith(f'Weights of a network: cannot download {server.url}/absent.pth: ') and '404' in text
    assert f'put the file there by hand: {tmp_path}/models/absent.pth\nOr install it: pip install weights' in text
    assert files(tmp_path) == {}


def test_wrong_file_in_its_place_is_replaced(server, tmp_path):
    put(tmp_path, 'weights.pth', CONTENT[:100])
    assert open(download.cached(f'{server.url}/weights.pth', SHA256, 'Weights'), 'rb').read() == CONTENT
    assert files(tmp_path) == {'weights.pth': CONTENT}


def test_wrong_file_in_its_place_stays_if_there_is_no_better_one(server, tmp_path):
    put(tmp_path, 'absent.pth', CONTENT[:100])
    message(server, 'absent.pth')
    assert files(tmp_path) == {'absent.pth': CONTENT[:100]}


def test_file_put_there_by_hand(server, tmp_path):
    put(tmp_path, 'absent.pth', CONTENT)
    assert download.cached(f'{server.url}/absent.pth', SHA256, 'Weights') == str(tmp_path / 'models' / 'absent.pth')
    assert server.requests == []


def test_folder_that_cannot_be_made(server, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('KERAS_HOME', str(tmp_path / 'file'))
    assert 'file/models/weights.pth' in message(server, 'weights.pth')
