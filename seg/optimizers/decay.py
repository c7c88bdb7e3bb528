"""Selects the variables that decay."""

from __future__ import annotations

from typing import Any

# By name and not by rank alone: the biases of attention and einsum layers have two axes.
_NEVER = frozenset({'bias', 'gamma', 'beta', 'moving_mean', 'moving_variance'})


def decays(variable: Any) -> bool:
    """Whether weight decay, L2 or AdamW's decoupled one, applies to a variable.

    It applies to kernels and embeddings, that is to variables of two axes or more. Biases, and the scales, offsets and
    moving statistics of normalisation layers do not decay.

    Args:
      variable: Keras variable.
    """
    return len(variable.shape) >= 2 and variable.path.rsplit('/', 1)[-1] not in _NEVER
