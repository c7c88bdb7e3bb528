"""The level of the log within a block."""

import logging as python_logging

import pytest
from absl import logging

from seg import log_level


@pytest.fixture(params=[False, True], ids=['python_handlers', 'absl_handler'])
def loggers(request):
    """absl's logger and the root, with absl's handler (as in a program run by `absl.app`) or without."""
    root, handler = python_logging.getLogger(), logging.get_absl_handler()
    loggers, handlers = (logging.get_absl_logger(), root, python_logging.getLogger('tensorflow')), list(root.handlers)
    levels = [logger.level for logger in loggers]
    root.handlers[:] = [kept for kept in handlers if kept is not handler] + [handler] * request.param
    yield loggers
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize('level', [python_logging.NOTSET, python_logging.ERROR])
def test_the_level_before_returns(loggers, level):
    for logger in loggers:
        logger.setLevel(level)
    verbosity = logging.get_verbosity()
    with log_level.at(logging.FATAL):
        assert python_logging.getLogger('tensorflow').getEffectiveLevel() == python_logging.CRITICAL
        assert loggers[0].getEffectiveLevel() == python_logging.CRITICAL
    assert [logger.level for logger in loggers] == [level] * len(loggers)
    assert logging.get_verbosity() == verbosity
