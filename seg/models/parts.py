"""Builds the parts of a model from references, and checks what they return for symbolic tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from seg.registry import Factory, backbones
from seg.structures import BackboneSpec


def build_backbone(
    reference: Callable, slot: str, *, output_stride: int, **supplied: Any
) -> tuple[keras.Model, BackboneSpec]:
    """Builds a backbone and measures its maps.

    Args:
      reference: reference to a backbone.
      slot: the setting that holds it, for messages.
      output_stride: largest stride of its maps, in pixels.
      supplied: further arguments that backbones may take.

    Raises:
      UserError: if it is not a Keras model from an image to `c2` to `c5`, or a map has a larger stride.
    """
    factory = backbones.check(reference, slot)
    backbone = factory.make(keras.Model, output_stride=output_stride, **supplied)
    with factory.calling('call(image)'):
        spec = BackboneSpec.of(backbone, slot)
    strides = {name: feature.stride for name, feature in spec.features.items()}
    if beyond := [f'{name} at stride {stride}' for name, stride in strides.items() if stride > output_stride]:
        raise factory.wrong(', '.join(beyond), f'no stride above the supplied output_stride, {output_stride}')
    return backbone, spec


def call_decoder(factory: Factory, decoder: Any, features: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Calls a decoder with symbolic maps of two images, which makes its variables.

    Args:
      factory: what has built it, for messages.
      decoder: the decoder.
      features: maps of the backbone.
      names: names of the maps that the model needs.

    Returns:
      The decoder's maps by name, symbolic.

    Raises:
      UserError: if it lacks one of them, or if a plugin's decoder fails.
    """
    call = 'call(features, size, seed, training)'
    pair = keras.KerasTensor((2, 2), 'int32')
    with factory.calling(call):
        maps = decoder(features, size=pair, seed=pair, training=True)
    fits = isinstance(maps, Mapping) and {*names} <= {*maps} and all(len(x.shape) == 4 for x in maps.values())
    if not fits:
        raise factory.wrong(described(maps), f'a dict with maps [B, h, w, C] named {", ".join(names)}', call)
    return maps


def call_head(factory: Factory, head: Any, x: Any, num_classes: int) -> None:
    """Calls a head with a symbolic map [2, h, w, C], which makes its variables.

    Args:
      factory: what has built it, for messages.
      head: the head.
      x: the map.
      num_classes: channels that its logits must have.

    Raises:
      UserError: if it returns anything else, or if a plugin's head fails.
    """
    call = 'call(x, seed, training)'
    with factory.calling(call):
        logits = head(x, seed=keras.KerasTensor((2, 2), 'int32'), training=True)
    expected = (*x.shape[:3], num_classes)
    if tuple(getattr(logits, 'shape', ())) != expected:
        raise factory.wrong(
            described(logits), f'logits of shape {expected}: {num_classes} channels, one for each class', call
        )


def described(value: Any) -> str:
    """What a part has returned, for a message: shapes, or the type."""
    if isinstance(value, Mapping):
        return f'a dict with {", ".join(f"{name}: {described(x)}" for name, x in sorted(value.items()))}'
    if hasattr(value, 'shape'):
        return f'a tensor of shape {tuple(value.shape)}'
    return f'a {type(value).__name__}'
