"""Three steps of a small experiment with TensorFlow in this process, and with JAX in another one."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from seg.engine import precision
from tests.engine.jax import cases
from tests.executor import runs


class Both:
    """The steps of a case with both engines.

    Attributes:
      end: by engine, `tensorflow` or the number of JAX's devices, and then by name what `cases.Steps.take` gives:
        `middle` after two steps, `end` after one more, and `resumed`, the latter from the other engine's `middle`.
      text: the compiled step on the largest number of devices.
    """

    def __init__(self, case: str, folder: pathlib.Path, counts: Sequence[int]):
        """Takes all steps.

        Args:
          case: one of `cases.CASES`.
          folder: for files.
          counts: of JAX's devices, up to 8.
        """
        precision.set_precision('float64')
        try:
            size = max(4, *counts)
            made, settings = cases.build(case, str(folder / 'tensorflow'), size)
            batch = runs.ragged_batch(made.task, made.train_data, size=size)
            steps = cases.Steps(made.executor.engine.trainer(made.task, made.optimizer, settings), batch)
            start = {f'state/{name}': value for name, value in steps.trainer.to_host().items()}
            self.end: dict[Any, Any] = {'tensorflow': {'middle': steps.take(2), 'end': steps.take(1)}}
            for name, values in (('batch', batch), ('start', start), ('middle', self.end['tensorflow']['middle'])):
                np.savez(folder / f'{name}.npz', **values)
            command = [sys.executable, '-m', 'tests.engine.jax.equality_worker', case, str(folder)]
            done = subprocess.run(
                [*command, *map(str, counts)],
                env={**os.environ, 'PYTHONPATH': os.getcwd()},
                capture_output=True,
                text=True,
                timeout=3600,
            )
            assert done.returncode == 0, done.stderr[-4000:]
            for count in counts:
                self.end[count] = {
                    name: dict(np.load(folder / f'{count}-{name}.npz')) for name in ('middle', 'end', 'resumed')
                }
            self.end['tensorflow']['resumed'] = steps.take_from(self.end[counts[-1]]['middle'], 1)
            self.text = (folder / f'{counts[-1]}.txt').read_text(encoding='utf-8')
        finally:
            precision.set_precision('float32')

    def distances(self) -> dict[str, tuple[float, str]]:
        """For each pair of results that are to be equal: the largest difference, and its place."""
        first, *others = [count for count in self.end if count != 'tensorflow']
        pairs = {}
        for name in ('middle', 'end'):
            pairs[f'{name}: {first} and TensorFlow'] = self.end[first][name], self.end['tensorflow'][name]
            pairs |= {f'{name}: {n} and {first}': (self.end[n][name], self.end[first][name]) for n in others}
        for count in (first, *others):
            pairs[f'{count} after TensorFlow'] = self.end[count]['resumed'], self.end['tensorflow']['end']
        last = (first, *others)[-1]
        pairs[f'TensorFlow after {last}'] = self.end['tensorflow']['resumed'], self.end[last]['end']
        return {name: cases.distance(*pair) for name, pair in pairs.items()}
