"""Augments one after the other, checked against their contract (`seg.augments.base`)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from seg.augments.base import FIELDS, Augment, Example
from seg.datasets.base import Field
from seg.errors import UserError, shown
from seg.registry import Factory

_CALL = 'augment(example, seed)'


def build(factories: Sequence[Factory], slot: str, target: str, **supplied: Any) -> list[Augment]:
    """Builds augments with checks: an error names its augment, and results are checked whenever one is traced.

    Args:
      factories: the augments.
      slot: the setting that holds them, for messages.
      target: what the task learns from; keys of a target that is not in `FIELDS` keep dtype and dimensions.
      supplied: arguments that are supplied to augments.

    Raises:
      UserError: if an augment is not a function of an example and a seed.
    """
    augments = []
    for factory in factories:
        augment = factory(**supplied)
        if not _takes_two(augment):
            raise factory.wrong(shown(augment), f'a function {_CALL}')
        # AutoGraph takes half of the tracing, and no built-in augment needs it; but `other` may call a plugin's `load`.
        if factory.entry.built_in and 'other' not in factory.entry.signature.parameters:
            augment = tf.autograph.experimental.do_not_convert(augment)
        augments.append(_checked(_reporting(augment, factory), factory, FIELDS.get(target, {})))
    return augments


def _takes_two(augment: Any) -> bool:
    try:
        inspect.signature(augment).bind(None, None)
    except TypeError:  # Not callable, or with other arguments.
        return False
    return True


def _reporting(augment: Augment, factory: Factory) -> Augment:
    """An augment whose exceptions become messages with its setting and, for a plugin, the line."""

    def run(example: Example, seed: tf.Tensor) -> Example:
        try:
            return augment(dict(example), seed)
        except UserError:
            raise
        except Exception as error:
            raise _failure(error, example, factory) from error

    return run


@tf.autograph.experimental.do_not_convert
def _failure(error: Exception, example: Example, factory: Factory) -> Exception:
    """The message about an exception of an augment; the exception itself if it is a bug of seg."""
    if isinstance(error, KeyError):  # Also of a built-in augment: the example may be of another target.
        removed = error.args and error.args[0] in example
        known = 'The augment has removed it.' if removed else f'The example has {", ".join(sorted(example))}.'
        return factory.failed(error, _CALL, known)
    # Tracing computes nothing, so there a built-in augment only fails because of a bug.
    return error if factory.entry.built_in and not tf.executing_eagerly() else factory.failed(error, _CALL)


def _checked(augment: Augment, factory: Factory, fields: Mapping[str, Field]) -> Augment:
    def run(example: Example, seed: tf.Tensor) -> Example:
        made = augment(example, seed)
        _check(example, made, factory, fields)
        return made

    return run


def applied(example: Example, augments: Sequence[Augment], seed: tf.Tensor) -> Example:
    """Applies all augments to an example, each with its own seed."""
    for i, augment in enumerate(augments):
        example = augment(example, tf.random.experimental.stateless_fold_in(seed, i))
    return example


@tf.autograph.experimental.do_not_convert
def _check(example: Example, made: Any, factory: Factory, fields: Mapping[str, Field]) -> None:
    """Refuses a result without the keys, dtypes and dimensions of the example; values are not checked.

    Raises:
      UserError: names the augment, the key, what it returned and what was expected.
    """

    whole = f'the example, a dict with {", ".join(example)}'
    if not isinstance(made, Mapping):
        raise factory.wrong(_kind_of(made), whole)
    if lacking := [key for key in example if key not in made]:
        raise factory.wrong(f'a dict without {", ".join(lacking)}', whole)
    for key, value in example.items():
        before, after, field = tf.type_spec_from_value(value), _spec(made[key]), fields.get(key)
        fixed = field.sides if field else [None] * (before.shape.rank or 0)
        if (
            isinstance(after, tf.RaggedTensorSpec) != isinstance(before, tf.RaggedTensorSpec)
            or not isinstance(after, (tf.TensorSpec, tf.RaggedTensorSpec))
            or after.dtype != before.dtype
            or not after.shape.is_compatible_with(fixed)
        ):
            rest = f' {field.shape}: {field.meaning}' if field else f' of {len(fixed)} dimensions, as it was'
            raise factory.wrong(f'{key} as {_kind_of(made[key])}', f'{key} {before.dtype.name}{rest}')
    if 'label' in fields and not made['label'].shape.is_compatible_with(made['image'].shape[:2]):
        image, label = made['image'].shape, made['label'].shape
        raise factory.wrong(f'an image {image} and a label {label}', 'a label [H, W] of an image [H, W, 3]')


def _spec(value: Any) -> Any:
    """The dtype and static shape of a tensor; other values unchanged."""
    try:
        return tf.type_spec_from_value(value)
    except TypeError:
        return value


def _kind_of(value: Any) -> str:
    spec = _spec(value)
    if isinstance(spec, (tf.TensorSpec, tf.RaggedTensorSpec)):
        kind = 'a ragged tensor' if isinstance(spec, tf.RaggedTensorSpec) else 'a tensor'
        return f'{kind} {spec.dtype.name} {spec.shape}'
    return shown(value)
