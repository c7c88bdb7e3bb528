"""The replicas that take a step together: their number, and sums over them.

An engine sets both around a replica's code, `with running(count, add):`, and layers read them here. Without such a
block, and in an engine whose step is one program over the global batch, there is one replica.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class _Replicas(NamedTuple):
    count: int
    add: Callable[[Any], Any]


_ONE = _Replicas(1, lambda x: x)
_CURRENT: contextvars.ContextVar[_Replicas] = contextvars.ContextVar('replicas', default=_ONE)


@contextlib.contextmanager
def running(count: int, add: Callable[[Any], Any]) -> Iterator[None]:
    """Context for the code of one replica, in its own thread if there are several.

    Args:
      count: number of replicas.
      add: sums a tensor, or each of a list, over all of them; its gradient is summed over them likewise.
    """
    token = _CURRENT.set(_Replicas(count, add))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def num_replicas() -> int:
    """Returns the number of replicas that take the current step together; 1 outside of a replica's code."""
    return _CURRENT.get().count


def sum_over_replicas(x: Any) -> Any:
    """Returns the sum of `x` over all replicas; its gradient is summed over them likewise."""
    return _CURRENT.get().add(x)
