"""Files: regular ones are read, JSON of any content gives a value or a reason, writing is whole or nothing."""

import json
import os

import pytest

from seg import files
from seg.errors import UserError, shown


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / 'fifo')
    (tmp_path / 'zero').symlink_to('/dev/zero')
    (tmp_path / 'file').write_bytes(b'abc')
    assert files.irregular(tmp_path / 'fifo') == 'a FIFO'
    assert files.irregular(tmp_path / 'zero') == 'a device'
    assert files.irregular(tmp_path) == 'a folder'
    assert files.irregular(tmp_path / 'file') is None is files.irregular(tmp_path / 'nothing')
    assert files.read_bytes(tmp_path / 'file') == b'abc'
    for name in ('fifo', 'zero', 'nothing'):
        with pytest.raises(UserError, match=name):
            files.read_bytes(str(tmp_path / name))


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'{"a": [1', 'truncated'),
        (b'', 'truncated'),
        (b'{"a": 1,\n x}', 'line 2, column 2'),
        (b'["\xe9"]', 'byte 2'),
        (b'[' * 10**6, 'nested'),
        (b'[' * 10**5 + b']' * 10**5, 'nested'),
        (b'[' + b'1' * 5000 + b']', 'digits'),
    ],
)
def test_damaged_json_has_a_reason(tmp_path, content, reason):
    with pytest.raises(ValueError, match=reason):
        files.parse_json(content)
    (tmp_path / 'x.json').write_bytes(content)
    with pytest.raises(UserError, match='x.json.*Mend it.'):
        files.read_json(str(tmp_path / 'x.json'), 'Mend it.')


def test_json_with_a_byte_order_mark():
    assert files.parse_json(b'\xef\xbb\xbf{"a": 1}') == {'a': 1}


def test_json_with_half_a_surrogate_pair_comes_back(tmp_path):
    """Such as a file name that is no UTF-8, which Python reads with surrogates."""
    path = str(tmp_path / 'x.json')
    files.write_json(path, {'caf\udce9': '\ud800'})
    assert files.read_json(path, '') == {'caf\udce9': '\ud800'}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = str(tmp_path / 'x.json')
    files.write_json(path, {'é': 1})
    with pytest.raises(UserError, match='cannot write'), files.replacing(path) as temporary:
        with open(temporary, 'w') as file:
            file.write('half')
        raise OSError(28, 'No space left on device')
    with open(path, encoding='utf-8') as file:
        assert json.load(file) == {'é': 1}
    assert os.listdir(tmp_path) == ['x.json']


def test_the_system_s_own_error_and_another_temporary_file(tmp_path):
    path, temporary = str(tmp_path / 'x.json'), str(tmp_path / 'scratch')
    with files.atomically(path, temporary, sync=False) as name:
        assert name == temporary
        (tmp_path / 'scratch').write_text('new')
        assert not os.path.exists(path)
    assert os.listdir(tmp_path) == ['x.json']
    with pytest.raises(OSError, match='No space'), files.atomically(path, temporary):
        (tmp_path / 'scratch').write_text('half')
        raise OSError(28, 'No space left on device')
    assert os.listdir(tmp_path) == ['x.json'] and (tmp_path / 'x.json').read_text() == 'new'


def test_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / 'x').mkdir()
    with pytest.raises(UserError, match="x'"):
        files.write_text(str(tmp_path / 'x'), 'text')


def test_a_folder_replaces_another(tmp_path, monkeypatch):
    """Also after a kill between the two renames, which leaves the old one beside its place."""
    old, path = tmp_path / 'old', tmp_path / 'there'
    for content in ('first', 'second'):
        old.mkdir()
        (old / content).touch()
        files.replace_folder(str(old), str(path))
        assert os.listdir(tmp_path) == ['there'] and os.listdir(path) == [content]
    old.mkdir()
    rename = os.rename
    monkeypatch.setattr(
        os, 'rename', lambda source, target: rename(source, target) if source == str(path) else killed()
    )
    with pytest.raises(KeyboardInterrupt):
        files.replace_folder(str(old), str(path))
    monkeypatch.undo()
    assert os.listdir(tmp_path / 'there.replaced') == ['second']
    files.replace_folder(str(old), str(path))
    assert os.listdir(tmp_path) == ['there'] and not os.listdir(path)


def killed():
    raise KeyboardInterrupt


def test_only_what_dead_processes_left_is_swept(tmp_path):
    names = ['a.json.tmp-999999999', f'b.json.tmp-{os.getpid()}', f'a.json.tmp-{os.getppid()}', 'a.tmp-notes', 'a.json']
    for name in names:
        (tmp_path / name).write_text('x')
    (tmp_path / 'b.tmp-999999999' / 'within').mkdir(parents=True)
    files.sweep(str(tmp_path), 'a.json')
    assert sorted(os.listdir(tmp_path)) == sorted([*names[1:], 'b.tmp-999999999'])
    files.sweep(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(names[2:])
    files.sweep(str(tmp_path / 'nowhere'))


def test_shown_values_are_short():
    deep = []
    for _ in range(5000):
        deep = [deep]
    for value in (deep, 'x' * 10**6, [[1] * 1000] * 1000, {n: 'y' * 100 for n in range(1000)}, 10**4000):
        assert len(shown(value)) <= 60
    assert shown('disc ') == "'disc '"
    assert shown(1) != shown('1')
    assert shown('e\u0301') == r"'e\u0301'" and shown('é') == "'é'"


def test_messages_are_bounded():
    assert len(str(UserError('x' * 10**7))) < 10_000
