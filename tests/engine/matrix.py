"""Compares the steps of both engines in float64, for models x normalisations x optimizers x devices.

    python -m tests.engine.matrix
    python -m tests.engine.matrix --cases rcnn_group_adamw cascade_sync_sgd --devices 1 8 2x4 --steps 10 10

prints for each case the largest |a - b| / (1 + |b|) over losses, gradient norms, counts, weights, averages and the
optimizer's state after two and three steps of a ragged batch (`--steps 2 1`), and after a change of the engine. The
status is 1 if one is above 1e-9. `2x4` are 2 processes with 4 devices each. All cases take about two hours of two CPU
cores; tests/engine/jax/test_equality.py runs two of them. With `--precision float32` or `bfloat16` only the losses are
compared: to 1e-5, and to 0.02, which is 5 roundings to 8 bits. There, rounding may also carry a proposal across a
threshold of the IoU; losses are then sums over other ROIs. Where the counts of a pair differ so, they are printed
and its losses are not compared; in float64 the counts are compared as all else.
"""

import argparse
import pathlib
import sys
import tempfile

from tests.engine.jax.both import Both
from tests.engine.jax.cases import CASES

# By precision: the bound, and the beginning of the names that are compared.
BOUNDS = {'float64': (1e-9, ''), 'float32': (1e-5, 'result/losses'), 'bfloat16': (0.02, 'result/losses')}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', nargs='+', choices=CASES, default=CASES, metavar='CASE', help=', '.join(CASES))
    parser.add_argument('--devices', nargs='+', default=('1', '2', '4', '8', '2x2'), help='devices of JAX')
    parser.add_argument(
        '--steps', nargs=2, type=int, default=(2, 1), help='steps before the change of the engine, and after'
    )
    parser.add_argument('--precision', choices=BOUNDS, default='float64')
    arguments = parser.parse_args()
    (bound, of), worst, apart = BOUNDS[arguments.precision], 0.0, 0
    for case in arguments.cases:
        with tempfile.TemporaryDirectory() as folder:
            both = Both(case, pathlib.Path(folder), arguments.devices, tuple(arguments.steps), arguments.precision)
        for pair, (distance, place) in both.distances(of).items():
            differ = both.differing_counts(pair) if of else ''
            print(f'{case:22} {pair:28} {distance:9.2g}  {differ or place}', flush=True)
            apart, worst = (apart + 1, worst) if differ else (apart, max(worst, distance))
    print(f'largest {worst:.2g}, bound {bound:g}' + f'; {apart} with other counts, not compared' * bool(apart))
    return int(worst > bound)


if __name__ == '__main__':
    sys.exit(main())
