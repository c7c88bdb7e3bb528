"""Engines: each folder here is the engine of the Keras backend of that name. Importing this package loads none."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pkgutil
import sys
from typing import TYPE_CHECKING, Any

from seg.engine import tpu
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
) -> Engine:
    """Makes the engine of this process and sets Keras' precision policy. Call it before any tensor or layer exists.

    Args:
      strategy: `auto` (all GPUs or TPU cores of this machine, or one CPU device), `one`, `mirrored`, or `mirrored:N`
        for N devices; without GPUs these are N logical CPU devices. The last two are for TensorFlow only.
      precision: `auto` (bfloat16 if the hardware multiplies it, otherwise float32), `float32` or `bfloat16`.
      jit: `auto` (XLA on GPUs; on the CPU it is slower than oneDNN), `on` or `off`. JAX always uses XLA.
      deterministic: whether the same seed gives bit-equal results, at some cost in speed.
      engine: `tensorflow`, `jax`, or `auto`: that of the Keras backend that is set; if none is set, JAX where there is
        a TPU, and TensorFlow elsewhere.

    Raises:
      UserError: for an unknown value, more devices than there are, or an engine that this process cannot have.
    """
    module = _module(engine)
    name, _, count = strategy.partition(':')
    if name not in ('auto', 'one', 'mirrored') or (
        count and (name != 'mirrored' or not count.isdigit() or count == '0')
    ):
        raise UserError(f'--strategy={strategy}: expected auto, one, mirrored, or mirrored:N with N devices.')
    for flag, value, known in (('precision', precision, PRECISIONS), ('jit', jit, ('auto', 'on', 'off'))):
        if value not in known:
            raise UserError(f'--{flag}={value}: expected {", ".join(known[:-1])} or {known[-1]}.')
    return module.set_up(strategy, precision, jit, deterministic)


def start(engine: str = 'auto') -> None:
    """Loads the framework and finds the devices. Some frameworks print messages at that time.

    Args:
      engine: as for `set_up`.

    Raises:
      UserError: for an engine that this process cannot have.
    """
    _module(engine).start()


def describe() -> dict[str, Any]:
    """Returns engine, versions, system, processor, devices and memory, for `--version`, `run.json` and reports."""
    module = _module('auto')
    framework, devices = module.start()
    from seg.engine import machine

    return machine.describe({'engine': module.__name__.split('.')[-2], **framework}, devices)


def _module(engine: str) -> Any:
    """Returns the module of an engine, whose Keras backend this process uses, or will use."""
    engines = [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg]
    if engine not in ('auto', *engines):
        raise UserError(f'--engine={engine}: expected one of auto, {", ".join(engines)}.')
    backend, place = _backend() if engine == 'auto' else (engine, f'--engine={engine}')
    if backend not in engines:
        raise UserError(
            f'{place} asks for the Keras backend {shown(backend)}, for which there is no engine. This works: '
            f'{" or ".join(f"KERAS_BACKEND={name}" for name in engines)}, set before the start.'
        )
    keras = sys.modules.get('keras')
    if keras is not None and keras.backend.backend() != backend:
        raise UserError(
            f'{place} asks for the Keras backend {backend!r}, but Keras runs on {keras.backend.backend()!r} in this '
            'process already, and a process has one backend. Start a new process.'
        )
    if importlib.util.find_spec(backend) is None:
        raise UserError(f"{place} asks for {backend}, which is not installed. pip install -e '.[{backend}]' does that.")
    if keras is None:
        os.environ['KERAS_BACKEND'] = backend  # Keras reads it at its import.
    return importlib.import_module(f'{__name__}.{backend}.engine')


def _backend() -> tuple[Any, str]:
    """Returns the Keras backend that is set, or the best one for this machine, and the place of the setting."""
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
    except (OSError, ValueError, KeyError, TypeError):  # Keras ignores such a file, too.
        return 'tensorflow', "Keras' default"
