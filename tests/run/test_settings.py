"""The settings of a run: a damaged run.json, and settings that have changed."""

import json

import pytest

from seg import config, modes
from seg.errors import UserError
from seg.run import settings as run_settings
from seg.run.folder import RunFolder


def checkpoint(folder):
    (folder / 'ckpt-00000002.safetensors').write_bytes(b'')


@pytest.fixture
def settings():
    modes.load_parts()
    config.parse((), ())


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        ('{"training": [1], "free": {}}', 'training is [1]'),
        ('{"training": {"a": 1}, "free": {}}', "training is {'a': 1}"),
        ('{"training": {}, "free": "all"}', "free is 'all'"),
        ('[1, 2]', '[1, 2]'),
        ('{"training": ', 'truncated'),
    ],
)
def test_damaged_run_json(tmp_path, settings, content, found):
    (tmp_path / 'run.json').write_text(content)
    checkpoint(tmp_path)
    for read in (run_settings.check, run_settings.changed_for_evaluation):
        with pytest.raises(UserError) as caught:
            read(RunFolder(str(tmp_path)))
        text = str(caught.value)
        assert str(tmp_path / 'run.json') in text and found in text and 'Remove the file' in text


def test_other_settings_are_refused_once_something_is_saved(tmp_path, settings):
    (tmp_path / 'run.json').write_text(json.dumps({'training': {'optimizers.sgd.momentum': '0.9'}, 'free': {}}))
    run_settings.check(RunFolder(str(tmp_path)))
    checkpoint(tmp_path)
    with pytest.raises(UserError, match='optimizers.sgd: no longer used'):
        run_settings.check(RunFolder(str(tmp_path)))


def test_a_run_of_another_task(tmp_path):
    modes.load_parts()
    config.parse((), ['experiment.task=@tasks.instance'])
    folder = RunFolder(str(tmp_path))
    (tmp_path / 'run.json').write_text(json.dumps({'training': {'experiment.task': '@tasks.semantic'}, 'free': {}}))
    run_settings.check_task(folder)
    checkpoint(tmp_path)
    with pytest.raises(UserError) as caught:
        run_settings.check_task(folder)
    text = str(caught.value)
    assert str(tmp_path) in text and '@tasks.semantic' in text and '@tasks.instance' in text
