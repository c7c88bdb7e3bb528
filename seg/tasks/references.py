"""Builds a task's model, losses and metrics from the references in its settings, and checks their contracts.

Those of plugins are called with symbolic tensors before a training, and their results compared with the contract.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from seg.errors import UserError, shown
from seg.metrics.base import Metric, RowMetric, SumMetric
from seg.registry import Factory
from seg.registry import losses as loss_registry
from seg.registry import metrics as metric_registry
from seg.registry import models as model_registry
from seg.structures import RECORD_KEYS, LossTerm
from seg.tasks.traced import traced

_PENALTY = 'l2'
TRIAL_IMAGES = 2  # Images of the symbolic batch for the checks of models, losses and metrics.

Loss = Callable[[Mapping[str, Any], Mapping[str, Any], Any], LossTerm]


def build_model(reference: Any, slot: str, num_classes: int) -> tuple[Any, Factory]:
    """Builds a task's model.

    Args:
      reference: reference to a model.
      slot: the setting that holds it, for messages.
      num_classes: supplied.

    Returns:
      The model, and what has built it, for `check_model`.

    Raises:
      UserError: if it is no Keras model with `parts` and `output_stride`.
    """
    factory = model_registry.check(reference, slot)
    model = factory.make(keras.Model, num_classes=num_classes)
    lacking = [name for name in ('parts', 'output_stride') if not hasattr(model, name)]
    if lacking or not isinstance(model.parts, Mapping):
        fault = f'without {" and ".join(lacking)}' if lacking else f'with parts = {shown(model.parts)}'
        raise factory.wrong(
            f'a {type(model).__name__} {fault}',
            'a Keras model with `parts`, a dict of its layers by name, and `output_stride`, in pixels',
        )
    return model, factory


def check_model(
    factory: Factory, model: Any, batch: Mapping[str, Any], training: bool, expected: Mapping[str, tuple]
) -> None:
    """Calls the model of a plugin with a symbolic batch.

    Args:
      factory: what has built it; models of this package are not checked.
      model: the model.
      batch: `keras.KerasTensor`s.
      training: argument of the call.
      expected: shapes of outputs that it must have, by name; None stands for any length.

    Raises:
      UserError: if it fails, or has other outputs.
    """
    if factory.entry.built_in:
        return

    def fault(batch: Mapping[str, Any]) -> str:
        outputs = model(batch, training=training)
        if not isinstance(outputs, Mapping):
            return _kind_of(outputs)
        if lacking := sorted(set(expected) - set(outputs)):
            return f'a dict of {", ".join(sorted(outputs)) or "nothing"}, without {", ".join(lacking)}'
        shapes = {name: tuple(outputs[name].shape) for name in expected}
        return ', '.join(f'{name} {shape}' for name, shape in shapes.items() if not _fits(shape, expected[name]))

    call = f'call(batch, training={training}) for a batch of {", ".join(batch)}'
    with factory.calling(call):
        found = traced(fault, batch)
    if found:
        entries = ', '.join(f'{name} {shape}' for name, shape in expected.items())
        raise factory.wrong(found, f'a dict with {entries or "the outputs that the losses use"}', call)


def _fits(shape: tuple, expected: tuple) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (None, side) for side, wanted in zip(shape, expected, strict=True)
    )


def build_losses(
    references: Sequence[Any], slot: str, target: str, trial: Callable[[], tuple], **supplied: Any
) -> dict[str, Loss]:
    """Builds a task's losses, by name; a second loss with the same name gets a number.

    Args:
      references: references to losses.
      slot: the setting that holds them, for messages.
      target: target of the task, such as 'label_map'.
      trial: makes (outputs, batch, step), the arguments of a loss, as `keras.KerasTensor`s, for `TRIAL_IMAGES` images.
      supplied: arguments that losses may take.

    Raises:
      UserError: if there is no loss, or one has another target, returns no `LossTerm`, or is named `l2`.
    """
    losses: dict[str, Loss] = {}
    trial = functools.cache(trial)
    for i, factory in enumerate(loss_registry.check_each(references, slot)):
        factory.expect_target(target)
        loss = factory(**supplied)
        entry = factory.entry
        if entry.name == _PENALTY:
            raise UserError(
                f'{factory.slot}: {entry.reference} ({entry.place}) has the name under which the penalty of '
                'OptimizerStep.l2 is logged. Register it under another name.'
            )
        if not callable(loss):
            raise factory.wrong(shown(loss), 'a function loss(outputs, batch, step)')
        if not factory.entry.built_in:
            call = 'loss(outputs, batch, step)'
            if found := _tried(factory, call, lambda *given, loss=loss: _term(loss(*given)), *trial()):
                raise factory.wrong(found, _EXPECTED_TERM, call)
        losses[entry.name if entry.name not in losses else f'{entry.name}_{i}'] = loss
    if not losses:
        raise UserError(f'{slot} is empty: give at least one reference, such as [@losses.softmax_cross_entropy].')
    return losses


def build_metrics(
    references: Sequence[Any], slot: str, target: str, trial: Callable[[], tuple], **supplied: Any
) -> list[Metric]:
    """Builds a task's metrics.

    Args:
      references: references to metrics.
      slot: the setting that holds them, for messages.
      target: target of the task.
      trial: makes (batch, predictions), the arguments of a metric on the device, as `keras.KerasTensor`s, for
        `TRIAL_IMAGES` images.
      supplied: arguments that metrics may take.

    Raises:
      UserError: if one has another target, is neither a complete `SumMetric` nor a complete `RowMetric`, or uses the
        name of another score.
    """
    metrics = []
    taken: dict[str, str] = {'loss': 'the sum of losses'} | dict.fromkeys(RECORD_KEYS, "an evaluation's record")
    trial = functools.cache(trial)
    for factory in metric_registry.check_each(references, slot):
        factory.expect_target(target)
        metric = factory.make((SumMetric, RowMetric), **supplied)
        names = metric.names()
        if isinstance(names, str):
            raise factory.wrong(shown(names), 'a list of names', 'names()')
        for name in names:
            if name in taken:
                entry = factory.entry
                raise UserError(
                    f'{factory.slot}: {entry.reference} ({entry.place}) has a score {name!r}, a name that '
                    f'{taken[name]} has already. Each score needs its own name.'
                )
            taken[name] = factory.slot
        if not factory.entry.built_in:
            rows = isinstance(metric, RowMetric)
            call, compute = ('rows', metric.rows) if rows else ('update', metric.update)
            call = f'{call}(batch, predictions)'
            if found := _tried(factory, call, lambda *given: _values(compute(*given), rows), *trial()):  # noqa: B023
                expected = 'tensors [B, …], a row for each of the B images' if rows else 'tensors'
                raise factory.wrong(found, f'a dict of {expected}', call)
        metric.origin = f'{factory.slot}: {factory.entry.reference}'
        metrics.append(metric)
    return metrics


_EXPECTED_TERM = 'a LossTerm with total [B] and weight [B], one number for each of the B images'


def _tried(factory: Factory, call: str, function: Callable[..., str], *arguments: Any) -> str:
    """Returns the result of `function` for symbolic tensors.

    Raises:
      UserError: if it fails; the message names the line in the plugin.
    """
    with factory.calling(call, f'See docs/plugins_training.md on the arguments of {factory.entry.kind}.'):
        return traced(function, *arguments)


def _term(term: Any) -> str:
    """Describes the fault in the result of a loss; empty without one."""
    if not isinstance(term, LossTerm):
        return _kind_of(term)
    parts = {'total': term.total, 'weight': term.weight, **term.counts}
    return _wrong_shapes(parts, lambda shape: shape == (TRIAL_IMAGES,))


def _values(values: Any, rows: bool) -> str:
    """Describes the fault in the result of a metric on the device; empty without one."""
    if not isinstance(values, Mapping):
        return _kind_of(values)
    return _wrong_shapes(values, lambda shape: not rows or shape[:1] == (TRIAL_IMAGES,))


def _wrong_shapes(parts: Mapping[str, Any], fits: Callable[[tuple], bool]) -> str:
    shapes = {name: tuple(ops.convert_to_tensor(part).shape) for name, part in parts.items()}
    wrong = [f'{name} {shape}' for name, shape in shapes.items() if not fits(shape)]
    return f'{", ".join(wrong)} for {TRIAL_IMAGES} images' if wrong else ''


def _kind_of(value: Any) -> str:
    return f'a tensor of shape {tuple(value.shape)}' if ops.is_tensor(value) else shown(value)
