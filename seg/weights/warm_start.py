"""Starts named parts of a model from a checkpoint of another run."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from seg.errors import UserError
from seg.weights import tensor_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """Where the weights of a new run come from. A run that goes on takes them from its own checkpoint.

    Attributes:
      weights: a checkpoint (`ckpt-*.safetensors`) or a `model_dir`, whose newest one is taken; None for random weights.
        Averaged weights are preferred where the checkpoint has them.
      parts: names of the parts to take over, such as ('backbone',); empty for all.
      min_fraction: an error if less than this share of the variables of those parts is found, by name and shape.
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
        path = _find(self.weights)
        tensors, _ = tensor_file.read(path)
        source = {name.removeprefix('model/'): value for name, value in tensors.items() if name.startswith('model/')}
        source |= {name.removeprefix('ema/'): value for name, value in tensors.items() if name.startswith('ema/')}
        loaded, left = 0, []
        for part in self.parts or parts:
            for variable in parts[part].variables:
                name = f'{part}/{variable.path}'
                value = source.get(name)
                if value is not None and value.shape == tuple(variable.shape):
                    variable.assign(value.astype(np.dtype(variable.dtype)))
                    loaded += 1
                else:
                    left.append(
                        f'{name} {tuple(variable.shape)}'
                        + (f', {value.shape} in the file' if value is not None else ', not in the file')
                    )
        report = f'{path}: loaded {loaded} of {loaded + len(left)} variables'
        if left:
            report += f', left {len(left)} at random: ' + '; '.join(left[:4]) + ('; …' if len(left) > 4 else '')
        if loaded < self.min_fraction * (loaded + len(left)):
            raise UserError(
                f'init.weights = {self.weights!r}: {report}. At least {self.min_fraction:.0%} must fit. Name the parts '
                'that the checkpoint has in common with this model in init.parts, or lower init.min_fraction.'
            )
        logging.info('%s', report)
        return report


def _find(weights: str) -> str:
    if os.path.isdir(weights):
        found = sorted(glob.glob(os.path.join(weights, 'ckpt-*.safetensors')))
        if not found:
            raise UserError(f'init.weights = {weights!r}: the folder holds no ckpt-*.safetensors.')
        return found[-1]
    if not os.path.exists(weights):
        raise UserError(f'init.weights = {weights!r}: no such file or folder (working directory {os.getcwd()}).')
    return weights
