"""The checkpoints of a run on disk."""

import os
import resource

import numpy as np
import pytest

from seg.errors import UserError
from seg.executor.checkpoints import Checkpoints
from seg.run.folder import RunFolder
from seg.weights import tensor_file


def save(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, {'model/w': np.full(3, step, np.float32)}, {'train_seconds': step / 2})


def damage(path: str) -> None:
    with open(path, 'rb+') as file:
        file.truncate(os.path.getsize(path) - 1)


def test_nothing_there(tmp_path):
    checkpoints = Checkpoints(RunFolder(str(tmp_path / 'none')), 3)
    assert checkpoints.steps() == [] and checkpoints.latest() is None and checkpoints.best_path() is None
    with pytest.raises(UserError, match='holds no checkpoint: train first'):
        checkpoints.find('latest')
    with pytest.raises(UserError, match='train_and_eval'):
        checkpoints.find('best')
    with pytest.raises(UserError, match='elsewhere'):
        checkpoints.find(str(tmp_path / 'elsewhere'))


def test_keeps_the_newest(tmp_path):
    """By number, not by name: step 1000000000 sorts after 9."""
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 2)
    save(checkpoints, 9, 10, 100, 10**9)
    assert checkpoints.steps() == [100, 10**9]
    latest = checkpoints.latest()
    assert latest.step == 10**9 and latest.metadata['train_seconds'] == 5e8
    np.testing.assert_array_equal(latest.tensors['model/w'], np.full(3, 1e9, np.float32))
    assert sorted(os.listdir(tmp_path)) == ['ckpt-00000100.safetensors', 'ckpt-1000000000.safetensors']


def test_best_is_kept_apart(tmp_path):
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 1)
    save(checkpoints, 4)
    best = checkpoints.keep_best(4)
    save(checkpoints, 8, 12)
    assert checkpoints.steps() == [12]
    assert checkpoints.find('best').step == 4 and checkpoints.find('best').path == best == checkpoints.best_path()
    checkpoints.keep_best(12)
    assert os.listdir(tmp_path / 'best') == ['ckpt-00000012.safetensors']
    np.testing.assert_array_equal(checkpoints.find('best').tensors['model/w'], np.full(3, 12, np.float32))


def test_best_without_hard_links(tmp_path, monkeypatch):
    def link(source, target):
        raise OSError('not on this file system')

    monkeypatch.setattr(os, 'link', link)
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 1)
    save(checkpoints, 4)
    checkpoints.keep_best(4)
    save(checkpoints, 8)
    assert checkpoints.find('best').step == 4


def test_best_twice(tmp_path):
    """An evaluation that is run again after a kill keeps the same checkpoint again, and leaves no other file."""
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 3)
    save(checkpoints, 4)
    for _ in range(2):
        checkpoints.keep_best(4)
        assert os.listdir(tmp_path / 'best') == ['ckpt-00000004.safetensors']


def test_best_does_not_change_with_the_run(tmp_path):
    """The best one may share its bytes with a recent one; writing that again must not reach it."""
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 3)
    save(checkpoints, 4)
    checkpoints.keep_best(4)
    checkpoints.save(4, {'model/w': np.zeros(3, np.float32)}, {})
    np.testing.assert_array_equal(checkpoints.find('best').tensors['model/w'], np.full(3, 4, np.float32))


def test_damaged_newest_is_set_aside(tmp_path, caplog):
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 5)
    save(checkpoints, 4, 8, 12)
    damage(checkpoints.path(8))
    damage(checkpoints.path(12))
    with caplog.at_level('WARNING'):
        assert checkpoints.latest().step == 4
    for step in (8, 12):
        assert f'{checkpoints.path(step)}: not a readable' in caplog.text
        assert os.path.exists(f'{checkpoints.path(step)}.damaged')
    assert checkpoints.steps() == [4] and checkpoints.latest().step == 4
    save(checkpoints, 8)
    assert checkpoints.latest().step == 8


