"""One training step on one replica: losses, gradients, update, moving averages."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from seg.engine.measured import measure
from seg.engine.optimizer_step import OptimizerStep
from seg.engine.tensorflow.devices import replica
from seg.engine.tensorflow.state import State
from seg.ops.replicas import sum_over_replicas
from seg.optimizers.decay import decays


class StepResult(NamedTuple):
    """The results of a step. Scalars are equal on all replicas.

    Attributes:
      losses: by name, float, each loss term over the global batch; the last is the L2 penalty if there is one.
      counts: by name, float, the counts of the task and its losses, summed over the images of all replicas.
      totals: [b, T] float, the contribution of each image of this replica to the loss terms.
      index: [b] int32, the images' positions in the data set.
      weight: [b] float32, 0 for images that could not be read.
      gradient_norm: float, over all variables, before clipping.
      learning_rate: float.
    """

    losses: dict[str, tf.Tensor]
    counts: dict[str, tf.Tensor]
    totals: tf.Tensor
    index: tf.Tensor
    weight: tf.Tensor
    gradient_norm: tf.Tensor
    learning_rate: tf.Tensor


class TrainStep:
    """Builds the optimizer for a task's variables and runs steps on them.

    Gradients are first summed over the replicas. Then follow L2 penalty, norm, clipping, one update (scaled for parts
    with their own rate) and averages. 1 and n replicas thus take the same step on the same global batch.
    """

    def __init__(
        self, task, optimizer: keras.optimizers.Optimizer, settings: OptimizerStep, strategy: tf.distribute.Strategy
    ):
        self._task = task
        self._settings = settings
        self._strategy = strategy
        self.state = State(task.checkpoint_items, optimizer, strategy, settings)
        variables = self.state.variables
        self._trained = list(variables.trained.values())
        self._rates = [(variables.trained[name], rate) for name, rate in variables.rates(settings.part_rates).items()]
        # Keras would sum the gradients over the replicas again inside `apply`.
        optimizer._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars

    def __call__(self, batch: dict[str, tf.Tensor]) -> StepResult:
        """Takes one step on this replica's piece of the batch. Called in replica context."""
        with replica(self._strategy):
            return self._step(batch)

    def _step(self, batch: dict[str, tf.Tensor]) -> StepResult:
        optimizer, settings = self.state.optimizer, self._settings
        variables = self._trained
        step = tf.identity(optimizer.iterations.value)
        with tf.GradientTape() as tape:
            found = measure(self._task, batch, tf.cast(step, tf.int32))
            loss = tf.reduce_sum(found.losses)
        gradients = tape.gradient(loss, [v.value for v in variables])
        gradients = [
            tf.zeros_like(v.value) if g is None else tf.convert_to_tensor(g)
            for g, v in zip(gradients, variables, strict=True)
        ]
        # One reduction for all values that are summed over the replicas.
        *gradients, sums = sum_over_replicas([*gradients, found.sums])
        sums = tf.unstack(sums)
        losses = dict(zip(found.terms, sums[: len(found.terms)], strict=True))
        counts = dict(zip(found.counted, sums[len(found.terms) :], strict=True))
        if settings.l2:
            penalised = [v.value for v in variables if decays(v)]
            gradients = [
                g + settings.l2 * v.value if decays(v) else g for g, v in zip(gradients, variables, strict=True)
            ]
            losses['l2'] = tf.cast(settings.l2 * sum(tf.nn.l2_loss(v) for v in penalised), sums[0].dtype)
        norm = tf.linalg.global_norm(gradients)
        if settings.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, settings.clip_norm, norm)
        learning_rate = tf.convert_to_tensor(optimizer.learning_rate)
        before = [tf.identity(v.value) for v, _ in self._rates]
        optimizer.apply(gradients, variables)
        for (v, rate), old in zip(self._rates, before, strict=True):
            v.assign(old + rate * (v.value - old))
        if settings.ema_decay is not None:
            self.state.update_ema(settings.ema_decay, step)
        return StepResult(losses, counts, found.totals, batch['index'], batch['weight'], norm, learning_rate)
