"""What is shown of the log within a block."""

from __future__ import annotations

import contextlib
import logging as python_logging
import os
import sys
import tempfile
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def at(verbosity: int) -> Iterator[None]:
    """Context in which the log has another level, such as `absl.logging.WARNING`. Afterwards it is as before."""
    # absl sets its own logger's level, or the root's once its handler is in use. TensorFlow's has a level of its own.
    tensorflow = python_logging.getLogger('tensorflow')
    loggers = logging.get_absl_logger(), python_logging.getLogger(), tensorflow
    before, levels = logging.get_verbosity(), [logger.level for logger in loggers]
    logging.set_verbosity(verbosity)
    tensorflow.setLevel(logging.converter.absl_to_standard(verbosity))
    try:
        yield
    finally:
        logging.set_verbosity(before)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)  # `set_verbosity` alone would set a level that the user has not set.


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Hides the start-up lines of TensorFlow, which it writes to file descriptor 2 at every log level."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    sys.stderr.flush()
    try:
        kept = tempfile.TemporaryFile()
    except OSError:  # No space for temporary files: then the lines are shown.
        yield
        return
    with kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
