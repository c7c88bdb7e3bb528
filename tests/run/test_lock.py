"""The lock on a run's folder."""

import errno
import os

import pytest

from seg.errors import UserError
from seg.run import lock
from seg.run.folder import RunFolder
from seg.run.lock import is_held, locked


def test_a_check_of_the_lock_leaves_nothing(tmp_path):
    folder = tmp_path / 'runs' / 'mine'
    with locked(RunFolder(str(folder)), keep=False):
        assert (folder / '.lock').read_text() == str(os.getpid())
    assert not list(tmp_path.iterdir())
    folder.mkdir(parents=True)
    with locked(RunFolder(str(folder)), keep=False):
        pass
    assert folder.exists() and not list(folder.iterdir())


def test_a_check_during_a_training_leaves_its_lock(tmp_path):
    with locked(RunFolder(str(tmp_path))):
        with pytest.raises(UserError, match=f'process {os.getpid()} is training'):
            with locked(RunFolder(str(tmp_path)), keep=False):
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

    monkeypatch.setattr(lock, 'open', lambda *args, **kwargs: Full(open(*args, **kwargs)), raising=False)
    with pytest.raises(UserError) as caught, locked(RunFolder(str(tmp_path))):
        pass
    assert str(tmp_path) in str(caught.value) and 'No space left' in str(caught.value)


def test_lock_of_a_process_that_has_ended(tmp_path):
    folder = RunFolder(str(tmp_path))
    assert not is_held(folder)
    with locked(folder):
        assert is_held(folder)
    assert not is_held(folder) and os.path.exists(folder.lock)
