"""Augments one after the other, checked against their contract (`seg.augments.base`)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from seg.augments.base import FIELDS, Augment, Example
from seg.datasets import checking
from seg.datasets.base import Field
from seg.errors import UserError, line_of, shown
from seg.registry import Entry, Factory, shown_path


def build(factories: Sequence[Factory], slot: str, target: str, **supplied: Any) -> list[Augment]:
    """Builds augments whose errors tell their names, and which are checked whenever they are traced.

    Args:
      factories: the augments.
      slot: the setting that holds them, for messages.
      target: what the task learns from; keys of a target that is not in `FIELDS` keep what they have.
      supplied: what augments may be supplied with.

    Raises:
      UserError: if one is no function of an example and a seed.
    """
    augments = []
    for i, factory in enumerate(factories):
        augment, name = factory(**supplied), f'{slot}[{i}]: {factory.entry.reference} ({factory.entry.place})'
        if not _takes_two(augment):
            raise UserError(f'{name} returned {shown(augment)}; expected a function augment(example, seed).')
        augments.append(_checked(_named(augment, name, factory.entry), name, FIELDS.get(target, {})))
    return augments


def _takes_two(augment: Any) -> bool:
    try:
        inspect.signature(augment).bind(None, None)
    except TypeError:  # Not callable, or with other arguments.
        return False
    return True


def _named(augment: Augment, name: str, entry: Entry) -> Augment:
    """An augment whose errors tell its name, and where in a plugin they arose.

    In a graph nothing is computed yet: errors of built-in augments there are bugs, and keep their traceback.
    """

    def run(example: Example, seed: tf.Tensor) -> Example:
        try:
            return augment(dict(example), seed)
        except UserError:
            raise
        except Exception as error:
            raise _failure(error, example, name, entry, not entry.built_in or tf.executing_eagerly()) from error

    return run


@tf.autograph.experimental.do_not_convert
def _failure(error: Exception, example: Example, name: str, entry: Entry, told: bool) -> Exception:
    """The error of an augment as a message; as it is if it is not `told` and no key is missing."""
    if isinstance(error, KeyError):
        known = (
            'the augment has removed it'
            if error.args[0] in example
            else f'the example has {", ".join(sorted(example))}'
        )
        return UserError(f'{name}: there is no key {error}; {known}.')
    if not told:
        return error
    traced = getattr(error, 'ag_error_metadata', None)  # AutoGraph's record of the lines that it has converted.
    lines = [frame.lineno for frame in traced.translated_stack if frame.filename == entry.file] if traced else []
    line = line_of(error, entry.file) or next(iter(lines), None)
    place = f', {shown_path(entry.file)}:{line}' if line else ''
    return UserError(f'{name} failed{place}: {checking.reason(error)}')


def _checked(augment: Augment, name: str, fields: Mapping[str, Field]) -> Augment:
    def run(example: Example, seed: tf.Tensor) -> Example:
        made = augment(example, seed)
        _check(example, made, name, fields)
        return made

    return run


def applied(example: Example, augments: Sequence[Augment], seed: tf.Tensor) -> Example:
    """Applies all augments to an example, each with its own seed."""
    for i, augment in enumerate(augments):
        example = augment(example, tf.random.experimental.stateless_fold_in(seed, i))
    return example


@tf.autograph.experimental.do_not_convert
def _check(example: Example, made: Any, name: str, fields: Mapping[str, Field]) -> None:
    """Refuses a result without the keys, dtypes and dimensions of the example; values are not checked.

    Raises:
      UserError: names the augment, the key, what it returned and what was expected.
    """

    def refuse(found: str, expected: str) -> UserError:
        return UserError(f'{name} returned {found}; expected {expected}.')

    whole = f'the example, a dict with {", ".join(example)}'
    if not isinstance(made, Mapping):
        raise refuse(_kind_of(made), whole)
    if lacking := [key for key in example if key not in made]:
        raise refuse(f'a dict without {", ".join(lacking)}', whole)
    for key, value in example.items():
        before, after, field = tf.type_spec_from_value(value), _spec(made[key]), fields.get(key)
        fixed = _fixed(field.shape) if field else [None] * (before.shape.rank or 0)
        if (
            isinstance(after, tf.RaggedTensorSpec) != isinstance(before, tf.RaggedTensorSpec)
            or not isinstance(after, (tf.TensorSpec, tf.RaggedTensorSpec))
            or after.dtype != before.dtype
            or not after.shape.is_compatible_with(fixed)
        ):
            told = f' {field.shape}: {field.meaning}' if field else f' of {len(fixed)} dimensions, as it was'
            raise refuse(f'{key} as {_kind_of(made[key])}', f'{key} {before.dtype.name}{told}')
    if 'label' in fields and not made['label'].shape.is_compatible_with(made['image'].shape[:2]):
        image, label = made['image'].shape, made['label'].shape
        raise refuse(f'an image {image} and a label {label}', 'a label [H, W] of an image [H, W, 3]')


def _spec(value: Any) -> Any:
    """The dtype and static shape of a tensor; other values unchanged."""
    try:
        return tf.type_spec_from_value(value)
    except TypeError:
        return value


def _fixed(shape: str) -> list[int | None]:
    """Dimensions of a documented shape such as '[N, 4]': None for letters."""
    return [int(side) if side.isdigit() else None for side in shape.strip('[]').split(', ')]


def _kind_of(value: Any) -> str:
    spec = _spec(value)
    if isinstance(spec, (tf.TensorSpec, tf.RaggedTensorSpec)):
        kind = 'a ragged tensor' if isinstance(spec, tf.RaggedTensorSpec) else 'a tensor'
        return f'{kind} {spec.dtype.name} {spec.shape}'
    return shown(value)
