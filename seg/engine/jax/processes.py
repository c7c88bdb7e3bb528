"""The processes that share a run: how they find and lose each other."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import jax

from seg.errors import UserError

_TO_START = 300  # Seconds in which all processes of a run must have started.
_TO_MISS = 30  # Seconds without a sign of life after which a process counts as lost: JAX then ends the others.
_TO_END = 60  # Seconds in which all must have ended.
_TO_TELL = 2  # Seconds in which the others tell why they end.


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of the run, before anything else in JAX starts.

    Without arguments these are the processes of the Slurm step, Kubernetes job or Cloud TPU slice that this one is
    part of; elsewhere it is alone.

    Args:
      coordinator: `host:port` of process 0.
      num_processes: their number.
      process_id: number of this one, from 0.

    Raises:
      UserError: if they do not all appear.
    """
    if coordinator is None and 'seg.engine.jax.engine' in sys.modules:
        return  # This is not the first call of the command in this process.
    # It would take SIGTERM, for which training has its own answer.
    jax.config.update('jax_enable_preemption_service', False)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=_TO_START,
            heartbeat_timeout_seconds=_TO_MISS,
            shutdown_timeout_seconds=_TO_END,
        )
    except ValueError:
        if coordinator is not None:
            raise
        # In no such environment a process is alone.
    except RuntimeError as error:
        place = f'--coordinator={coordinator}' if coordinator else 'The coordinator that JAX found in the environment'
        raise UserError(
            f'{place}: the processes of this run did not find each other: {_first_line(error)} Expected process 0 '
            f'there, and all {num_processes or ""} processes started within {_TO_START} seconds, with the same '
            '--coordinator and --num_processes.'
        ) from error


def leave(failed: bool) -> None:
    """Ends the connection to the other processes.

    Args:
      failed: whether this process ends with an error, of which the others may not know. Otherwise it waits until all
        have come to their end.
    """
    if not jax.distributed.is_initialized():
        return
    if not failed:
        with contextlib.suppress(RuntimeError):  # A process has ended without waiting.
            jax.distributed.shutdown()
    elif jax.process_index() == 0:
        time.sleep(_TO_TELL)  # JAX ends the others with this process.


@contextlib.contextmanager
def loss_told(count: int) -> Iterator[None]:
    """Context around work of several processes.

    Args:
      count: their number.

    Raises:
      UserError: if one of them is lost.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if count == 1 or 'RESOURCE_EXHAUSTED' in str(error):
            raise
        raise UserError(
            f'Another process of this run has ended, or the network to it has failed: {_first_line(error)} Its own '
            'output may tell why. Started again in all processes, the same command goes on from the last checkpoint.'
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300].rstrip('.') + '.'
