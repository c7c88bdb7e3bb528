"""The level of the log within a block."""

from __future__ import annotations

import contextlib
import logging as python_logging
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def at(verbosity: int) -> Iterator[None]:
    """Context in which the log has another level, such as `absl.logging.WARNING`. Afterwards it is as before."""
    # absl sets its own logger's level, or the root's once its handler is in use.
    loggers = logging.get_absl_logger(), python_logging.getLogger()
    before, levels = logging.get_verbosity(), [logger.level for logger in loggers]
    logging.set_verbosity(verbosity)
    try:
        yield
    finally:
        logging.set_verbosity(before)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)  # `set_verbosity` alone would set a level that the user has not set.
