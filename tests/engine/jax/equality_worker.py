"""Takes the steps of a case with JAX, on some of 8 devices of the CPU.

    python -m tests.engine.jax.equality_worker CASE FOLDER DEVICES...

FOLDER holds `batch.npz`, `start.npz` and `middle.npz`: the states in which the other engine began, and two steps later.
For each number of devices N, `N-….npz` are written: `middle` (after two steps), `end` (after one more) and `resumed`
(one step after the other engine's `middle`). `N.txt` is the compiled step.
"""

import os
import sys

import tests.engine.jax.float64  # noqa: F401  # isort: skip  Before all else: it chooses the backend.

import jax
import numpy as np

from seg.engine.jax.devices import Devices
from seg.engine.jax.engine import JaxEngine
from tests.engine.jax import cases


def main(case: str, folder: str, counts: list[int]) -> None:
    def read(name: str) -> dict[str, np.ndarray]:
        return dict(np.load(os.path.join(folder, f'{name}.npz')))

    batch, start, middle = read('batch'), read('start'), read('middle')
    for count in counts:
        engine = JaxEngine(Devices(jax.devices()[:count]), 'float64')
        made, settings = cases.build(case, os.path.join(folder, str(count)), len(batch['weight']), engine)
        steps = cases.Steps(engine.trainer(made.task, made.optimizer, settings), batch)
        found = {'middle': steps.take_from(start, 2), 'end': steps.take(1), 'resumed': steps.take_from(middle, 1)}
        for name, values in found.items():
            np.savez(os.path.join(folder, f'{count}-{name}.npz'), **values)
        with open(os.path.join(folder, f'{count}.txt'), 'w', encoding='utf-8') as file:
            file.write(steps.loop._run.as_text())


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], [int(count) for count in sys.argv[3:]])
    os._exit(0)
