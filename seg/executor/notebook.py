"""What IPython and Jupyter show of a run that is started in them: the log, and one line of progress, as plain text."""

from __future__ import annotations

import contextlib
import logging as python_logging
import sys
from collections.abc import Iterator
from typing import TextIO

from absl import logging

from seg import log_level


def stream() -> TextIO | None:
    """Where a cell's text goes; None outside of IPython."""
    ipython = sys.modules.get('IPython')
    return sys.stdout if ipython and ipython.get_ipython() else None


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Context in which a notebook shows the log of seg.

    It changes nothing outside of IPython, or if the log is shown already: after `absl.logging.set_verbosity('info')`.
    """
    text = stream()
    if text is None or logging.level_info():
        yield
        return
    logger = logging.get_absl_logger()
    handler = python_logging.StreamHandler(text)
    # A message takes the place of the line of progress, which the next update shows again.
    handler.setFormatter(python_logging.Formatter('\r%(asctime)s %(message)-90s', '%H:%M:%S'))
    propagates = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False  # Handlers of the notebook would show warnings twice.
    try:
        with log_level.at(logging.INFO):
            yield
    finally:
        logger.propagate = propagates
        logger.removeHandler(handler)
