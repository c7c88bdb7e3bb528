"""Compiles the steps of the files in gin/ for TPUs, and writes the table of docs/scale.md.

    python tools/topologies.py [--rows=GLOB] [--list]

A row is one gin file and one slice, such as `deeplab_voc:v3-8`; GLOB selects some of them. Rows are compiled one by
one, each in its own process, and each is written when it is done. All rows take hours of two cores. What was compiled
before is read from the cache (docs/scale.md), so the command can be stopped and started again at any time. It needs no
TPU, no data and no weights, only `pip install -e '.[tpu]'`.
"""

from __future__ import annotations

import argparse
import fnmatch
import multiprocessing
import os
import pathlib
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from absl import logging  # noqa: E402

from seg import files, modes  # noqa: E402
from seg.engine.jax.step_cost import StepCost  # noqa: E402
from seg.errors import UserError  # noqa: E402

PAGE = ROOT / 'docs' / 'scale.md'
HEAD = (
    '| gin file | step | slice | images a device | memory, GiB | GFLOP | GB accessed | exchanges | CPU seconds |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
)
EVALUATED = ('deeplab_voc', 'maskrcnn_coco')
# The slices of each gin file; those that compile fastest come first.
SLICES = {
    'deeplab_voc': ('v3-8', 'v5e-8', 'v6e-8'),
    'deeplab_shapes': ('v3-8', 'v5e-8'),
    'deeplab_camvid': ('v3-8', 'v5e-8'),
    'maskrcnn_shapes': ('v3-8', 'v5e-8'),
    'maskrcnn_nuclei': ('v3-8', 'v5e-8'),
    'maskrcnn_coco': ('v3-8', 'v5e-8', 'v6e-8'),
    'cascade_coco': ('v3-8',),
}
ROWS = [f'{name}:{topology}' for name, slices in SLICES.items() for topology in slices]


def compiled(row: str) -> list[StepCost]:
    """Compiles the steps of a row in this process, which can have no other engine afterwards."""
    name, topology = row.split(':')
    logging.set_verbosity(logging.INFO)
    mode = 'train_and_eval' if name in EVALUATED else 'train'
    return modes.step_costs([str(ROOT / 'gin' / f'{name}.gin')], topology, mode=mode)


def line(row: str, cost: StepCost) -> str:
    """A line of the table."""
    name, topology = row.split(':')
    program, images = cost.program, str(cost.batch // cost.devices)
    memory = f'{program.memory:.3g} of {cost.memory:g}'
    if program.limit is not None:
        images += ' do not fit'
        if cost.fitting is None:
            return _joined(name, cost.step, topology, images, memory, *[''] * 4)
        program = cost.fitting
        images += f', {cost.largest // cost.devices} do'
        memory = f'{memory}, {program.memory:.3g}'
    exchanges = ', '.join(f'{count} {kind}, {size / 1e6:.3g} MB' for kind, (count, size) in program.collectives.items())
    costs = program.gflop, f'{program.bytes_accessed / 1e9:.3g}', exchanges
    return _joined(name, cost.step, topology, images, memory, *costs, f'{program.cpu_seconds:.0f}')


def _joined(*cells: str) -> str:
    return f'| {" | ".join(cells)} |'


def with_lines(page: str, lines: Iterable[str]) -> str:
    """The page with new lines in its table; steps that have never been compiled are named as such.

    Args:
      page: the text of `PAGE`.
      lines: lines of the table, as `line` makes them.
    """
    head = '\n'.join(HEAD)
    before, found, rest = page.partition(head)
    if not found:
        raise ValueError(f'{PAGE} has no table that begins with {HEAD[0]!r}')
    old = re.match(r'(\n\|.*)*', rest)[0]
    known = {tuple(text.split(' | ')[:3]): text for text in (*old.split('\n'), *lines) if text}
    table = []
    for row in ROWS:
        name, topology = row.split(':')
        for step in ('training', 'evaluation') if name in EVALUATED else ('training',):
            key = f'| {name}', step, topology
            table.append(known.get(key, _joined(name, step, topology, 'not compiled', *[''] * 5)))
    return '\n'.join([before + head, *table]) + rest[len(old) :]


def main(rows: Iterable[str]) -> int:
    """Compiles rows and writes the table after each."""
    for row in rows:
        print(f'{row} …', flush=True)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
            try:
                costs = pool.submit(compiled, row).result()
            except UserError as error:
                print(f'topologies.py: {row}: {error}', file=sys.stderr)
                return 2
        for cost in costs:
            print(f'  {cost.text()}', flush=True)
        page = PAGE.read_text(encoding='utf-8')
        files.write_text(str(PAGE), with_lines(page, [line(row, cost) for cost in costs]))
    return 0


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', default='*', help='a glob, such as deeplab_voc:*')
    parser.add_argument('--list', action='store_true', help='lists the rows')
    given = parser.parse_args()
    chosen = fnmatch.filter(ROWS, given.rows)
    if not chosen:
        parser.error(f'--rows={given.rows}: expected a glob that some of {", ".join(ROWS)} match')
    if given.list:
        print(*chosen, sep='\n')
    else:
        sys.exit(main(chosen))
