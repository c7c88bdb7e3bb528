"""The files of a run's directory: the lock, what --fresh removes, and a damaged run.json."""

import errno
import json
import os

import pytest

from seg import config, experiment, run_dir
from seg.errors import UserError


def checkpoint(folder):
    (folder / 'ckpt-00000002.safetensors').write_bytes(b'')


@pytest.fixture
def settings():
    experiment.load_parts()
    config.parse((), ())


def test_lock_of_a_look_leaves_nothing(tmp_path):
    folder = tmp_path / 'runs' / 'mine'
    with run_dir.locked(str(folder), keep=False):
        assert (folder / '.lock').read_text() == str(os.getpid())
    assert not list(tmp_path.iterdir())
    folder.mkdir(parents=True)
    with run_dir.locked(str(folder), keep=False):
        pass
    assert folder.exists() and not list(folder.iterdir())


def test_look_into_a_directory_that_trains_leaves_its_lock(tmp_path):
    with run_dir.locked(str(tmp_path)):
        with pytest.raises(UserError, match=f'process {os.getpid()} is training'):
            with run_dir.locked(str(tmp_path), keep=False):
                pass
        assert (tmp_path / '.lock').exists()


def test_lock_on_a_full_disk(tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    monkeypatch.setattr(run_dir, 'open', lambda *args, **kwargs: Full(open(*args, **kwargs)), raising=False)
    with pytest.raises(UserError) as caught, run_dir.locked(str(tmp_path)):
        pass
    assert str(tmp_path) in str(caught.value) and 'No space left' in str(caught.value)


def test_clear_removes_temporary_files_and_follows_no_link(tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'photo.jpg').touch()
    run = tmp_path / 'run'
    run.mkdir()
    for name in ('run.json.tmp-1', 'results.json', 'notes.tmp-1'):
        (run / name).touch()
    (run / 'predictions').symlink_to(tmp_path / 'mine')
    run_dir.clear(str(run))
    assert [path.name for path in run.iterdir()] == ['notes.tmp-1'] and (tmp_path / 'mine' / 'photo.jpg').exists()


@pytest.mark.parametrize('name', ['ckpt-00000002.safetensors', 'ckpt-00000002.safetensors.damaged'])
def test_a_damaged_checkpoint_is_a_run(tmp_path, name):
    assert not run_dir.has_checkpoint(str(tmp_path))
    (tmp_path / name).touch()
    assert run_dir.has_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        ('{"training": [1], "free": {}}', 'training is [1]'),
        ('{"training": {"a": 1}, "free": {}}', "training is {'a': 1}"),
        ('{"training": {}, "free": "all"}', "free is 'all'"),
        ('[1, 2]', '[1, 2]'),
        ('{"training": ', 'cut off'),
    ],
)
def test_damaged_run_json(tmp_path, settings, content, found):
    (tmp_path / 'run.json').write_text(content)
    checkpoint(tmp_path)
    for read in (run_dir.check_settings, run_dir.changed_for_evaluation):
        with pytest.raises(UserError) as caught:
            read(str(tmp_path))
        text = str(caught.value)
        assert str(tmp_path / 'run.json') in text and found in text and 'Remove the file' in text


def test_other_settings_are_refused_once_something_is_saved(tmp_path, settings):
    (tmp_path / 'run.json').write_text(json.dumps({'training': {'optimizers.sgd.momentum': '0.9'}, 'free': {}}))
    run_dir.check_settings(str(tmp_path))
    checkpoint(tmp_path)
    with pytest.raises(UserError, match='optimizers.sgd: no longer used'):
        run_dir.check_settings(str(tmp_path))
