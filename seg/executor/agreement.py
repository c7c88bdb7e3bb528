"""Agreement between the processes of a run.

All processes take the same steps and get the same numbers from their engine, so that all decide alike; only the chief
writes. If one process meets an error or a signal, it must tell the others, which would otherwise wait for it forever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from seg.engine.base import Engine
from seg.errors import UserError
from seg.executor.stopping import Stopping


@contextlib.contextmanager
def together(engine: Engine) -> Iterator[None]:
    """Surrounds work that may fail in one process only, such as the chief's writing: if it fails, all processes end.

    It is also a barrier: no process leaves it before all have arrived. Nothing inside may wait for another process.

    Raises:
      UserError: if it failed in another process.
    """
    try:
        yield
    except BaseException:
        engine.agree(True)
        raise
    if engine.agree(False):
        raise UserError(
            'Another process of this run failed; its own message gives the reason. This process ends as well.'
        )


def asked_to_stop(engine: Engine, signals: Stopping) -> bool:
    """Whether any process was asked to stop; then all stop here."""
    if not engine.agree(signals.asked is not None):
        return False
    signals.follow()
    return True
