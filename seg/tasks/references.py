"""A task's losses and metrics: built from the references in its settings, and held to their contract."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from seg.errors import UserError, shown
from seg.registry import Factory
from seg.registry import losses as loss_registry
from seg.registry import metrics as metric_registry
from seg.tasks.traced import traced

_PENALTY = 'l2'
TRIAL_IMAGES = 2  # In the batch without values that losses are tried on.


def build_losses(
    references: Sequence[Any], slot: str, target: str, trial: Callable[[], tuple], **supplied: Any
) -> dict[str, Any]:
    """Builds a task's losses, by name; a second one of the same name gets a number.

    Args:
      references: references to losses.
      slot: the setting that holds them, for messages.
      target: what the task learns from, such as 'label_map'.
      trial: makes the arguments of a loss as `keras.KerasTensor`s, for `TRIAL_IMAGES` images. Losses that are not of
        this package are tried on them.
      supplied: what losses may be supplied with.

    Raises:
      UserError: if there is none, one is registered for another target, one gives no `LossTerm`, or one is called `l2`.
    """
    losses: dict[str, Any] = {}
    trial = functools.cache(trial)
    for i, factory in enumerate(loss_registry.check_each(references, slot)):
        _check_target(factory, f'{slot}[{i}]', target)
        loss = factory(**supplied)
        if factory.entry.name == _PENALTY:
            raise UserError(
                f'{slot}[{i}]: {factory.entry.reference} ({factory.entry.place}) has the name of the penalty of '
                'OptimizerStep.l2 among the losses of a step. Register it under another name.'
            )
        if not factory.entry.builder.__module__.startswith('seg.'):
            _check_term(loss, factory, f'{slot}[{i}]', trial())
        name = factory.entry.name
        losses[name if name not in losses else f'{name}_{i}'] = loss
    if not losses:
        raise UserError(f'{slot} is empty: give at least one reference, such as [@losses.softmax_cross_entropy].')
    return losses


def build_metrics(references: Sequence[Any], slot: str, target: str, **supplied: Any) -> list[Any]:
    """Builds a task's metrics; arguments as `build_losses` has them.

    Raises:
      UserError: if one is registered for another target.
    """
    metrics = []
    for i, factory in enumerate(metric_registry.check_each(references, slot)):
        _check_target(factory, f'{slot}[{i}]', target)
        metric = factory(**supplied)
        metrics.append(metric)
    return metrics


def _check_target(factory: Factory, slot: str, target: str) -> None:
    entry = factory.entry
    if entry.target not in (None, target):
        raise UserError(
            f'{slot}: {entry.reference} ({entry.place}) is for the target {entry.target!r}, and this task learns from '
            f'{target!r}.'
        )


def _check_term(loss: Any, factory: Factory, slot: str, arguments: tuple) -> None:
    """Calls a loss on tensors without values and looks at what it returns."""
    found = traced(lambda *arguments: _shapes(loss(*arguments)), *arguments)
    if isinstance(found, dict):
        wrong = {name: size for name, size in found.items() if size != (TRIAL_IMAGES,)}
        if not wrong:
            return
        found = f'{", ".join(f"{name} {size}" for name, size in wrong.items())} for {TRIAL_IMAGES} images'
    entry = factory.entry
    raise UserError(
        f'{slot}: {entry.reference} ({entry.place}) returned {found}; expected a LossTerm with total [B] and '
        'weight [B], one number for each of the B images.'
    )


def _shapes(term: Any) -> dict[str, tuple] | str:
    """Shapes by name of what a loss term holds; for anything else, what it is."""
    if not (hasattr(term, 'total') and hasattr(term, 'weight')):
        return _kind_of(term)
    parts = {'total': term.total, 'weight': term.weight, **getattr(term, 'counts', {})}
    return {name: tuple(ops.convert_to_tensor(part).shape) for name, part in parts.items()}


def _kind_of(value: Any) -> str:
    return f'a tensor of shape {tuple(value.shape)}' if ops.is_tensor(value) else shown(value)
