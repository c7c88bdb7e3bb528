"""Runs `iterations_per_loop` training steps. The host dispatches them, and fetches their results at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from seg.engine.base import HostBatch, LoopResult
from seg.engine.jax.devices import Devices
from seg.engine.jax.processes import reporting_loss
from seg.engine.jax.state import State
from seg.engine.jax.train_step import SPECS, StepResult, TrainStep

_IN_FLIGHT = 2  # Steps that are dispatched and not finished: enough to hide the host's work, few batches in memory.


class TrainLoop:
    """Runs training steps on the devices."""

    def __init__(
        self,
        step: TrainStep,
        state: State,
        devices: Devices,
        batches: Iterator[HostBatch],
        traced: Callable[[int], None],
    ):
        """Prepares the program.

        Args:
          step: one training step.
          state: state of the training.
          devices: the devices.
          batches: this process's rows of each step's batch.
          traced: is called within the first loop, between the compilation and the first step, with the bytes of a step.
        """
        self._state, self._devices, self._traced = state, devices, traced
        self._program = devices.compiled(step, SPECS, donates=True)
        self._run: jax.stages.Compiled | None = None
        self._batches = batches

    def __call__(self, num_steps: int) -> LoopResult:
        """Runs `num_steps` steps and waits for them."""
        state, results = self._state.get(), []
        ends: list[Future[float]] = []  # When each step has ended.
        fetches: list[tuple[float, float]] = []  # When the fetch of each batch has begun and ended.
        try:
            with reporting_loss(self._devices.processes), ThreadPoolExecutor(1) as watcher:
                for i in range(num_steps):
                    begin = time.perf_counter()
                    batch = next(self._batches)
                    fetches.append((begin, time.perf_counter()))
                    batch = self._devices.divided(batch)
                    if self._run is None:
                        self._run = self._program.lower(state, batch).compile()
                        self._traced(self._devices.needed(self._run))
                    if i >= _IN_FLIGHT:
                        ends[i - _IN_FLIGHT].result()
                    state, result = self._run(state, batch)
                    results.append(result)
                    ends.append(watcher.submit(_end, result))
                # The devices wait from the end of the step before.
                free = [0.0, *(end.result() for end in ends[:-1])]
        finally:
            self._state.put(state)
        waits = [max(0.0, end - max(begin, before)) for (begin, end), before in zip(fetches, free, strict=True)]
        return self._on_the_host(results, waits)

    def _on_the_host(self, results: list[StepResult], waits: list[float]) -> LoopResult:
        found = self._devices.to_host(results)
        stacked = lambda values: np.stack([np.asarray(value, np.float64) for value in values])  # noqa: E731
        rows = lambda values: self._rows(np.stack(list(values), axis=1))  # noqa: E731
        return LoopResult(
            terms=found[0].losses.names,
            counted=found[0].counts.names,
            losses=stacked(result.losses.values for result in found),
            counts=stacked(result.counts.values for result in found),
            totals=rows(result.totals for result in found).astype(np.float64),
            index=rows(result.index for result in found),
            weight=rows(result.weight for result in found),
            gradient_norm=stacked(result.gradient_norm for result in found),
            learning_rate=stacked(result.learning_rate for result in found),
            wait=np.array(waits),
        )

    def _rows(self, values: np.ndarray) -> np.ndarray:
        """From this process's rows, [b, n, …], to those of all, [n, B, …]."""
        return np.swapaxes(self._devices.rows_of_all(values), 0, 1)


def _end(result: StepResult) -> float:
    jax.block_until_ready(result)
    return time.perf_counter()
