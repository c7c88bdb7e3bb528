"""Lists of references in a task's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seg.errors import UserError
from seg.registry import losses as loss_registry


def named(references: Sequence[Any], registry, slot: str) -> dict[str, Any]:
    """References by their registered names; a second one of the same name gets a number."""
    found: dict[str, Any] = {}
    for i, reference in enumerate(references):
        name = registry.check(reference, f'{slot}[{i}]').entry.name
        found[name if name not in found else f'{name}_{i}'] = reference
    if not found:
        raise UserError(f'{slot} is empty: give at least one reference, such as [@losses.softmax_cross_entropy].')
    return found


def build_losses(references: Sequence[Any], slot: str, labels: str, **supplied: Any) -> dict[str, Any]:
    """Builds a task's losses, by name.

    Args:
      references: references to losses.
      slot: the setting that holds them, for messages.
      labels: what the task learns from, 'semantic' or 'instance'; a loss that says nothing (by an attribute `labels`)
        compares label maps.
      supplied: what losses may be supplied with.

    Raises:
      UserError: if a loss is for labels of another kind.
    """
    losses = {}
    for i, (name, reference) in enumerate(named(references, loss_registry, slot).items()):
        loss = loss_registry.build(reference, f'{slot}[{i}]', **supplied)
        kind = getattr(loss, 'labels', 'semantic')
        if kind != labels:
            own = loss_registry.check(reference, slot).entry.reference
            raise UserError(f'{slot}[{i}]: {own} is a loss of {kind} segmentation, and this task is {labels}.')
        losses[name] = loss
    return losses
