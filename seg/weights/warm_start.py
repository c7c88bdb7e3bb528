"""Initialises parts of a model from a checkpoint of another run, or from published weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from seg.errors import UserError
from seg.run.folder import RunFolder
from seg.weights import published, tensor_file

IMAGENET = 'imagenet'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """The initial weights of a new run. A resumed run takes its weights from its own checkpoint.

    Attributes:
      weights: 'imagenet' for the published weights of the backbone, from an installed package or downloaded once; a
        file of another library (`.pth`, `.h5`) for the backbone, and for the other parts that can read it (those of
        Mask R-CNN read torchvision's); a checkpoint (`ckpt-*.safetensors`) or a `model_dir`, for its newest checkpoint;
        None for random weights. If the checkpoint has averaged weights, these are used.
      parts: names of the parts to initialise, such as ('backbone',); empty for all that the source has. 'imagenet' has
        weights of the backbone only.
      min_fraction: least fraction of the variables of those parts that the source must have, by name and shape.
    """

    weights: str | None = None
    parts: Sequence[str] = ()
    min_fraction: float = 0.9

    def apply(self, parts: Mapping[str, object]) -> str:
        """Sets the variables of the model's parts. Returns the report that is also logged.

        Raises:
          UserError: if the file, a part or too many variables are missing.
        """
        if self.weights is None:
            report = 'All weights start at random (init.weights = None).'
            logging.info('%s', report)
            return report
        unknown = [name for name in self.parts if name not in parts]
        if unknown:
            raise UserError(f'init.parts: the model has no part {unknown[0]!r}; it has {", ".join(parts)}.')
        weights = os.path.expanduser(self.weights)
        foreign = weights == IMAGENET or weights.endswith(tuple(published.READERS))
        if not foreign:
            chosen = {name: parts[name] for name in self.parts or parts}
            origin, source = _checkpoint(weights)
            advice = 'Name the parts that the checkpoint has in common with this model in init.parts'
        else:
            readable = published.readable(parts, weights == IMAGENET)
            if not readable or not set(self.parts) <= set(readable):
                named = ', '.join(map(repr, readable or ('backbone',)))
                raise UserError(
                    f'init.parts = {tuple(self.parts)!r}: init.weights = {self.weights!r} has weights of the '
                    f'part{"s" if len(readable) > 1 else ""} {named} only; this model has {", ".join(parts)}. Remove '
                    'init.parts.'
                )
            path = None if weights == IMAGENET else weights
            origin, found = published.arrays({name: parts[name] for name in self.parts or readable}, path)
            chosen = {name: parts[name] for name in found}
            source = {f'{part}/{name}': value for part, each in found.items() for name, value in each.items()}
            advice = 'Choose the backbone and the settings that the weights were made for'
        loaded, left = _assign(chosen, source)
        wanted = loaded + len(left)
        report = f'{origin}: loaded {loaded} of {wanted} variables' + _listed(f', re-initialised {len(left)}: ', left)
        if foreign:  # Arrays without a variable: the weights belong to another network, or to another normalisation.
            names = {f'{part}/{variable.path}' for part, layer in chosen.items() for variable in layer.variables}
            more = [name for name in source if name not in names]
            report += _listed(f'; no variables for {len(more)} arrays of the file: ', more)
            wanted = max(wanted, len(source))
        if loaded < self.min_fraction * wanted:
            raise UserError(
                f'init.weights = {self.weights!r}: {report}. At least {self.min_fraction:.0%} must fit. {advice}, or '
                'lower init.min_fraction.'
            )
        logging.info('%s', report)
        return report


def _assign(parts: Mapping[str, Any], source: Mapping[str, np.ndarray]) -> tuple[int, list[str]]:
    """Sets the variables that the source has, by name and shape. Returns their number, and why others were not set."""
    loaded, left = 0, []
    for part, layer in parts.items():
        for variable in layer.variables:
            name = f'{part}/{variable.path}'
            value = source.get(name)
            if value is not None and value.shape == tuple(variable.shape) and value.dtype.kind != 'c':
                variable.assign(value.astype(np.dtype(variable.dtype)))
                loaded += 1
            else:
                left.append(
                    f'{name} {tuple(variable.shape)}'
                    + (f', {_form(value)} in the file' if value is not None else ', not in the file')
                )
    return loaded, left


def _form(value: np.ndarray) -> str:
    return f'{value.shape} of {value.dtype}' if value.dtype.kind == 'c' else f'{value.shape}'


def _listed(intro: str, items: Sequence[str]) -> str:
    return intro + '; '.join(items[:4]) + ('; …' if len(items) > 4 else '') if items else ''


def _checkpoint(weights: str) -> tuple[str, dict[str, np.ndarray]]:
    """Returns the checkpoint's path, and its arrays by part and path of the variable."""
    if os.path.isdir(weights):
        folder = RunFolder(weights)
        steps = folder.checkpoint_steps()
        if not steps:
            raise UserError(f'init.weights = {weights!r}: the folder holds no ckpt-*.safetensors.')
        weights = folder.checkpoint(steps[-1])
    tensors, _ = tensor_file.read(_existing(weights))
    source = {name.removeprefix('model/'): value for name, value in tensors.items() if name.startswith('model/')}
    source |= {name.removeprefix('ema/'): value for name, value in tensors.items() if name.startswith('ema/')}
    return weights, source


def _existing(weights: str) -> str:
    if not os.path.exists(weights):
        raise UserError(f'init.weights = {weights!r}: no such file or folder (working directory {os.getcwd()}).')
    return weights
