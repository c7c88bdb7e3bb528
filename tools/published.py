"""Calibrates the plan on published speeds, and checks it against others: the tables of docs/planning.md.

    python tools/published.py [--compile]

It reads seg/planner/published.json. `--compile` first compiles the steps that are missing there, or reads them from the
cache, which takes 5 to 15 minutes of a core each and needs `pip install -e '.[tpu]'`. Two rows determine the two
unknowns of the family tpu in seg/planner/calibration.json, `efficiency` and `loops_seconds`; the other rows are
predicted.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from seg import files  # noqa: E402
from seg.modes import plan, plan_steps  # noqa: E402
from seg.planner import estimate, tables  # noqa: E402
from seg.planner.estimate import Facts, Figures  # noqa: E402
from seg.planner.tables import Factors, Hardware  # noqa: E402

FOLDER = ROOT / 'seg' / 'planner'
PUBLISHED, CALIBRATION, PAGE = FOLDER / 'published.json', FOLDER / 'calibration.json', ROOT / 'docs' / 'planning.md'
BEGIN, END = '<!-- Made by python tools/published.py -->', '<!-- The end of what is made -->'
_SOURCE = (
    'efficiency and loops_seconds: two rows of published.json, v3-32 and v3-128, by tools/published.py. '
    'link_efficiency: assumed. cpu_bytes: gin/deeplab_voc.gin with two images, 16.4 GB on v3 (docs/scale.md) for 25.7 '
    'on the CPU; FLOP 794 and 792 G. usable_memory: what libtpu leaves (docs/scale.md)'
)


def key(row: dict[str, Any]) -> str:
    """The step of a row: its recipe, what it is compiled for, and the images of a device."""
    hardware = tables.hardware(row['hardware'])
    return f'{row["recipe"]} {plan.four_chips(hardware).name} x {row["batch"] // hardware.devices}'


def compile_missing(published: dict[str, Any]) -> None:
    for row in published['rows']:
        if key(row) in published['steps']:
            continue
        print(f'{key(row)} …', flush=True)
        hardware, recipe = tables.hardware(row['hardware']), published['recipes'][row['recipe']]
        topology, images = plan.four_chips(hardware), row['batch'] // hardware.devices
        settings = plan_steps.Settings(recipe['gin_files'], recipe['gin_params'], (), 'auto')
        step = plan.in_a_process(plan_steps.compiled, settings, topology.name, topology.devices, images)
        published['steps'][key(row)] = step._asdict()
        files.write_json(str(PUBLISHED), published)


def figures(published: dict[str, Any], row: dict[str, Any]) -> tuple[Hardware, Figures, Facts] | None:
    """What the estimate needs for a row; None if its step has not been compiled."""
    step = published['steps'].get(key(row))
    if step is None:
        return None
    hardware = tables.hardware(row['hardware'])
    found = Figures(
        step['images'], step['flops'], step['bytes'], step['memory'], hardware.facts.memory_gib, step['loops']
    )
    exchanged = published['exchanged'][row['recipe']]
    return hardware, found, Facts(row['batch'], published['recipes'][row['recipe']]['train_steps'], 0.0, exchanged, 0.0)


def solved(published: dict[str, Any], factors: Factors) -> Factors | None:
    """The factors with which the two rows of the calibration take their published times.

    A step takes loops + work / efficiency + exchange, so two times give both; None if a step has not been compiled.
    """
    found = []
    for row in published['rows']:
        if row['use'] == 'calibration':
            if (made := figures(published, row)) is None:
                return None
            hardware, step, facts = made
            parts = estimate.parts(hardware, step, facts, 'bfloat16', factors._replace(efficiency=1.0))
            work = max(parts['matrix units'], parts['memory bandwidth'])
            found.append((work, row['batch'] / row['images_per_second'] - parts['all-reduce']))
    (more, long), (less, short) = found
    inverse = (long - short) / (more - less)
    return factors._replace(efficiency=round(1 / inverse, 3), loops_seconds=round(short - less * inverse, 4))


def predicted(published: dict[str, Any], row: dict[str, Any], factors: Factors) -> float | None:
    """Images per second; None if the step has not been compiled."""
    if (made := figures(published, row)) is None:
        return None
    hardware, step, facts = made
    return row['batch'] / estimate.step_seconds(estimate.parts(hardware, step, facts, 'bfloat16', factors))


def table(published: dict[str, Any], factors: Factors) -> str:
    lines = ['| | use | published, images/s | planned | difference |', '| --- | --- | --- | --- | --- |']
    for row in published['rows']:
        speed, known = predicted(published, row, factors), row['images_per_second']
        difference = '' if speed is None else f'{round(100 * (speed / known - 1)):+} %'
        if row.get('least') and speed is not None and speed >= known:
            difference = 'as published'
        cells = (
            row['name'],
            row['use'],
            f'{"at least " if row.get("least") else ""}{known}',
            'not compiled yet' if speed is None else f'{speed:.3g}',
            difference,
        )
        lines.append(f'| {" | ".join(cells)} |')
    old = tables.prices(str(FOLDER / 'prices_2019_04.json'))
    costs = []
    for row in published['rows']:
        if row['use'] == 'check' and row['hardware'].endswith('-8') and (speed := predicted(published, row, factors)):
            hours = published['recipes'][row['recipe']]['train_steps'] * row['batch'] / speed / 3600
            usd, spot = (price * hours for price in old.per_hour(tables.hardware(row['hardware'])))
            costs.append(
                f'- {row["name"]}: {hours:.1f} hours, {usd:.1f} USD, preemptible {spot:.1f}, at prices of {old.date}.'
            )
    if costs:
        lines += ['', *costs]
    lines += ['', 'Sources:', '', *(f'- {row["name"]}: {row["source"]}.' for row in published['rows'])]
    return '\n'.join(lines)


def page(published: dict[str, Any], factors: Factors) -> str:
    text = PAGE.read_text(encoding='utf-8')
    made = f'{BEGIN}\n\n{table(published, factors)}\n\n{END}'
    return re.sub(f'{BEGIN}.*?{END}', lambda _: made, text, flags=re.DOTALL)


def main(compiles: bool) -> None:
    published = files.read_object(str(PUBLISHED), '')
    if compiles:
        compile_missing(published)
    factors = solved(published, tables.calibration()['tpu'])
    if factors is None:
        factors = tables.calibration()['tpu']
        print('The steps of the calibration have not been compiled; the factors stay.')
    else:
        calibration = files.read_object(str(CALIBRATION), '')
        calibration['families']['tpu'] = factors._replace(source=_SOURCE)._asdict()
        files.write_json(str(CALIBRATION), calibration)
    files.write_text(str(PAGE), page(published, factors))
    print(table(published, factors))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--compile', action='store_true', help='compiles the steps that are missing')
    main(parser.parse_args().compile)
