"""Stateless random numbers per example, the same bits on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops


def random_bits(seed: Any, salt: int, count: int) -> Any:
    """Draws random words that depend on the example's seed, the salt and the position only.

    A counter-based generator: position, seed and salt go through an integer hash (the finaliser of MurmurHash3, twice).
    There is no state: the division of a batch among replicas, a restart and the backend have no effect.

    Args:
      seed: [B, 2] int32.
      salt: 0..2^32 - 1, different for each use of one seed.
      count: words per example.

    Returns:
      [B, count] uint32.
    """
    seed = ops.cast(seed, 'uint32')
    low = _mix(ops.bitwise_xor(seed[:, :1], _mix(_word(salt ^ 0x9E3779B9))))
    # Mixed once more: otherwise the position equal to the seed's second half would always draw 0.
    high = _mix(ops.add(seed[:, 1:], _mix(low)))
    positions = ops.convert_to_tensor(np.arange(count, dtype=np.uint32)[None])
    return _mix(ops.bitwise_xor(_mix(ops.add(positions, low)), high))


def _word(value: int) -> Any:
    return ops.convert_to_tensor(np.uint32(value))


def _mix(x: Any) -> Any:
    """Hashes each word so that every input bit flips every output bit half of the time."""
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(16)))
    x = ops.multiply(x, _word(0x85EBCA6B))
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(13)))
    x = ops.multiply(x, _word(0xC2B2AE35))
    return ops.bitwise_xor(x, ops.right_shift(x, _word(16)))
