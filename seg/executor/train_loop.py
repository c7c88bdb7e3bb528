"""`iterations_per_loop` training steps in one call to the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from seg.executor.hardware import batches
from seg.executor.train_step import TrainStep
from seg.structures import Hardware, Input


class LoopResult(NamedTuple):
    """What the host learns of n steps: numpy arrays with a leading [n].

    Attributes:
      losses: [n, T], by `TrainLoop.term_names`.
      counts: [n, C], by `TrainLoop.count_names`, summed over the global batch.
      totals: [n, B, T], each image's share.
      index: [n, B], positions in the data set.
      weight: [n, B], 0 for images that could not be read.
      gradient_norm, learning_rate: [n].
      wait: [n] seconds spent waiting for the batch; NaN under op determinism, which knows no clock.
    """

    losses: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    index: np.ndarray
    weight: np.ndarray
    gradient_norm: np.ndarray
    learning_rate: np.ndarray
    wait: np.ndarray


# Of LoopResult.
_DTYPES = (tf.float64, tf.float64, tf.float64, tf.int32, tf.float32, tf.float64, tf.float64, tf.float64)


class TrainLoop:
    """Runs training steps on the device, with input from a fixed position on."""

    def __init__(
        self,
        step: TrainStep,
        hardware: Hardware,
        source: Input,
        start: int,
        traced: Callable[[], None] = lambda: None,
    ):
        """Makes the graph ready for tracing.

        Args:
          step: one training step.
          hardware: where.
          source: training data.
          start: steps that were taken before.
          traced: is called within the first loop, between the tracing and the first step.
        """
        strategy = hardware.strategy
        self._step = step
        self._strategy = strategy
        self._clock = (lambda: tf.constant(np.nan, tf.float64)) if hardware.deterministic else tf.timestamp
        self._traced = traced
        self._iterator = batches(source, strategy, start)
        replica_step = tf.function(step, jit_compile=True) if hardware.jit_compile else step
        self._run = tf.function(lambda n: self._steps(replica_step, n), autograph=False)

    @property
    def term_names(self) -> list[str]:
        return self._step.term_names

    @property
    def count_names(self) -> list[str]:
        return self._step.count_names

    def __call__(self, num_steps: int) -> LoopResult:
        """Runs `num_steps` steps and waits for them."""
        # A tensor, so that a shorter last loop is no new graph.
        return LoopResult(*(value.numpy() for value in self._run(tf.constant(num_steps))))

    def _steps(self, replica_step, num_steps: tf.Tensor) -> list[tf.Tensor]:
        """A while loop over steps, one at a time: the wait for data would else be hidden in the step before."""
        arrays = tuple(tf.TensorArray(dtype, size=num_steps, infer_shape=False) for dtype in _DTYPES)

        def body(i, arrays):
            values = self._one_step(replica_step)
            return i + 1, tuple(
                array.write(i, tf.cast(value, array.dtype)) for array, value in zip(arrays, values, strict=True)
            )

        _, arrays = tf.while_loop(lambda i, _: i < num_steps, body, (0, arrays), parallel_iterations=1)
        self._traced()
        return [array.stack() for array in arrays]

    def _one_step(self, replica_step) -> list[Any]:
        before = self._clock()
        with tf.control_dependencies([before]):
            batch = next(self._iterator)
        leaves = [leaf for value in tf.nest.flatten(batch) for leaf in self._strategy.experimental_local_results(value)]
        with tf.control_dependencies(leaves):
            wait = self._clock() - before
        result = self._strategy.run(replica_step, args=(batch,))
        first = lambda value: self._strategy.experimental_local_results(value)[0]  # noqa: E731
        whole = lambda value: tf.concat(self._strategy.experimental_local_results(value), 0)  # noqa: E731
        return [
            first(result.losses),
            first(result.counts),
            whole(result.totals),
            whole(result.index),
            whole(result.weight),
            first(result.gradient_norm),
            first(result.learning_rate),
            wait,
        ]
