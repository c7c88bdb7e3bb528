"""Results of checks of files are cached until a file changes."""

import os
import pathlib
import time
from typing import NamedTuple

import pytest

from seg.datasets import remembered


class Seen(NamedTuple):
    letters: int
    counts: list[int]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache/seg/checked'


@pytest.fixture
def files(tmp_path):
    paths = [[str(tmp_path / f'{n}.png'), str(tmp_path / f'{n}.txt')] for n in range(4)]
    for n, path in enumerate(path for pair in paths for path in pair):
        write(path, 'x' * n)
    return paths


def write(path, text, ago=60):
    pathlib.Path(path).write_text(text)
    os.utime(path, ns=(0, time.time_ns() - int(ago * 10**9)))


def checked(files, key=('reader', '/data'), fault=lambda n: None):
    """The values, and the positions that were checked."""
    looked = []

    def look(n):
        looked.append(n)
        return fault(n) or Seen(sum(len(pathlib.Path(path).read_text()) for path in files[n]), [n, n])

    return remembered.each(key, files, look, Seen, 'looking'), sorted(looked)


def test_a_second_start_checks_only_what_has_changed(files, caplog):
    caplog.set_level('INFO')
    values, looked = checked(files)
    assert looked == [0, 1, 2, 3] and [value.letters for value in values] == [1, 5, 9, 13]
    assert checked(files) == (values, []) and type(checked(files)[0][2]) is Seen
    assert not caplog.messages  # Nothing to wait for.
    write(files[2][1], 'longer than before')
    again, looked = checked(files)
    assert caplog.messages == ['looking: 3 of 4 have been checked already.']
    assert looked == [2] and again[2].letters == 22 and again[3] == values[3]
    write(files[1][0], 'ab', ago=50)  # The same size at another time.
    assert checked(files)[1] == [1]
    assert checked([files[3], files[0]])[1] == checked(files)[1] == []


def test_a_file_that_was_replaced_by_one_of_its_size_and_time_is_checked(files, tmp_path):
    """As by `cp -p` or from an archive in which all files have one time; and by another one within the same second."""
    values, _ = checked(files)
    status = os.stat(files[3][0])
    (tmp_path / 'new').write_text('y' * status.st_size)
    os.utime(tmp_path / 'new', ns=(0, status.st_mtime_ns))
    os.replace(tmp_path / 'new', files[3][0])
    assert os.stat(files[3][0]).st_mtime_ns == status.st_mtime_ns
    assert checked(files) == (values, [3]) and checked(files)[1] == []
    os.utime(files[2][0], ns=(0, os.stat(files[2][0]).st_mtime_ns + 1000))
    assert checked(files)[1] == [2]


def test_each_key_has_its_own_cache(files):
    checked(files)
    assert checked(files, ('reader', '/data', {'all': True}))[1] == [0, 1, 2, 3]
    assert checked(files)[1] == []


def test_faults_and_files_that_have_just_changed_are_checked_again(files):
    values, _ = checked(files, fault=lambda n: 'damaged' if n == 1 else None)
    assert values[1] == 'damaged'
    assert checked(files)[1] == [1] and checked(files)[1] == []
    write(files[3][0], 'new', ago=0)
    assert checked(files)[1] == [3] and checked(files)[1] == [3]
    os.remove(files[0][0])
    assert checked(files, fault=lambda n: 'gone' if n == 0 else None)[0][0] == 'gone'


def test_an_interrupt_keeps_the_results_so_far(files):
    def interrupt(n):
        if n == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checked(files, fault=interrupt)
    assert set(checked(files)[1]) == {2, 3}


@pytest.mark.parametrize(
    'content', [b'', b'{"a": 1}', b'["x", {"a": [[[1, 2]], [3]]}]', b'\xff', b'["\xff", "", 1]', b'[' * 100_000]
)
def test_a_damaged_cache_only_costs_time(files, cache, content):
    values, _ = checked(files)
    (memory,) = cache.iterdir()
    memory.write_bytes(content)
    assert checked(files) == (values, [0, 1, 2, 3])
    assert checked(files)[1] == []


def test_a_cache_that_is_truncated_changed_or_of_other_code_is_not_used(files, cache, monkeypatch):
    checked(files)
    (memory,) = cache.iterdir()
    content = memory.read_bytes()
    memory.write_bytes(content[:-3])
    assert checked(files)[1] == [0, 1, 2, 3]
    assert memory.read_bytes() == content and b'[13,[3,3]]' in content
    memory.write_bytes(content.replace(b'[13,[3,3]]', b'[14,[3,3]]'))
    assert checked(files)[1] == [0, 1, 2, 3]
    monkeypatch.setattr(remembered, '_code', lambda: 'other')
    assert checked(files)[1] == [0, 1, 2, 3]


def test_a_folder_that_cannot_be_written_only_costs_time(files, tmp_path, monkeypatch):
    (tmp_path / 'cache').write_text('a file in the place of the folder')
    assert checked(files)[1] == checked(files)[1] == [0, 1, 2, 3]
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', 'no folder')
    assert checked(files)[1] == checked(files)[1] == [0, 1, 2, 3]
