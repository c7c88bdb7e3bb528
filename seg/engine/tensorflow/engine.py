"""The engine: one `tf.distribute` strategy, and the trainer, evaluator and predictor on it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from seg.engine import base, machine
from seg.engine import precision as precisions
from seg.engine.optimizer_step import OptimizerStep
from seg.engine.tensorflow import devices, ordered_sums
from seg.engine.tensorflow.evaluation import Evaluation
from seg.engine.tensorflow.predictor import Predictor
from seg.engine.tensorflow.trainer import Trainer
from seg.errors import UserError
from seg.structures import WHOLE, Input, Share


def set_up(strategy: str, precision: str, jit: str, deterministic: bool) -> TensorFlowEngine:
    """See `seg.engine.set_up`."""
    gpus = tf.config.list_physical_devices('GPU')
    name, _, count = strategy.partition(':')
    native = devices.gpus_have_bfloat16(gpus) if gpus else precisions.cpu_has_bfloat16()
    if precision == 'auto':
        precision = 'bfloat16' if native else 'float32'
    if precision == 'bfloat16' and not gpus and precisions.onednn_fails_in_bfloat16():
        raise UserError(
            f'--precision=bfloat16: TensorFlow cannot compute in it while ONEDNN_MAX_CPU_ISA='
            f'{os.environ["ONEDNN_MAX_CPU_ISA"]} keeps oneDNN from the AVX-512 of this CPU. Unset it, or use float32.'
        )
    precisions.set_precision(precision)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
        ordered_sums.use()
    made = devices.strategy(name, int(count) if count else None, gpus)
    if jit == 'on' and made.num_replicas_in_sync > 1 and not gpus:
        raise UserError(
            '--jit=on: XLA cannot compile a step that runs on several logical CPU devices. Use --strategy=one.'
        )
    engine = TensorFlowEngine(made, precision, jit == 'on' or (jit == 'auto' and bool(gpus)), deterministic)
    logging.info(
        '%d device(s) of kind %s, %s, XLA %s',
        engine.num_devices,
        'GPU' if gpus else 'CPU',
        precision,
        'on' if engine.jit_compile else 'off',
    )
    precisions.tell_cost(precision, native)
    if not gpus and not devices.has_onednn() and 'TF_ENABLE_ONEDNN_OPTS' not in os.environ:
        logging.warning(
            'oneDNN is off, because TensorFlow was imported before seg: steps take about twice the time. '
            'In a new process, import seg first, or set TF_ENABLE_ONEDNN_OPTS=1.'
        )
    return engine


def start() -> tuple[dict[str, str], list[str]]:
    """Starts TensorFlow. Returns the versions of this engine's libraries, and the names of all devices."""
    return {'tensorflow': tf.__version__, 'onednn': 'on' if devices.has_onednn() else 'off'}, devices.names()


@dataclasses.dataclass(frozen=True)
class TensorFlowEngine(base.Engine):
    """One process, on the devices of a strategy."""

    strategy: tf.distribute.Strategy
    precision: str = 'float32'
    jit_compile: bool = False
    deterministic: bool = False

    @property
    def num_devices(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def process(self) -> Share:
        return WHOLE

    @property
    def chief(self) -> bool:
        return True

    def agree(self, flag: bool) -> bool:
        return flag

    def memory(self) -> base.Memory:
        devices = self.strategy.extended.worker_devices
        if 'GPU' not in devices[0]:
            return machine.memory()
        used = [tf.config.experimental.get_memory_info(device)['current'] for device in devices]
        return base.Memory(sum(used), None)

    def scope(self) -> AbstractContextManager[Any]:
        return self.strategy.scope()

    def trainer(self, task, optimizer, settings: OptimizerStep) -> Trainer:
        return Trainer(task, optimizer, settings, self.strategy, self.jit_compile, self.deterministic)

    def evaluator(
        self, task, summing: Sequence[Any], by_row: Sequence[Any]
    ) -> Callable[[Input, bool], Iterator[base.EvaluatedBatch]]:
        return Evaluation(task, summing, by_row, self.strategy, self.jit_compile)

    def predictor(self, task, checkpoint: str) -> Predictor:
        return Predictor(task, checkpoint, self.strategy, self.jit_compile)

    def set_model(self, parts: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
        for part, layer in parts.items():
            for variable in layer.variables:
                variable.value.assign(tf.cast(values[f'{part}/{variable.path}'], variable.dtype))

    def describe(self) -> dict[str, Any]:
        return {
            'engine': 'tensorflow',
            'precision': self.precision,
            'strategy': type(self.strategy).__name__,
            'replicas': self.num_devices,
            'jit_compile': self.jit_compile,
            'deterministic': self.deterministic,
        }
