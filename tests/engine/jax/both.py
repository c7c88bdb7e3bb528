"""Steps of a small experiment with TensorFlow in this process, and with JAX in another one."""

from __future__ import annotations

import math
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from seg.engine import precision as precisions
from tests.engine.jax import cases
from tests.executor import runs


class Both:
    """The steps of a case with both engines.

    Attributes:
      end: by engine, `tensorflow` or the place of JAX, and then by name what `cases.Steps.take` gives: `middle` after
        the first steps, `end` after the others, and `resumed`, the latter from the other engine's `middle`.
      text: the compiled step at the last place.
    """

    def __init__(
        self,
        case: str,
        folder: pathlib.Path,
        places: Sequence[str],
        steps: tuple[int, int] = (2, 1),
        precision: str = 'float64',
    ):
        """Takes all steps.

        Args:
          case: one of `cases.CASES`.
          folder: for files.
          places: of JAX, a number of devices each, up to 8, or `2x4` for 2 processes with 4 devices each.
          steps: numbers of the first and of the other steps.
          precision: one that `seg.engine.precision` knows.
        """
        first, others = steps
        precisions.set_precision(precision)
        try:
            size = max(4, *(math.prod(map(int, place.split('x'))) for place in places))
            made, settings = cases.build(case, str(folder / 'tensorflow'), precision, size)
            batch = runs.ragged_batch(made.task, made.train_data, precision, size)
            ours = cases.Steps(made.executor.engine.trainer(made.task, made.optimizer, settings), batch)
            start = {f'state/{name}': value for name, value in ours.trainer.to_host().items()}
            self.end: dict[Any, Any] = {'tensorflow': {'middle': ours.take(first), 'end': ours.take(others)}}
            for name, values in (('batch', batch), ('start', start), ('middle', self.end['tensorflow']['middle'])):
                np.savez(folder / f'{name}.npz', **values)
            command = (precision, case, str(folder), *map(str, steps))
            _run(command, [[place for place in places if 'x' not in place]])
            for place in places:
                if 'x' in place:
                    port = unused_port()
                    _run(command, [[f'{place}:{i}:{port}'] for i in range(int(place.split('x')[0]))])
            for place in places:
                self.end[place] = {
                    name: dict(np.load(folder / f'{place}-{name}.npz')) for name in ('middle', 'end', 'resumed')
                }
            self.end['tensorflow']['resumed'] = ours.take_from(self.end[places[-1]]['middle'], others)
            self.text = (folder / f'{places[-1]}.txt').read_text(encoding='utf-8')
        finally:
            precisions.set_precision('float32')

    def distances(self, of: str = '') -> dict[str, tuple[float, str]]:
        """For each pair of results that are to be equal: the largest difference, and its place.

        Args:
          of: the beginning of the names that are compared, such as 'result/losses'.
        """
        return {name: cases.distance(*pair, of) for name, pair in self._pairs().items()}

    def differing_counts(self, pair: str) -> str:
        """The counts that differ in a pair of `distances`, such as 'rois_positive 11 and 10'; empty where none does."""
        one, other = self._pairs()[pair]
        names, *counts = one['result/counted'], *(found['result/counts'].sum(axis=0) for found in (one, other))
        return ', '.join(f'{name} {a:g} and {b:g}' for name, a, b in zip(names, *counts, strict=True) if a != b)

    def _pairs(self) -> dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        first, *others = [place for place in self.end if place != 'tensorflow']
        pairs = {}
        for name in ('middle', 'end'):
            pairs[f'{name}: {first} and TensorFlow'] = self.end[first][name], self.end['tensorflow'][name]
            pairs |= {f'{name}: {n} and {first}': (self.end[n][name], self.end[first][name]) for n in others}
        for place in (first, *others):
            pairs[f'{place} after TensorFlow'] = self.end[place]['resumed'], self.end['tensorflow']['end']
        last = (first, *others)[-1]
        pairs[f'TensorFlow after {last}'] = self.end['tensorflow']['resumed'], self.end[last]['end']
        return pairs


def _run(command: Sequence[str], processes: Sequence[Sequence[str]]) -> None:
    """Runs processes that each take the steps at some places."""
    running = [
        subprocess.Popen(
            [sys.executable, '-m', 'tests.engine.jax.equality_worker', *command, *places],
            env={**os.environ, 'PYTHONPATH': os.getcwd()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for places in processes
        if places
    ]
    for process in running:
        errors = process.communicate(timeout=3600)[1]
        assert process.returncode == 0, errors[-4000:]


def unused_port() -> int:
    """A port of this machine without a listener."""
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]
