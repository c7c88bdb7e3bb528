"""The processes that share a run: joining them, and the loss of one."""

from __future__ import annotations

import contextlib
import logging as python_logging
import os
import socket
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging

from seg.errors import LostProcessError, UserError, reason

_TO_START = 300  # Seconds in which all processes of a run must have started.
_TO_MISS = 30  # Seconds without a heartbeat after which a process counts as lost: JAX then ends the others.
_TO_END = 60  # Seconds in which all must have ended.
_TO_REPORT = 2  # Seconds for the messages of the others.


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of the run, before anything else in JAX starts.

    Without arguments these are the processes of the Slurm step, Kubernetes job or Cloud TPU slice that this one is
    part of; elsewhere it is alone.

    Args:
      coordinator: `host:port` of process 0.
      num_processes: number of processes.
      process_id: number of this process, from 0.

    Raises:
      UserError: if the address of the coordinator does not work.
    """
    if coordinator is None and 'seg.engine.jax.engine' in sys.modules:
        return  # This is not the first call of the command in this process.
    if coordinator is not None:
        logging.info('Process %d of %d waits for the others at %s.', process_id, num_processes, coordinator)
        _check(coordinator, process_id)
    python_logging.getLogger('jax._src.distributed').setLevel(python_logging.WARNING)
    # JAX would handle SIGTERM, which training handles itself.
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
        # Outside such an environment a process is alone.
    else:
        _keep_standard_output_clean()
        _connect()


def _check(coordinator: str, process_id: int) -> None:
    """Refuses an address that does not work, for which JAX would abort the process."""
    host, _, port = coordinator.rpartition(':')
    if process_id == 0:
        try:
            socket.create_server(('', int(port))).close()
        except (OSError, OverflowError) as error:
            raise UserError(
                f'--coordinator={coordinator}: this is process 0, and cannot listen on port {port}: '
                f'{reason(error)}. Choose another port, in all processes.'
            ) from None
        return
    end = time.monotonic() + _TO_START
    while True:
        try:
            socket.create_connection((host.strip('[]'), int(port)), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            if time.monotonic() > end:
                raise UserError(
                    f'--coordinator={coordinator}: process 0 does not answer there within {_TO_START} seconds: '
                    f'{reason(error)}. Expected its host and port, the same in all processes.'
                ) from None
        time.sleep(0.2)


def _connect() -> None:
    """Takes a sum over all devices, and gathers values of all processes.

    On CPUs the first operation of each kind connects the processes, and fails after 30 seconds; here all arrive
    together.
    """
    from seg.engine.jax.devices import WHOLE, Devices  # They need `reporting_loss`.
    from seg.ops.replicas import sum_over_replicas

    devices = Devices(jax.devices())
    devices.gathered([np.int32(jax.process_index())])
    with reporting_loss(devices.processes):
        add = devices.compiled(lambda _, batch: sum_over_replicas(batch['x']), WHOLE)
        jax.block_until_ready(add((), devices.divided({'x': np.arange(devices.count // devices.processes)})))


def _keep_standard_output_clean() -> None:
    """Redirects file descriptor 1 to the terminal's messages: on CPUs, the library for collectives writes lines to it.

    Python's own output still goes to the standard output.
    """
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), 'w', encoding=sys.stdout.encoding)
    os.dup2(2, 1)


def leave(failed: bool) -> None:
    """Ends the connection to the other processes.

    Args:
      failed: whether this process ends with an error, which the others may not know. Otherwise it waits until all
        have ended.
    """
    if not jax.distributed.is_initialized():
        return
    if not failed:
        with contextlib.suppress(RuntimeError):  # A process has ended without waiting.
            jax.distributed.shutdown()
    elif jax.process_index() == 0:
        time.sleep(_TO_REPORT)  # JAX ends the others with this process.


@contextlib.contextmanager
def reporting_loss(count: int) -> Iterator[None]:
    """Context around work of several processes: turns the loss of one into a message.

    Args:
      count: their number.

    Raises:
      LostProcessError: if one of them is lost.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if count == 1 or 'RESOURCE_EXHAUSTED' in str(error):
            raise
        raise LostProcessError(
            f'Another process of this run has ended, or the network to it has failed: {_first_line(error)} Its own '
            'output may give the reason. Start the same command again in all processes: it resumes from the last '
            'checkpoint.'
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300].rstrip('.') + '.'
