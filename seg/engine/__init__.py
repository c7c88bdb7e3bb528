"""Engines: each folder here is the engine of the Keras backend of that name. Importing this package loads none."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
from typing import TYPE_CHECKING, Any

from seg.errors import UserError, shown

if TYPE_CHECKING:
    from seg.engine.base import Engine


def set_up(strategy: str = 'auto', precision: str = 'auto', jit: str = 'auto', deterministic: bool = False) -> Engine:
    """Makes the engine of this process and sets Keras' precision policy. Call it before any tensor or layer exists.

    Args:
      strategy: `auto` (all GPUs of this machine, or one CPU device), `one`, `mirrored`, or `mirrored:N` for N
        devices; without GPUs these are N logical CPU devices.
      precision: `auto` (bfloat16 if the hardware multiplies it, otherwise float32), `float32` or `bfloat16`.
      jit: `auto` (XLA on GPUs; on the CPU it is slower than oneDNN), `on` or `off`.
      deterministic: whether the same seed gives bit-equal results, at some cost in speed.

    Raises:
      UserError: for an unknown value, more devices than there are, or a Keras backend that has no engine.
    """
    return _module().set_up(strategy, precision, jit, deterministic)


def start() -> None:
    """Loads the framework and finds the devices. Some frameworks print messages at that time.

    Raises:
      UserError: for a Keras backend that has no engine.
    """
    _module().start()


def describe() -> dict[str, Any]:
    """Returns versions, system, processor, devices and memory, for `--version`, `run.json` and reports."""
    framework, devices = _module().start()
    from seg.engine import machine

    return machine.describe(framework, devices)


def _module() -> Any:
    """Returns the engine's module for the Keras backend that this process uses, or will use."""
    backend, place = _backend()
    engines = [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg]
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
    return importlib.import_module(f'{__name__}.{backend}.engine')


def _backend() -> tuple[Any, str]:
    """Returns the Keras backend that is set, and the place of the setting, as Keras reads them at its import."""
    if backend := os.environ.get('KERAS_BACKEND'):
        return backend, 'The environment (KERAS_BACKEND)'
    home = os.path.expanduser('~')
    folder = os.environ.get('KERAS_HOME') or os.path.join(home if os.access(home, os.W_OK) else '/tmp', '.keras')
    path = os.path.join(folder, 'keras.json')
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)['backend'], path
    except (OSError, ValueError, KeyError, TypeError):  # Keras ignores such a file, too.
        return 'tensorflow', "Keras' default"
