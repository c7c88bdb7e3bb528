"""What the processes of a run agree on.

All take the same steps and learn the same numbers from their engine, so that all decide alike; the chief alone writes.
What one process alone may meet, an error or a signal, it has to tell the others, which would else wait for it for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from seg.engine.base import Engine
from seg.errors import UserError
from seg.executor.stopping import Stopping


@contextlib.contextmanager
def together(engine: Engine) -> Iterator[None]:
    """Around what may fail in one process alone, such as the chief's writing: where it fails, all end.

    It also keeps an order: no process comes out before all are through. Nothing inside may wait for another process.

    Raises:
      UserError: if it failed in another process.
    """
    try:
        yield
    except BaseException:
        engine.agree(True)
        raise
    if engine.agree(False):
        raise UserError('Another process of this run has ended, for a reason that it tells itself. So does this one.')


def asked_to_stop(engine: Engine, signals: Stopping) -> bool:
    """Whether any process was asked to stop; all of them then stop here."""
    if not engine.agree(signals.asked is not None):
        return False
    signals.follow()
    return True
