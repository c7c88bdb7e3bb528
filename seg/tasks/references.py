"""A task's losses, from the references in its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seg.errors import UserError
from seg.registry import losses as loss_registry


def build_losses(references: Sequence[Any], slot: str, labels: str, **supplied: Any) -> dict[str, Any]:
    """Builds a task's losses, by name; a second one of the same name gets a number.

    Args:
      references: references to losses.
      slot: the setting that holds them, for messages.
      labels: what the task learns from, 'semantic' or 'instance'; a loss that says nothing (by an attribute `labels`)
        compares label maps.
      supplied: what losses may be supplied with.

    Raises:
      UserError: if there is none, or one is for labels of another kind.
    """
    losses: dict[str, Any] = {}
    for i, factory in enumerate(loss_registry.check_each(references, slot)):
        loss = factory(**supplied)
        kind = getattr(loss, 'labels', 'semantic')
        if kind != labels:
            own = factory.entry.reference
            raise UserError(f'{slot}[{i}]: {own} is a loss of {kind} segmentation, and this task is {labels}.')
        name = factory.entry.name
        losses[name if name not in losses else f'{name}_{i}'] = loss
    if not losses:
        raise UserError(f'{slot} is empty: give at least one reference, such as [@losses.softmax_cross_entropy].')
    return losses
