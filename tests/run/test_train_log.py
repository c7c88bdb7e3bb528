"""`train.log`: lines from before the folder is known, later starts, a cut line, and what is no line of the log."""

import re

import pytest
from absl import logging

from seg.errors import UserError
from seg.run import train_log

STAMP = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d '


def record(path, *lines, command=()):
    with train_log.recording() as log:
        logging.info('before')
        with train_log.recording() as inner:
            assert inner is log
            log.open(str(path), command)
            for line in lines:
                logging.info('%s', line)
        train_log.add('{"step": 3}')
        train_log.add('training: 3/4 steps', timed=True)


def test_lines_before_and_after_the_folder_is_known(tmp_path):
    record(tmp_path / 'log', 'after', command=['seg_main', '--gin_file=my file.gin'])
    first, *lines = (tmp_path / 'log').read_text().splitlines()
    assert first == "$ seg_main '--gin_file=my file.gin'"
    patterns = [f'{STAMP}before', f'{STAMP}after', '{"step": 3}', f'{STAMP}training: .*']
    assert len(lines) == 4 and all(re.fullmatch(*pair) for pair in zip(patterns, lines, strict=True))


def test_a_start_is_appended_also_after_a_cut_line(tmp_path):
    (tmp_path / 'log').write_text('a cut li')
    record(tmp_path / 'log')
    record(tmp_path / 'log')
    text = (tmp_path / 'log').read_text()
    assert text.startswith('a cut li\n\n') and text.count('before') == 2 and '3/4 steps\n\n' in text.replace('\r', '')


def test_an_error_of_a_run_from_python(tmp_path):
    with pytest.raises(UserError), train_log.recording() as log:
        log.open(str(tmp_path / 'log'))
        raise UserError('loss = nan')
    assert 'loss = nan' in (tmp_path / 'log').read_text()


def test_no_run_no_file(tmp_path):
    with train_log.recording():
        logging.info('before')
    assert not list(tmp_path.iterdir())
    train_log.add('outside')


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / 'log').mkdir()
    with pytest.raises(UserError, match='log'), train_log.recording() as log:
        log.open(str(tmp_path / 'log'))
