"""Takes the steps of a case with JAX, on some of 8 devices of the CPU.

    python -m tests.engine.jax.equality_worker PRECISION CASE FOLDER FIRST OTHERS PLACE...

FOLDER holds `batch.npz`, `start.npz` and `middle.npz`: the states in which the other engine began, and FIRST steps
later. For each PLACE, a number of devices, `PLACE-….npz` are written: `middle` (after FIRST steps), `end` (after OTHERS
more) and `resumed` (OTHERS after the other engine's `middle`). `PLACE.txt` is the compiled step. A PLACE `2x4:1:PORT`
is the process 1 of 2 with 4 devices each; process 0 writes.
"""

import os
import sys

if ':' in sys.argv[2]:  # The networks of other libraries are large.
    os.environ['OPTIMIZATION_LEVEL'] = '1'
if sys.argv[1] == 'float64':  # Before all else: these choose the backend.
    import tests.engine.jax.float64  # noqa: F401
else:
    import tests.engine.jax.eight_devices  # noqa: F401

import jax  # noqa: E402
import numpy as np  # noqa: E402

from seg.engine.jax import processes  # noqa: E402
from seg.engine.jax.devices import Devices  # noqa: E402
from seg.engine.jax.engine import JaxEngine  # noqa: E402
from tests.engine.jax import cases  # noqa: E402


def main(precision: str, case: str, folder: str, first: int, others: int, places: list[str]) -> None:
    def read(name: str) -> dict[str, np.ndarray]:
        return dict(np.load(os.path.join(folder, f'{name}.npz')))

    batch, start, middle = read('batch'), read('start'), read('middle')
    for place in places:
        if ':' in place:
            place, index, port = place.split(':')
            processes.join(f'127.0.0.1:{port}', int(place.split('x')[0]), int(index))
        count = int(place.split('x')[-1])
        own = {p: [d.id for d in jax.devices() if d.process_index == p][:count] for p in range(jax.process_count())}
        engine = JaxEngine(Devices([d for d in jax.devices() if d.id in own[d.process_index]]), precision)
        run = os.path.join(folder, f'{place}-{engine.process.index}')
        made, settings = cases.build(case, run, precision, len(batch['weight']), engine)
        steps = cases.Steps(engine.trainer(made.task, made.optimizer, settings), batch)
        found = {'middle': steps.take_from(start, first), 'end': steps.take(others)}
        found['resumed'] = steps.take_from(middle, others)
        if not engine.chief:
            continue
        for name, values in found.items():
            np.savez(os.path.join(folder, f'{place}-{name}.npz'), **values)
        with open(os.path.join(folder, f'{place}.txt'), 'w', encoding='utf-8') as file:
            file.write(steps.loop._run.as_text())


if __name__ == '__main__':
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
    processes.leave(failed=False)
    os._exit(0)
