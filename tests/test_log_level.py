"""The level of the log within a block."""

import logging as python_logging

import pytest
from absl import logging

from seg import log_level


@pytest.mark.parametrize('level', [python_logging.NOTSET, python_logging.ERROR])
def test_the_level_before_returns(level):
    logger = logging.get_absl_logger()
    before = logger.level
    try:
        logger.setLevel(level)
        with log_level.at(logging.WARNING):
            assert not logging.level_info() and logger.level == python_logging.WARNING
        assert logger.level == level
    finally:
        logger.setLevel(before)
