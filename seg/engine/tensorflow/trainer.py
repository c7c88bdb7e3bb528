"""The trainer: its state, and its steps in loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import keras
import numpy as np
import tensorflow as tf

from seg.engine import base
from seg.engine.optimizer_step import OptimizerStep
from seg.engine.tensorflow.train_loop import TrainLoop
from seg.engine.tensorflow.train_step import TrainStep
from seg.structures import Input


class Trainer(base.Trainer):
    """Steps of one task and one optimizer, on the devices of a strategy."""

    def __init__(
        self,
        task,
        optimizer: keras.optimizers.Optimizer,
        settings: OptimizerStep,
        strategy: tf.distribute.Strategy,
        jit_compile: bool,
        deterministic: bool,
    ):
        self._step = TrainStep(task, optimizer, settings, strategy)
        self._state = self._step.state
        self._strategy, self._jit_compile, self._deterministic = strategy, jit_compile, deterministic
        self.averages = bool(self._state.ema)

    def loop(
        self, source: Input, start: int, traced: Callable[[int], None] = lambda needed: None
    ) -> Callable[[int], base.LoopResult]:
        return TrainLoop(
            self._step,
            source,
            start,
            traced,
            strategy=self._strategy,
            jit_compile=self._jit_compile,
            clock=not self._deterministic,
        )

    def to_host(self) -> dict[str, np.ndarray]:
        return self._state.to_host()

    def from_host(self, tensors: Mapping[str, np.ndarray], place: str) -> None:
        self._state.from_host(tensors, place)

    def averaged(self) -> AbstractContextManager[None]:
        return self._state.averaged()
