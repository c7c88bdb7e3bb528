"""Downloads, from a server on this machine."""

import concurrent.futures
import hashlib
import os

import pytest

from seg import downloads
from seg.errors import UserError
from tests import http_files

CONTENT = bytes(range(256)) * (3 << 12)
SHA256 = 'sha256:' + hashlib.sha256(CONTENT).hexdigest()
MD5 = 'md5:' + hashlib.md5(CONTENT).hexdigest()
NAMES = ('data.zip', 'broken.zip', 'unsized.zip', 'whole.zip')


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with http_files.served({f'/{name}': CONTENT for name in NAMES}) as server:
        yield server


def fetch(server, tmp_path, name='data.zip', checksum=SHA256, hint=''):
    path = tmp_path / 'made' / name
    downloads.fetch(f'{server.url}/{name}', str(path), checksum, 'Pictures', hint)
    return path


def files(tmp_path):
    folder = tmp_path / 'made'
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.mark.parametrize('name', ['data.zip', 'unsized.zip'])
@pytest.mark.parametrize('checksum', [SHA256, SHA256[:15], MD5, ''])
def test_complete_and_checked(server, tmp_path, name, checksum):
    assert fetch(server, tmp_path, name, checksum).read_bytes() == CONTENT
    assert files(tmp_path) == {name: CONTENT}


@pytest.mark.parametrize(
    ('name', 'checksum', 'reason', 'left'),
    [
        ('absent.zip', SHA256, '404', 0),
        ('broken.zip', SHA256, f'ended after {len(CONTENT) // 2} of {len(CONTENT)} bytes', len(CONTENT) // 2),
        ('data.zip', 'sha256:00000000', f'checksum {SHA256}, expected sha256:00000000', 0),
    ],
)
def test_failure_says_what_to_do(server, tmp_path, name, checksum, reason, left):
    with pytest.raises(UserError) as info:
        fetch(server, tmp_path, name, checksum, 'Or buy it.')
    text = str(info.value)
    assert text.startswith(f'Pictures: cannot download {server.url}/{name}: ') and reason in text
    assert f'put the file there by hand: {tmp_path}/made/{name}\nOr buy it.' in text
    assert {name: len(content) for name, content in files(tmp_path).items()} == ({f'{name}.part': left} if left else {})


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    url = http_files.closed_url()
    with pytest.raises(UserError, match=r'Connection refused.* by hand: .*made/data.zip$'):
        downloads.fetch(f'{url}/data.zip', str(tmp_path / 'made' / 'data.zip'), SHA256, 'Pictures')
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ('name', 'left', 'ranges'),
    [
        ('data.zip', CONTENT[:1000], ['bytes=1000-']),
        ('whole.zip', CONTENT[:1000], ['bytes=1000-']),
        ('data.zip', CONTENT + b'?', [f'bytes={len(CONTENT) + 1}-', None]),
    ],
)
def test_an_interrupted_download_is_continued(server, tmp_path, name, left, ranges):
    (tmp_path / 'made').mkdir()
    (tmp_path / 'made' / f'{name}.part').write_bytes(left)
    assert fetch(server, tmp_path, name).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ranges and list(files(tmp_path)) == [name]


def test_a_damaged_part_is_not_kept(server, tmp_path):
    (tmp_path / 'made').mkdir()
    (tmp_path / 'made' / 'data.zip.part').write_bytes(b'other')
    with pytest.raises(UserError, match='has the checksum sha256:'):
        fetch(server, tmp_path)
    assert files(tmp_path) == {}
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_several_at_once(server, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: fetch(server, tmp_path), range(3)))
    assert files(tmp_path) == {'data.zip': CONTENT} and len(server.requests) == 1


def test_interrupted_by_the_user(server, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path)
    assert list(files(tmp_path)) == ['data.zip.part']


def test_mismatch_names_the_checksum(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(CONTENT)
    assert downloads.mismatch(str(path), SHA256) is None
    assert downloads.mismatch(str(path), SHA256[:12]) is None
    assert downloads.mismatch(str(path), 'sha256:zz') == SHA256
    assert downloads.mismatch(str(path), 'md5:zz') == MD5
