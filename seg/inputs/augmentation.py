"""Augmentations one after the other, held to their contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from seg.datasets import checking
from seg.errors import UserError, shown
from seg.registry import Factory

Example = dict[str, tf.Tensor]
Augment = Callable[[Example, tf.Tensor], Example]


def build(factories: Sequence[Factory], slot: str, **supplied: Any) -> list[Augment]:
    """Builds augmentations whose errors tell their names."""
    return [
        named(factory(**supplied), f'{slot}[{i}]: {factory.entry.reference}') for i, factory in enumerate(factories)
    ]


def named(augment: Augment, name: str) -> Augment:
    """An augmentation whose errors tell its name where it runs eagerly; in a graph nothing is computed yet."""

    def run(example: Example, seed: tf.Tensor) -> Example:
        try:
            return augment(example, seed)
        except UserError:
            raise
        except Exception as error:
            if not tf.executing_eagerly():
                raise
            raise UserError(f'{name} failed: {checking.reason(error)}') from error

    return run


def stages(example: Example, augments: Sequence[Augment], seed: tf.Tensor) -> tuple[Example, ...]:
    """The example, and what each augmentation makes of it; ends early at a value that is no example."""
    made = [example]
    for i, augment in enumerate(augments):
        if isinstance(made[-1], dict):
            made.append(augment(made[-1], tf.random.experimental.stateless_fold_in(seed, i)))
    return tuple(made)


def check_stages(stages: Sequence[Mapping[str, tf.TensorSpec]], factories: Sequence[Factory], slot: str) -> None:
    """Refuses augmentations that change more than an augmentation may.

    Args:
      stages: specs of an example before the first augmentation and after each one, as far as they go.
      factories: the augmentations.
      slot: the setting that holds them, for messages.

    Raises:
      UserError: naming the augmentation, what it returned and what was expected.
    """
    first = stages[0]
    for i, spec in enumerate(stages[1:]):

        def refuse(found: str, expected: str, i: int = i) -> UserError:
            entry = factories[i].entry
            return UserError(f'{slot}[{i}]: {entry.reference} ({entry.place}) returned {found}; expected {expected}.')

        if not isinstance(spec, Mapping) or not first.keys() <= spec.keys():
            found = f'a dict with {", ".join(map(str, spec))}' if isinstance(spec, Mapping) else _kind_of(spec)
            raise refuse(found, f'the example, a dict with {", ".join(first)}')
        for key, before in first.items():
            after, dtype = spec[key], before.dtype.name
            if after.dtype != before.dtype or after.shape.rank not in (None, before.shape.rank):
                rank = f'{before.shape.rank} dimensions'
                raise refuse(f'{key} as {after.dtype.name} {after.shape}', f'{dtype} of {rank}, as it was')
        if 'label' in first and not spec['label'].shape.is_compatible_with(spec['image'].shape[:2]):
            image, label = spec['image'].shape, spec['label'].shape
            raise refuse(f'an image {image} and a label {label}', 'a label [H, W] of an image [H, W, 3]')


def _kind_of(spec: Any) -> str:
    if isinstance(spec, tf.TensorSpec):
        return f'a tensor of shape {spec.shape}'
    return 'None' if isinstance(spec, tf.NoneTensorSpec) else shown(spec)