def test_all_damaged(tmp_path):
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 5)
    save(checkpoints, 4, 8)
    for step in (4, 8):
        damage(checkpoints.path(step))
    with pytest.raises(UserError, match='none of its 2 checkpoints') as info:
        checkpoints.latest()
    assert '--fresh' in str(info.value) and '.damaged' in str(info.value)
    assert checkpoints.steps() == [] and RunFolder(str(tmp_path)).has_checkpoint()
    for which in (checkpoints.latest, lambda: checkpoints.find('latest')):
        with pytest.raises(UserError, match='none of its 2 checkpoints'):  # Again and again: that is no empty folder.
            which()


@pytest.mark.parametrize('step', [None, '4', -1, 1.5])
def test_an_invalid_step(tmp_path, step):
    path = str(tmp_path / 'ckpt-00000004.safetensors')
    tensor_file.write(path, {'w': np.zeros(2, np.float32)}, {'step': step})
    with pytest.raises(UserError) as info:
        Checkpoints(RunFolder(str(tmp_path)), 5).find('latest')
    assert 'none of its 1 checkpoints' in str(info.value)


def test_what_cannot_be_opened_stays_where_it_is(tmp_path):
    """A file that cannot be opened today is not set aside, and training does not go back behind it."""
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 5)
    save(checkpoints, 4, 8)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    steps = checkpoints.steps

    def too_many_open():
        found = steps()
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        return found

    checkpoints.steps = too_many_open
    try:
        with pytest.raises(UserError) as info:
            checkpoints.latest()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert checkpoints.path(8) in str(info.value) and 'Too many open files' in str(info.value)
    assert sorted(os.listdir(tmp_path)) == ['ckpt-00000004.safetensors', 'ckpt-00000008.safetensors']


def test_a_kill_before_the_pruning(tmp_path):
    save(Checkpoints(RunFolder(str(tmp_path)), 9), 4, 8, 12)
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 2)
    os.makedirs(tmp_path / 'best')
    (tmp_path / 'best' / 'ckpt-00000004.safetensors.tmp-999999999').write_bytes(b'half')
    checkpoints.clear_up()
    assert checkpoints.steps() == [8, 12] and os.listdir(tmp_path / 'best') == []


def test_by_path(tmp_path):
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 5)
    save(checkpoints, 4, 8)
    found = checkpoints.find(checkpoints.path(4))
    assert found.step == 4 and found.path == checkpoints.path(4)
    damage(checkpoints.path(4))
    with pytest.raises(UserError, match='ckpt-00000004.safetensors'):
        checkpoints.find(checkpoints.path(4))
    assert os.path.exists(checkpoints.path(4))
    with pytest.raises(UserError, match="'beste'.* best"):
        checkpoints.find('beste')


def test_file_that_is_no_checkpoint(tmp_path):
    from safetensors.numpy import save_file

    path = str(tmp_path / 'other.safetensors')
    save_file({'w': np.zeros(2, np.float32)}, path)
    with pytest.raises(UserError, match='is not a checkpoint of a run: its step is None'):
        Checkpoints(RunFolder(str(tmp_path)), 5).find(path)


def test_unfinished_write_is_no_checkpoint(tmp_path):
    """What a kill leaves behind is never taken for a checkpoint."""
    checkpoints = Checkpoints(RunFolder(str(tmp_path)), 5)
    save(checkpoints, 4)
    (tmp_path / 'ckpt-00000008.safetensors.tmp-999999999').write_bytes(b'half')
    (tmp_path / 'ckpt-notes.txt').write_text('mine')
    assert checkpoints.steps() == [4] and checkpoints.latest().step == 4
    checkpoints.clear_up()
    save(checkpoints, 12)
    left = ['ckpt-00000004.safetensors', 'ckpt-00000012.safetensors', 'ckpt-notes.txt']
    assert sorted(os.listdir(tmp_path)) == left, 'the next start takes away what a kill left'
