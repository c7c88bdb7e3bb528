"""Conversion of torch's tensors, for weights of torchvision's models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

NORM = {'gamma': 'weight', 'beta': 'bias', 'moving_mean': 'running_mean', 'moving_variance': 'running_var'}


def conv(tensors: Mapping[str, np.ndarray], theirs: str, ours: str) -> dict[str, np.ndarray]:
    """Converts a convolution, alone or with a normalisation.

    Args:
      tensors: tensors of the file, by name.
      theirs: name of a `Conv2d`, or of a `Sequential` of a `Conv2d` and a normalisation. Older files of torchvision
        have the former, newer ones the latter.
      ours: path of a `ConvBias`, or, with a normalisation, of a `ConvNorm`.

    Returns:
      Arrays by path of our variables; empty if there are no such tensors.
    """
    arrays = {}
    inner = theirs if f'{theirs}.weight' in tensors else f'{theirs}.0'
    normed = f'{theirs}.1.running_mean' in tensors
    if (kernel := tensors.get(f'{inner}.weight')) is not None and kernel.ndim == 4:
        arrays[f'{ours}/conv/kernel' if normed else f'{ours}/kernel'] = np.transpose(kernel, (2, 3, 1, 0))
    if (bias := tensors.get(f'{inner}.bias')) is not None and not normed:
        arrays[f'{ours}/bias'] = bias
    if normed:
        arrays |= {f'{ours}/norm/{name}': tensors[f'{theirs}.1.{other}'] for name, other in NORM.items()}
    return arrays


def dense(tensors: Mapping[str, np.ndarray], theirs: str, ours: str) -> dict[str, np.ndarray]:
    """Converts a `Linear` layer to a `Dense` one; empty if there is none of this name."""
    if (kernel := tensors.get(f'{theirs}.weight')) is None:
        return {}
    return {f'{ours}/kernel': kernel.T, f'{ours}/bias': tensors[f'{theirs}.bias']}


def under(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Puts the name of a layer in front of each path."""
    return {f'{name}/{path}': value for path, value in arrays.items()}
