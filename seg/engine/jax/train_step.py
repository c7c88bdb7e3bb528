"""One training step on one replica, as a pure function: losses, gradients, update, moving averages."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
from keras import ops

from seg.engine.jax.devices import ROWS, WHOLE
from seg.engine.measured import measure
from seg.engine.optimizer_step import OptimizerStep
from seg.engine.variables import Variables
from seg.ops.replicas import sum_over_replicas
from seg.optimizers.decay import decays

Arrays = dict[str, jax.Array]


@functools.partial(jax.tree_util.register_dataclass, data_fields=['values'], meta_fields=['names'])
@dataclasses.dataclass(frozen=True)
class Named:
    """Values along an axis, and their names, which belong to the traced program."""

    names: tuple[str, ...]
    values: Any


class StepResult(NamedTuple):
    """The results of a step.

    Attributes:
      losses: [T] float, each loss over the global batch; the last is the L2 penalty if there is one.
      counts: [C] float, the counts of the task and its losses, summed over the images of all replicas.
      totals: [b, T] float, the contribution of each image of this replica to the losses.
      index: [b] int32, the images' positions in the data set.
      weight: [b] float32, 0 for images that could not be read.
      gradient_norm: float, over all variables, before clipping.
      learning_rate: float.
    """

    losses: Any
    counts: Any
    totals: Any
    index: Any
    weight: Any
    gradient_norm: Any
    learning_rate: Any


SPECS = (WHOLE, StepResult(WHOLE, WHOLE, ROWS, ROWS, ROWS, WHOLE, WHOLE))


class TrainStep:
    """A step `(state, batch) -> (state, result)`, with the state by its names in checkpoints.

    Gradients are of this replica's images. One sum over the replicas adds them, the losses and the counts. Then follow
    L2 penalty, norm, clipping, one update (scaled for parts with their own rate) and averages, alike on all replicas.
    """

    def __init__(self, task, optimizer: keras.optimizers.Optimizer, settings: OptimizerStep, variables: Variables):
        self._task, self._optimizer, self._settings, self._variables = task, optimizer, settings, variables
        self._rates = variables.rates(settings.part_rates)
        self._decaying = [name for name, variable in variables.trained.items() if decays(variable)]

    def __call__(self, state: Arrays, batch: Mapping[str, jax.Array]) -> tuple[Arrays, StepResult]:
        """Takes one step on this replica's rows of the batch."""
        model = {name: state[f'model/{name}'] for name in self._variables.model}
        gradients, (terms, counted, totals, sums, model) = jax.grad(self._loss, has_aux=True)(
            {name: model[name] for name in self._variables.trained}, model, batch, state['optimizer/iteration']
        )
        gradients, sums = sum_over_replicas((gradients, sums))
        losses = Named(terms.names, sums[: len(terms.names)])
        gradients, losses = self._with_penalty(gradients, losses, model)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(gradient)) for gradient in gradients.values()))
        if limit := self._settings.clip_norm:
            scale = limit * jnp.minimum(
                1 / norm, 1 / limit
            )  # NaN if the norm is NaN: then the gradients are NaN as well.
            gradients = {name: gradient * scale for name, gradient in gradients.items()}
        learning_rate, optimizer, model = self._update(state, gradients, model)
        result = StepResult(
            losses=losses,
            counts=Named(counted.names, sums[len(terms.names) :]),
            totals=totals,
            index=batch['index'],
            weight=batch['weight'],
            gradient_norm=norm,
            learning_rate=learning_rate,
        )
        new = {f'model/{name}': value for name, value in model.items()}
        return new | self._averages(state, model) | {f'optimizer/{name}': v for name, v in optimizer.items()}, result

    def _loss(self, trained: Arrays, model: Arrays, batch: Mapping[str, jax.Array], step: jax.Array) -> tuple:
        """Returns the sum of this replica's losses, and with it what was measured and the model after the forward pass.

        The model has new moving statistics.
        """
        values = model | trained
        mapping = [(variable, values[name]) for name, variable in self._variables.model.items()]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            found = measure(self._task, batch, ops.cast(step, 'int32'))
        model = {name: scope.get_current_value(variable) for name, variable in self._variables.model.items()}
        measured = (Named(found.terms, ()), Named(found.counted, ()), found.totals, found.sums)
        return jnp.sum(found.losses), (*measured, model)

    def _with_penalty(self, gradients: Arrays, losses: Named, model: Arrays) -> tuple[Arrays, Named]:
        l2 = self._settings.l2
        if not l2:
            return gradients, losses
        penalty = l2 * sum(jnp.sum(jnp.square(model[name])) / 2 for name in self._decaying)
        gradients = gradients | {name: gradients[name] + l2 * model[name] for name in self._decaying}
        values = jnp.append(losses.values, jnp.asarray(penalty, losses.values.dtype))
        return gradients, Named((*losses.names, 'l2'), values)

    def _update(self, state: Arrays, gradients: Arrays, model: Arrays) -> tuple[jax.Array, Arrays, Arrays]:
        """Returns the learning rate, the optimizer's new variables and the new model."""
        optimizer, variables = self._optimizer, self._variables
        values = [state[f'optimizer/{name}'] for name in variables.optimizer]
        with keras.StatelessScope(state_mapping=list(zip(variables.optimizer.values(), values, strict=True))):
            learning_rate = ops.convert_to_tensor(optimizer.learning_rate)
        trained, values = optimizer.stateless_apply(
            values, [gradients[name] for name in variables.trained], [model[name] for name in variables.trained]
        )
        new = dict(zip(variables.trained, trained, strict=True))
        for name, rate in self._rates.items():
            new[name] = model[name] + rate * (new[name] - model[name])
        return learning_rate, dict(zip(variables.optimizer, values, strict=True)), model | new

    def _averages(self, state: Arrays, model: Arrays) -> Arrays:
        """Returns the new averages, by their names in checkpoints."""
        decay = self._settings.ema_decay
        if decay is None:
            return {}
        found = {}
        for name in self._variables.averaged():
            average = state[f'ema/{name}']
            count = state['optimizer/iteration'].astype(average.dtype)
            rate = jnp.minimum(jnp.asarray(decay, average.dtype), (1 + count) / (10 + count))
            found[f'ema/{name}'] = average - (1 - rate) * (average - model[name])
        return found
