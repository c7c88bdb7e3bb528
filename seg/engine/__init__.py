"""Engines: each folder here is the engine of the Keras backend of that name. Importing this package loads none.

Its module `engine` has `set_up` and `start`; if it can have several processes, its module `processes` has `join` and
`leave`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pkgutil
import sys
from typing import TYPE_CHECKING, Any

from seg import log_level
from seg.engine import tpu
from seg.engine.jax import chips
from seg.errors import UserError, shown

if TYPE_CHECKING:
    from seg.engine.base import Engine

PRECISIONS = ('auto', 'float32', 'bfloat16')


def set_up(
    strategy: str = 'auto',
    precision: str = 'auto',
    jit: str = 'auto',
    deterministic: bool = False,
    engine: str = 'auto',
    topology: str = '',
) -> Engine:
    """Makes the engine of this process and sets Keras' precision policy. Call it before any tensor or layer exists.

    Args:
      strategy: `auto` (all GPUs or TPU cores of this machine, or one CPU device), `one`, `mirrored`, or `mirrored:N`
        for N devices; without GPUs these are N logical CPU devices. The last two are for TensorFlow only.
      precision: `auto` (bfloat16 if the hardware supports it, otherwise float32), `float32` or `bfloat16`.
      jit: `auto` (XLA on GPUs; on the CPU it is slower than oneDNN), `on` or `off`. JAX always uses XLA.
      deterministic: whether the same seed gives bit-equal results, at some cost in speed.
      engine: `tensorflow`, `jax`, or `auto`: the engine of the Keras backend that is set; if none is set, JAX if there
        is a TPU, and TensorFlow elsewhere.
      topology: a slice of TPUs, such as `v3-8`, that need not exist: the engine then compiles steps and runs none. It
        needs the engine jax. Empty for this machine's devices.

    Raises:
      UserError: for an unknown value, more devices than there are, or an engine that this process cannot have.
    """
    choose(strategy, precision, jit, engine, topology)
    start(engine, topology)
    module = _module(engine, topology)
    if topology:
        return importlib.import_module(f'{__name__}.jax.topology').set_up(topology, strategy, precision, jit)
    return module.set_up(strategy, precision, jit, deterministic)


def choose(
    strategy: str = 'auto', precision: str = 'auto', jit: str = 'auto', engine: str = 'auto', topology: str = ''
) -> str:
    """Checks the arguments of `set_up` as far as no framework is needed. Returns the name of the engine.

    Raises:
      UserError: for an unknown value, or an engine that this process cannot have.
    """
    name, _, count = strategy.partition(':')
    if name not in ('auto', 'one', 'mirrored') or (
        count and (name != 'mirrored' or not count.isdigit() or count == '0')
    ):
        raise UserError(f'--strategy={strategy}: expected auto, one, mirrored, or mirrored:N with N devices.')
    for flag, value, known in (('precision', precision, PRECISIONS), ('jit', jit, ('auto', 'on', 'off'))):
        if value not in known:
            raise UserError(f'--{flag}={value}: expected {", ".join(known[:-1])} or {known[-1]}.')
    return _name(engine, topology)


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    engine: str = 'auto',
) -> None:
    """Joins the other processes of a run. Call it before everything else; all processes call it.

    Without arguments, JAX finds the processes of a Slurm step, a Kubernetes job or a Cloud TPU slice; elsewhere a
    process is alone.

    Args:
      coordinator: `host:port` of process 0, which the others can reach.
      num_processes: their number.
      process_id: number of this process, from 0.
      engine: as for `set_up`; only `jax` has several processes, and `auto` becomes `jax` if a coordinator is given.

    Raises:
      UserError: for a wrong value, an engine without processes, or if the processes do not find each other.
    """
    given = {'coordinator': coordinator, 'num_processes': num_processes, 'process_id': process_id}
    missing = [f'--{name}' for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise UserError(f'{" and ".join(missing)} missing: expected --coordinator, --num_processes and --process_id.')
    if coordinator is not None:
        host, _, port = coordinator.rpartition(':')
        if not host or not port.isdigit():
            raise UserError(f'--coordinator={coordinator}: expected host:port of process 0, such as 10.0.0.1:8476.')
        if num_processes < 1 or not 0 <= process_id < num_processes:
            raise UserError(
                f'--process_id={process_id} with --num_processes={num_processes}: expected a number from 0 to '
                '--num_processes - 1, a different one in each process.'
            )
        engine = 'jax' if engine == 'auto' else engine
    name = _name(engine)
    if importlib.util.find_spec(f'{__name__}.{name}.processes'):
        importlib.import_module(f'{__name__}.{name}.processes').join(coordinator, num_processes, process_id)
    elif coordinator is not None:
        raise UserError(f'--coordinator={coordinator}: the engine {name} has one process. Expected --engine=jax.')


def leave(failed: bool) -> None:
    """Ends the connection to the other processes of the run, if there are any.

    Args:
      failed: whether this process ends with an error. Otherwise it waits until all have ended.
    """
    for name in _engines():
        if processes := sys.modules.get(f'{__name__}.{name}.processes'):
            processes.leave(failed)


def start(engine: str = 'auto', topology: str = '') -> None:
    """Loads the framework and finds the devices, without the messages that a framework prints at that time.

    Args:
      engine: as for `set_up`.
      topology: as for `set_up`.

    Raises:
      UserError: for an engine that this process cannot have.
    """
    with log_level.quiet_start():
        _module(engine, topology).start()


def describe() -> dict[str, Any]:
    """Returns engine, versions, system, processor, devices and memory, for `--version`, `run.json` and reports."""
    module = _module('auto')
    framework, devices = module.start()
    from seg.engine import machine

    return machine.describe({'engine': module.__name__.split('.')[-2], **framework}, devices)


def _engines() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg]


def _module(engine: str, topology: str = '') -> Any:
    """Returns the module of an engine, whose Keras backend this process uses, or will use."""
    return importlib.import_module(f'{__name__}.{_name(engine, topology)}.engine')


def _name(engine: str, topology: str = '') -> str:
    """Returns the name of an engine, which is never `auto`, and chooses its Keras backend for this process."""
    engines = _engines()
    if engine not in ('auto', *engines):
        raise UserError(f'--engine={engine}: expected one of auto, {", ".join(engines)}.')
    if topology:
        chips.find(topology)
        if engine == 'tensorflow':
            raise UserError(f'--engine={engine}: --topology={topology} needs the engine jax. Expected auto or jax.')
        backend, place = 'jax', f'--topology={topology}'
    else:
        backend, place = _backend() if engine == 'auto' else (engine, f'--engine={engine}')
    if backend not in engines:
        raise UserError(
            f'{place} requests the Keras backend {shown(backend)}, for which there is no engine. Set '
            f'{" or ".join(f"KERAS_BACKEND={name}" for name in engines)} before the start.'
        )
    keras = sys.modules.get('keras')
    if keras is not None and keras.backend.backend() != backend:
        raise UserError(
            f'{place} requests the Keras backend {backend!r}, but Keras runs on {keras.backend.backend()!r} in this '
            'process already, and a process has one backend. Start a new process.'
        )
    if importlib.util.find_spec(backend) is None:
        raise UserError(
            f"{place} requests {backend}, which is not installed. Install it: pip install -e '.[{backend}]'"
        )
    if keras is None:
        os.environ['KERAS_BACKEND'] = backend  # Keras reads it at its import.
    if topology:
        os.environ['JAX_PLATFORMS'] = 'cpu'  # A TPU or a GPU of this machine is left to others.
    return backend


def _backend() -> tuple[Any, str]:
    """Returns the Keras backend that is set, or the best one for this machine, and the source of the setting."""
    if backend := os.environ.get('KERAS_BACKEND'):
        return backend, 'The environment (KERAS_BACKEND)'
    if 'keras' not in sys.modules and tpu.is_usable():
        return 'jax', 'The TPU of this machine'
    home = os.path.expanduser('~')
    folder = os.environ.get('KERAS_HOME') or os.path.join(home if os.access(home, os.W_OK) else '/tmp', '.keras')
    path = os.path.join(folder, 'keras.json')
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)['backend'], path
    except (OSError, ValueError, KeyError, TypeError):  # Keras ignores such a file as well.
        return 'tensorflow', "Keras' default"
