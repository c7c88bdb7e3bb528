"""The level of the log within a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def at(verbosity: int) -> Iterator[None]:
    """Context in which the log has another level, such as `absl.logging.WARNING`. Afterwards it is as before."""
    logger, before = logging.get_absl_logger(), logging.get_verbosity()
    level = logger.level
    logging.set_verbosity(verbosity)
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logger.setLevel(level)  # `set_verbosity` alone would set a level that the user has not set.
