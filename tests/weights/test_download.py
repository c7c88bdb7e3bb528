"""Downloads of weights, from a server on this machine."""

import concurrent.futures
import hashlib
import http.server
import os
import threading

import pytest

from seg.errors import UserError
from seg.weights import download

CONTENT = bytes(range(256)) * (3 << 12)
SHA256 = 'sha256:' + hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path.startswith('/absent'):
            self.send_error(404)
            return
        self.send_response(200)
        if not self.path.startswith('/unsized'):
            self.send_header('Content-Length', str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path.startswith('/broken') else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server whose `url` begins the addresses; downloads go to tmp_path/models."""
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.requests = []
        server.url = f'http://127.0.0.1:{server.server_port}'
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def files(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / 'models').iterdir()}


@pytest.mark.parametrize('name', ['weights.pth', 'unsized.pth'])
@pytest.mark.parametrize('checksum', [SHA256, SHA256[:15], 'md5:' + hashlib.md5(CONTENT).hexdigest()])
def test_fetched_once(server, tmp_path, name, checksum):
    for _ in range(2):
        path = download.cached(f'{server.url}/{name}?download=1', checksum, 'Weights')
        assert path == str(tmp_path / 'models' / name)
    assert files(tmp_path) == {name: CONTENT}
    assert server.requests == [f'/{name}?download=1']


def test_usual_place(monkeypatch, tmp_path):
    monkeypatch.delenv('KERAS_HOME', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert download.folder() == str(tmp_path / '.keras' / 'models')


def message(server, name, checksum=SHA256, hint=''):
    with pytest.raises(UserError) as info:
        download.cached(f'{server.url}/{name}', checksum, 'Weights of a network', hint)
    return str(info.value)


@pytest.mark.parametrize(
    ('name', 'checksum', 'reason'),
    [
        ('absent.pth', SHA256, '404'),
        ('broken.pth', SHA256, f'ended after {len(CONTENT) // 2} of {len(CONTENT)} bytes'),
        ('weights.pth', 'sha256:00000000', f'checksum {SHA256}, expected sha256:00000000'),
        ('weights.pth', 'md5:00', 'has the checksum md5:'),
    ],
)
def test_failure_leaves_nothing_and_says_what_to_do(server, tmp_path, name, checksum, reason):
    text = message(server, name, checksum, 'Or install it: pip install weights')
    assert text.startswith(f'Weights of a network: cannot download {server.url}/{name}: ') and reason in text
    assert f'put the file there by hand: {tmp_path}/models/{name}\nOr install it: pip install weights' in text
    assert files(tmp_path) == {}


def test_no_network(monkeypatch, tmp_path):
    """A port at which nobody listens."""
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with http.server.HTTPServer(('127.0.0.1', 0), Handler) as closed:
        port = closed.server_port
    with pytest.raises(UserError, match=r'Connection refused.* put the file there by hand: .*models/weights.pth$'):
        download.cached(f'http://127.0.0.1:{port}/weights.pth', SHA256, 'Weights')


def test_wrong_file_in_its_place_is_replaced(server, tmp_path):
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / 'weights.pth').write_bytes(CONTENT[:100])
    assert open(download.cached(f'{server.url}/weights.pth', SHA256, 'Weights'), 'rb').read() == CONTENT
    assert files(tmp_path) == {'weights.pth': CONTENT}


def test_wrong_file_in_its_place_stays_if_there_is_no_better_one(server, tmp_path):
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / 'broken.pth').write_bytes(CONTENT[:100])
    message(server, 'broken.pth')
    assert files(tmp_path) == {'broken.pth': CONTENT[:100]}


def test_file_put_there_by_hand(server, tmp_path):
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / 'absent.pth').write_bytes(CONTENT)
    assert download.cached(f'{server.url}/absent.pth', SHA256, 'Weights') == str(tmp_path / 'models' / 'absent.pth')
    assert server.requests == []


def test_interrupted_by_the_user(server, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.cached(f'{server.url}/weights.pth', SHA256, 'Weights')
    assert files(tmp_path) == {}


def test_folder_that_cannot_be_made(server, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('KERAS_HOME', str(tmp_path / 'file'))
    assert 'file/models/weights.pth' in message(server, 'weights.pth')


def test_several_at_once(server, tmp_path):
    """As the processes of one machine do."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(lambda _: download.cached(f'{server.url}/weights.pth', SHA256, 'Weights'), range(3)))
    assert files(tmp_path) == {'weights.pth': CONTENT} and set(paths) == {str(tmp_path / 'models' / 'weights.pth')}
