"""Archives, including hostile and damaged ones."""

import io
import os
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from seg.datasets.builders import archives
from seg.datasets.builders.archives import Archive
from seg.errors import UserError

CONTENTS = {'a/list.txt': b'one\n\n two \n', 'a/b/one.jpg': bytes(range(256)) * 5, 'a/b/two.jpg': b''}


def zip_of(path, contents, **settings):
    with zipfile.ZipFile(path, 'w', **settings) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return str(path)


def tar_of(path, contents, links=()):
    with tarfile.open(path, f'w:{"gz" if str(path).endswith("gz") else ""}') as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target, kind in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return str(path)


def deflated(path, contents):
    return zip_of(path, contents, compression=zipfile.ZIP_DEFLATED)


WRITERS = {'stored.zip': zip_of, 'deflated.zip': deflated, 'plain.tar': tar_of, 'small.tgz': tar_of}


@pytest.fixture(params=list(WRITERS))
def kind(request):
    return request.param


def refused(action, *arguments):
    with pytest.raises(UserError) as info:
        action(*arguments)
    return str(info.value)


def test_files_by_name(kind, tmp_path):
    archive = Archive(WRITERS[kind](tmp_path / kind, CONTENTS))
    assert archive.names == list(CONTENTS) and 'a/b/one.jpg' in archive and 'a/b' not in archive
    for _ in range(2):  # In any order, repeatedly.
        assert {name: archive.read(name) for name in reversed(archive.names)} == CONTENTS
    assert archives.read_lines(archive, 'a/list.txt') == ['one', 'two']
    assert (archive.beginning('b/one.jpg'), archive.beginning('one.png')) == ('a/', '')


def test_a_missing_file_is_named(kind, tmp_path):
    path = WRITERS[kind](tmp_path / kind, CONTENTS)
    message = refused(Archive(path).read, 'c/one.jpg')
    assert message.startswith(path) and "no file 'c/one.jpg'" in message and "'a/b/one.jpg'" in message


@pytest.mark.parametrize('name', ['../out.txt', '/tmp/seg-out.txt', 'a/../../out.txt', 'C:\\out.txt', '..\\out.txt'])
def test_nothing_is_written(kind, name, tmp_path):
    (tmp_path / 'in').mkdir()
    archive = Archive(WRITERS[kind](tmp_path / 'in' / kind, {name: b'hostile'}))
    assert [archive.read(name) for name in archive.names] == [b'hostile']
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*')] == ['in', f'in/{kind}']
    assert not os.path.exists('/tmp/seg-out.txt')


def test_links_and_devices_are_omitted(tmp_path):
    links = [('link', '/etc/passwd', tarfile.SYMTYPE), ('hard', 'a/list.txt', tarfile.LNKTYPE)]
    links += [('device', '', tarfile.CHRTYPE), ('fifo', '', tarfile.FIFOTYPE), ('folder', '', tarfile.DIRTYPE)]
    assert Archive(tar_of(tmp_path / 'links.tar', CONTENTS, links)).names == list(CONTENTS)
    info = zipfile.ZipInfo('link')
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert Archive(zip_of(tmp_path / 'links.zip', {info: '/etc/passwd', 'file': b'1'})).names == ['file']


def test_a_file_that_is_not_an_archive(tmp_path):
    (tmp_path / 'page.zip').write_bytes(b'<html>not found</html>')
    assert 'not a ZIP or TAR archive' in refused(Archive, str(tmp_path / 'page.zip'))
    assert f'{tmp_path} is a folder' in refused(Archive, str(tmp_path))
    assert 'cannot be read' in refused(Archive, str(tmp_path / 'absent.zip'))


def test_damaged_archives_give_one_message(kind, tmp_path):
    path, rng = WRITERS[kind](tmp_path / kind, CONTENTS), np.random.default_rng(0)
    content, damaged = open(path, 'rb').read(), str(tmp_path / f'damaged-{kind}')
    seen = 0
    for number in range(150):
        changed = bytearray(content[: rng.integers(len(content))] if number % 3 == 0 else content)
        for place in rng.integers(len(changed), size=number % 3 * 2) if changed else ():
            changed[place] = rng.integers(256)
        with open(damaged, 'wb') as file:
            file.write(changed)
        try:
            archive = Archive(damaged)
            for name in archive.names:
                archive.read(name)
        except UserError as error:
            assert str(error).startswith(damaged) and 'download it again' in str(error)
            seen += 1
    assert seen > 20


def test_an_archive_that_decompresses_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, '_MOST', 10_000)
    zeros = {'zeros': bytes(2_000_000), 'after': b'1'}
    assert 'grows to more than' in refused(Archive, tar_of(tmp_path / 'bomb.tgz', zeros))
    assert 'has 2000000 bytes' in refused(Archive(deflated(tmp_path / 'bomb.zip', zeros)).read, 'zeros')


def test_names_of_images_stay_within_a_folder():
    archives.check_names('train.txt', ['2007_000032', 'city/1', 'a..b'])
    for name in ('../up', '/etc/x', 'a/../b', 'a//b', '', 'a\0', './a'):
        with pytest.raises(UserError, match=r'train.txt names the image'):
            archives.check_names('train.txt', ['good', name])
