"""A loop of training steps with its times; the first step, which is compiled, has its own."""

from __future__ import annotations

import time
from collections.abc import Callable

from absl import logging

from seg.engine.base import LoopResult, joined


class TimedLoop:
    """Runs steps. The first one runs by itself, so that the speed of the others does not include the compilation."""

    def __init__(self, loop: Callable[[int], LoopResult], started: Callable[[float], None]):
        """Makes a loop.

        Args:
          loop: the engine's; runs n steps and waits for them.
          started: is called after the first step, with its seconds.
        """
        self._loop, self._started = loop, started
        self._first = True

    def __call__(self, steps: int) -> tuple[LoopResult, int, float]:
        """Runs steps. Returns their result, and number and seconds of those that were not compiled first."""
        results = []
        if self._first:
            logging.info('Compiling the first step, which may take a minute.')
            begin = time.perf_counter()
            results.append(self._loop(1))
            self._started(time.perf_counter() - begin)
            self._first = False
        rest, begin = steps - len(results), time.perf_counter()
        if rest:
            results.append(self._loop(rest))
        return joined(results), rest, time.perf_counter() - begin if rest else 0.0
