"""The engine: the devices of one process or several, and the trainer, evaluator and predictor on them."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from absl import logging

from seg.engine import base
from seg.engine import precision as precisions
from seg.engine.jax import devices as all_devices
from seg.engine.jax.devices import Devices
from seg.engine.jax.evaluation import Evaluation
from seg.engine.jax.predictor import Predictor
from seg.engine.jax.trainer import Trainer
from seg.engine.optimizer_step import OptimizerStep
from seg.errors import UserError
from seg.structures import Input, Share


def set_up(strategy: str, precision: str, jit: str, deterministic: bool) -> JaxEngine:
    """See `seg.engine.set_up`."""
    if strategy.startswith('mirrored'):
        raise UserError(
            f'--strategy={strategy}: only the engine tensorflow has it, and this process has the engine jax. '
            'Expected auto, for all devices that JAX sees, or one. CUDA_VISIBLE_DEVICES selects GPUs; without GPUs '
            'XLA_FLAGS=--xla_force_host_platform_device_count=N makes N devices of the CPU.'
        )
    if jit == 'off':
        raise UserError(f'--jit={jit}: the engine jax compiles every step with XLA. Expected auto or on.')
    all_devices.keep_tensorflow_on_the_cpu()
    chosen = jax.devices() if strategy == 'auto' else _first_of_each_process()
    native = all_devices.have_bfloat16(chosen)
    if precision == 'auto':
        precision = 'bfloat16' if native else 'float32'
    precisions.set_precision(precision)
    engine = JaxEngine(Devices(chosen, deterministic), precision)
    logging.info('%d device(s) of kind %s, %s, JAX', engine.num_devices, engine.devices.platform.upper(), precision)
    precisions.tell_cost(precision, native)
    if engine.process.count > 1:
        logging.info('Process %d of %d; process 0 writes.', *engine.process)
    return engine


def _first_of_each_process() -> list[jax.Device]:
    return list({device.process_index: device for device in reversed(jax.devices())}.values())


def start() -> tuple[dict[str, str], list[str]]:
    """Starts JAX, and TensorFlow without GPUs.

    Returns the versions of this engine's libraries, and the names of all devices.
    """
    all_devices.keep_tensorflow_on_the_cpu()
    versions = {'jax': jax.__version__}
    for name in ('jaxlib', 'libtpu', 'tensorflow'):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions, all_devices.names()


class JaxEngine(base.Engine):
    """One process, or several that share a run, on some of their devices."""

    def __init__(self, devices: Devices, precision: str = 'float32'):
        self.devices, self.precision, self.deterministic = devices, precision, devices.deterministic

    @property
    def num_devices(self) -> int:
        return self.devices.count

    @property
    def process(self) -> Share:
        return self.devices.share

    @property
    def chief(self) -> bool:
        return self.process.index == 0

    def agree(self, flag: bool) -> bool:
        (flags,) = self.devices.gathered([np.bool_(flag)])
        return any(flags)

    def memory(self) -> base.Memory:
        return self.devices.memory()

    def scope(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def trainer(self, task, optimizer, settings: OptimizerStep) -> Trainer:
        return Trainer(task, optimizer, settings, self.devices)

    def evaluator(
        self, task, summing: Sequence[Any], by_row: Sequence[Any]
    ) -> Callable[[Input, bool], Iterator[base.EvaluatedBatch]]:
        return Evaluation(task, summing, by_row, self.devices)

    def predictor(self, task, checkpoint: str) -> Predictor:
        return Predictor(task, checkpoint, self.devices.of_this_process())

    def set_model(self, parts: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
        named = {f'{part}/{v.path}': v for part, layer in parts.items() for v in layer.variables}
        copies = self.devices.copied({name: values[name].astype(v.value.dtype) for name, v in named.items()})
        for name, variable in named.items():
            variable.assign(copies[name])

    def describe(self) -> dict[str, Any]:
        return {
            'engine': 'jax',
            'precision': self.precision,
            'strategy': 'shard_map',
            'replicas': self.num_devices,
            'processes': self.process.count,
            'jit_compile': True,
            'deterministic': self.deterministic,
        }
