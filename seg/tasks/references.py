"""A task's losses and metrics: built from the references in its settings, and held to their contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from seg.errors import UserError, shown
from seg.registry import Factory
from seg.registry import losses as loss_registry
from seg.registry import metrics as metric_registry

_TRIAL = (2, 16, 16)  # Images, height and width of the batch without values that a loss is tried on.


def build_losses(references: Sequence[Any], slot: str, labels: str, **supplied: Any) -> dict[str, Any]:
    """Builds a task's losses, by name; a second one of the same name gets a number.

    Args:
      references: references to losses.
      slot: the setting that holds them, for messages.
      labels: what the task learns from, 'semantic' or 'instance'; a loss that says nothing (by an attribute `labels`)
        compares label maps.
      supplied: what losses may be supplied with.

    Raises:
      UserError: if there is none, one is for labels of another kind, or one of label maps gives no `LossTerm`.
    """
    losses: dict[str, Any] = {}
    for i, factory in enumerate(loss_registry.check_each(references, slot)):
        loss = factory(**supplied)
        _check_kind(factory, f'{slot}[{i}]', getattr(loss, 'labels', 'semantic'), labels)
        if labels == 'semantic':
            _check_term(loss, factory, f'{slot}[{i}]', supplied['num_classes'])
        name = factory.entry.name
        losses[name if name not in losses else f'{name}_{i}'] = loss
    if not losses:
        raise UserError(f'{slot} is empty: give at least one reference, such as [@losses.softmax_cross_entropy].')
    return losses


def build_metrics(references: Sequence[Any], slot: str, labels: str, **supplied: Any) -> list[Any]:
    """Builds a task's metrics; arguments as `build_losses` has them. One without `labels` fits every task.

    Raises:
      UserError: if one is for a task of another kind.
    """
    metrics = []
    for i, factory in enumerate(metric_registry.check_each(references, slot)):
        metric = factory(**supplied)
        _check_kind(factory, f'{slot}[{i}]', getattr(metric, 'labels', labels), labels)
        metrics.append(metric)
    return metrics


def _check_kind(factory: Factory, slot: str, kind: str, labels: str) -> None:
    if kind != labels:
        entry = factory.entry
        noun = 'loss' if entry.kind == 'losses' else 'metric'
        raise UserError(f'{slot}: {entry.reference} is a {noun} of {kind} segmentation, and this task is {labels}.')


def _check_term(loss: Any, factory: Factory, slot: str, num_classes: int) -> None:
    """Calls a loss of label maps on tensors without values and looks at what it returns."""
    shape, returned = _TRIAL, []
    tf.function(lambda *batch: returned.append(_shapes(loss(*batch))), autograph=False).get_concrete_function(
        tf.TensorSpec(shape, tf.int32),
        tf.TensorSpec((*shape, num_classes), keras.config.floatx()),
        tf.TensorSpec((), tf.int64),
    )
    found = returned[-1]
    if isinstance(found, dict):
        wrong = {name: size for name, size in found.items() if not tf.TensorShape(size).is_compatible_with(shape[:1])}
        if not wrong:
            return
        found = f'{", ".join(f"{name} {size}" for name, size in wrong.items())} for {shape[0]} images'
    entry = factory.entry
    raise UserError(
        f'{slot}: {entry.reference} ({entry.place}) returned {found}; expected a LossTerm with total [B] and '
        'weight [B], one number for each of the B images.'
    )


def _shapes(term: Any) -> dict[str, tf.TensorShape] | str:
    """Shapes by name of what a loss term holds; for anything else, what it is."""
    if not (hasattr(term, 'total') and hasattr(term, 'weight')):
        return _kind_of(term)
    parts = {'total': term.total, 'weight': term.weight, **getattr(term, 'counts', {})}
    return {name: tf.convert_to_tensor(part).shape for name, part in parts.items()}


def _kind_of(value: Any) -> str:
    if tf.is_tensor(value) or isinstance(value, tf.TensorSpec):
        return f'a tensor of shape {value.shape}'
    return 'None' if value is None or isinstance(value, tf.NoneTensorSpec) else shown(value)
