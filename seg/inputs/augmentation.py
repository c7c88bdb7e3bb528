"""Augments one after the other, checked against their contract (`seg.augments.base`)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from seg.augments.base import FIELDS, Augment, Example
from seg.datasets import checking
from seg.errors import UserError, shown
from seg.registry import Factory


def build(factories: Sequence[Factory], slot: str, **supplied: Any) -> list[Augment]:
    """Builds augments whose errors tell their names.

    Raises:
      UserError: if one is no function of an example and a seed.
    """
    augments = []
    for i, factory in enumerate(factories):
        augment, entry = factory(**supplied), factory.entry
        if not _takes_two(augment):
            raise UserError(
                f'{slot}[{i}]: {entry.reference} ({entry.place}) returned {shown(augment)}; expected a function '
                'augment(example, seed).'
            )
        augments.append(named(augment, f'{slot}[{i}]: {entry.reference} ({entry.place})'))
    return augments


def _takes_two(augment: Any) -> bool:
    try:
        inspect.signature(augment).bind(None, None)
    except TypeError:  # Not callable, or with other arguments.
        return False
    return True


def named(augment: Augment, name: str) -> Augment:
    """An augment whose errors tell its name where it runs eagerly, or where a key is missing.

    In a graph nothing is computed yet: other errors there are bugs of the augment's code, and keep their traceback.
    """

    def run(example: Example, seed: tf.Tensor) -> Example:
        try:
            return augment(example, seed)
        except UserError:
            raise
        except KeyError as error:
            keys = ', '.join(sorted(example))
            raise UserError(f'{name}: there is no key {error}; the example has {keys}.') from error
        except Exception as error:
            if not tf.executing_eagerly():
                raise
            raise UserError(f'{name} failed: {checking.reason(error)}') from error

    return run


def stages(example: Example, augments: Sequence[Augment], seed: tf.Tensor) -> tuple[Example, ...]:
    """The example, and what each augment makes of it; ends early at a value that is no example."""
    made = [example]
    for i, augment in enumerate(augments):
        if isinstance(made[-1], dict):
            made.append(augment(made[-1], tf.random.experimental.stateless_fold_in(seed, i)))
    return tuple(made)


def check_stages(
    stages: Sequence[Mapping[str, tf.TypeSpec]], factories: Sequence[Factory], slot: str, target: str
) -> None:
    """Refuses augments that return something else than an example with the keys, dtypes and dimensions it had.

    Args:
      stages: specs of an example before the first augment and after each one, as far as they go.
      factories: the augments.
      slot: the setting that holds them, for messages.
      target: what the task learns from; keys of a target that is not in `FIELDS` keep what they have.

    Raises:
      UserError: names the augment, the key, what it returned and what was expected.
    """
    first, fields = stages[0], FIELDS.get(target, {})
    for i, spec in enumerate(stages[1:]):

        def refuse(found: str, expected: str, i: int = i) -> UserError:
            entry = factories[i].entry
            return UserError(f'{slot}[{i}]: {entry.reference} ({entry.place}) returned {found}; expected {expected}.')

        if not isinstance(spec, Mapping):
            raise refuse(_kind_of(spec), f'the example, a dict with {", ".join(first)}')
        if lacking := [key for key in first if key not in spec]:
            raise refuse(f'a dict without {", ".join(lacking)}', f'the example, a dict with {", ".join(first)}')
        for key, before in first.items():
            after, field = spec[key], fields.get(key)
            fixed = _fixed(field.shape) if field else [None] * (before.shape.rank or 0)
            if (
                isinstance(after, tf.RaggedTensorSpec) != isinstance(before, tf.RaggedTensorSpec)
                or after.dtype != before.dtype
                or not after.shape.is_compatible_with(fixed)
            ):
                told = f' {field.shape}: {field.meaning}' if field else f' of {len(fixed)} dimensions, as it was'
                raise refuse(f'{key} as {_kind_of(after)}', f'{key} {before.dtype.name}{told}')
        if 'label' in fields and not spec['label'].shape.is_compatible_with(spec['image'].shape[:2]):
            image, label = spec['image'].shape, spec['label'].shape
            raise refuse(f'an image {image} and a label {label}', 'a label [H, W] of an image [H, W, 3]')


def _fixed(shape: str) -> list[int | None]:
    """Dimensions of a documented shape such as '[N, 4]': None for letters."""
    return [int(side) if side.isdigit() else None for side in shape.strip('[]').split(', ')]


def _kind_of(spec: Any) -> str:
    if isinstance(spec, tf.NoneTensorSpec):
        return 'None'
    if isinstance(spec, (tf.TensorSpec, tf.RaggedTensorSpec)):
        kind = 'a ragged tensor' if isinstance(spec, tf.RaggedTensorSpec) else 'a tensor'
        return f'{kind} {spec.dtype.name} {spec.shape}'
    return shown(spec)
