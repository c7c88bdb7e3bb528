"""The trainer: its state, and its steps in loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import keras
import numpy as np

from seg.engine import base
from seg.engine.jax.devices import Devices
from seg.engine.jax.state import State
from seg.engine.jax.train_loop import TrainLoop
from seg.engine.jax.train_step import TrainStep
from seg.engine.optimizer_step import OptimizerStep
from seg.engine.variables import Variables
from seg.structures import Input


class Trainer(base.Trainer):
    """Steps of one task and one optimizer."""

    def __init__(
        self,
        task,
        optimizer: keras.optimizers.Optimizer,
        settings: OptimizerStep,
        devices: Devices,
    ):
        variables = Variables(task.checkpoint_items, optimizer, settings.frozen)
        self._step = TrainStep(task, optimizer, settings, variables)
        self.averages = settings.ema_decay is not None
        self._state = State(variables, devices, self.averages)
        self._devices = devices

    def loop(
        self, source: Input, start: int, traced: Callable[[int], None] = lambda needed: None
    ) -> Callable[[int], base.LoopResult]:
        batches = source.make(start, self._devices.share).as_numpy_iterator()
        return TrainLoop(self._step, self._state, self._devices, batches, traced)

    def to_host(self) -> dict[str, np.ndarray]:
        return self._state.to_host()

    def from_host(self, tensors: Mapping[str, np.ndarray], place: str) -> None:
        self._state.from_host(tensors, place)

    def averaged(self) -> AbstractContextManager[None]:
        return self._state.averaged()
