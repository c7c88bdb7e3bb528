"""What a notebook shows of a run, with a stand-in for IPython."""

import logging as python_logging
import sys
import types

import pytest
from absl import logging

from seg import log_level
from seg.errors import UserError
from seg.executor import notebook
from seg.executor.progress import Progress


@pytest.fixture
def ipython(monkeypatch):
    """Makes this process look like a notebook's."""
    monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace(get_ipython=object))
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: False, raising=False)
    with log_level.at(logging.WARNING):
        yield


def test_messages_and_progress(ipython, capsys):
    logger = logging.get_absl_logger()
    handlers = list(logger.handlers)
    with notebook.messages():
        logging.info('begins')
        progress = Progress('training', 10, 'steps')
        progress.update(5, 'loss 0.5', force=True)
        logging.warning('look at %s', 'this')
        progress.update(10, force=True)
        progress.close()
    logging.info('not shown')
    shown = capsys.readouterr()
    assert shown.err == '' and 'not shown' not in shown.out
    lines = [line.strip() for line in shown.out.replace('\r', '\n').splitlines() if line.strip()]
    assert [line.partition(' ')[2] for line in (lines[0], lines[2])] == ['begins', 'look at this']
    assert lines[1].startswith('training: 5/10 steps, loss 0.5') and lines[3].startswith('training: 10/10 steps')
    assert logging.get_verbosity() == logging.WARNING and logger.handlers == handlers


def test_settings_of_the_user_stay(ipython, capsys):
    """Whoever has the log shown already gets nothing twice."""
    logging.set_verbosity(logging.INFO)
    handlers = list(logging.get_absl_logger().handlers)
    with notebook.messages():
        assert logging.get_absl_logger().handlers == handlers
    assert logging.get_verbosity() == logging.INFO


def test_nothing_changes_elsewhere():
    root = list(python_logging.getLogger().handlers)
    with notebook.messages():
        assert notebook.stream() is None and python_logging.getLogger().handlers == root


def test_a_mistake_is_one_message():
    """IPython shows it in place of a traceback."""
    assert UserError('a: 3, expected 4.')._render_traceback_() == ['UserError: a: 3, expected 4.']
