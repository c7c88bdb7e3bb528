"""Runs `iterations_per_loop` training steps in one call to the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from seg.engine.base import LoopResult
from seg.engine.tensorflow import graph_memory
from seg.engine.tensorflow.devices import batches, graph
from seg.engine.tensorflow.train_step import TrainStep
from seg.structures import Input

# Results of every step, and their types.
_DTYPES = {
    'losses': tf.float64,
    'counts': tf.float64,
    'totals': tf.float64,
    'index': tf.int32,
    'weight': tf.float32,
    'gradient_norm': tf.float64,
    'learning_rate': tf.float64,
    'wait': tf.float64,
}


class TrainLoop:
    """Runs training steps on the device, with input from a given position on."""

    def __init__(
        self,
        step: TrainStep,
        source: Input,
        start: int,
        traced: Callable[[int], None],
        *,
        strategy: tf.distribute.Strategy,
        jit_compile: bool,
        clock: bool,
    ):
        """Prepares the graph for tracing.

        Args:
          step: one training step.
          source: training data.
          start: number of steps taken before.
          traced: is called within the first loop, between the tracing and the first step, with the bytes of the
            training.
          strategy: strategy of the devices.
          jit_compile: whether XLA compiles the step.
          clock: whether to measure the wait for data; op determinism allows no clock.
        """
        self._strategy = strategy
        self._clock = tf.timestamp if clock else lambda: tf.constant(np.nan, tf.float64)
        self._traced = traced
        self._iterator = batches(source, strategy, start)
        self._weights = step.state.variables.trained.values()
        self._graphs: dict[int, tf.Graph] = {}  # Of the replicas' steps: one, or with XLA one each.

        def noted(batch):
            result = step(batch)
            self._graphs[id(result.totals.graph)] = result.totals.graph
            return result

        replica_step = graph(noted, jit_compile=True) if jit_compile else noted
        self._run = graph(lambda n: self._steps(replica_step, n))

    def __call__(self, num_steps: int) -> LoopResult:
        """Runs `num_steps` steps and waits for them."""
        # A tensor, so that a shorter last loop needs no new graph.
        values = self._run(tf.constant(num_steps))
        losses, counts = values.pop('losses'), values.pop('counts')
        return LoopResult(
            terms=tuple(losses),
            counted=tuple(counts),
            losses=_columns(losses, num_steps),
            counts=_columns(counts, num_steps),
            **{name: value.numpy() for name, value in values.items()},
        )

    def _steps(self, replica_step, num_steps: tf.Tensor) -> dict[str, Any]:
        """A while loop over steps, one at a time: otherwise the wait for data would be hidden in the step before.

        Returns:
          Values by the names of `_DTYPES`, with a leading [n]; the losses and the counts are dicts by name.
        """
        arrays = {name: tf.TensorArray(dtype, num_steps, infer_shape=False) for name, dtype in _DTYPES.items()}
        names: dict[str, list[str]] = {}  # Filled when the body is traced, which happens in this trace.

        def body(i, arrays):
            values, names['losses'], names['counts'] = self._one_step(replica_step)
            return i + 1, {name: array.write(i, tf.cast(values[name], array.dtype)) for name, array in arrays.items()}

        _, arrays = tf.while_loop(lambda i, _: i < num_steps, body, (0, arrays), parallel_iterations=1)
        self._traced(graph_memory.needed(self._graphs.values(), self._weights))
        self._graphs.clear()
        values = {name: array.stack() for name, array in arrays.items()}
        for key in ('losses', 'counts'):
            columns = tf.unstack(values[key], len(names[key]), axis=1)
            values[key] = dict(zip(names[key], columns, strict=True))
        return values

    def _one_step(self, replica_step) -> tuple[dict[str, Any], list[str], list[str]]:
        """Returns values by the names of `_DTYPES`, and the names of the losses and of the counts."""
        before = self._clock()
        with tf.control_dependencies([before]):
            batch = next(self._iterator)
        leaves = [leaf for value in tf.nest.flatten(batch) for leaf in self._strategy.experimental_local_results(value)]
        with tf.control_dependencies(leaves):
            wait = self._clock() - before
        result = self._strategy.run(replica_step, args=(batch,))
        first = lambda value: self._strategy.experimental_local_results(value)[0]  # noqa: E731
        whole = lambda value: tf.concat(self._strategy.experimental_local_results(value), 0)  # noqa: E731
        values = {
            'losses': tf.stack([first(value) for value in result.losses.values()]),
            'counts': tf.stack([first(value) for value in result.counts.values()]) if result.counts else tf.zeros([0]),
            'totals': whole(result.totals),
            'index': whole(result.index),
            'weight': whole(result.weight),
            'gradient_norm': first(result.gradient_norm),
            'learning_rate': first(result.learning_rate),
            'wait': wait,
        }
        return values, list(result.losses), list(result.counts)


def _columns(values: dict[str, tf.Tensor], length: int) -> np.ndarray:
    """Returns the values as columns, [n, number of values]."""
    return np.stack([value.numpy() for value in values.values()], 1) if values else np.zeros((length, 0))
